"""ONNX graphs by OpenVINO, in bf16: the same files, about twice as fast where a CPU computes it.

Needs the extra `openvino`. Weights are rounded when the graph is loaded; inputs and outputs stay
FP32.
"""

from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from sensorium.errors import ConfigurationError
from sensorium_server.onnx_session import Graph, OnnxGraph


class OpenVinoGraph(Graph):
    """One loaded graph, as `OnnxGraph` is one."""

    def __init__(self, path: Path, *, threads: int = 1) -> None:
        try:
            import openvino  # noqa: PLC0415 - an extra
        except ImportError as error:
            raise ConfigurationError(
                "precision = bf16 needs OpenVINO, which is not installed. "
                "Install it with: pip install 'sensorium[openvino]'"
            ) from error
        # OpenVINO forgets the names of open axes.
        named = OnnxGraph(path)
        super().__init__(named.inputs, named.outputs, named.dtypes)
        core = openvino.Core()
        if "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
            raise ConfigurationError(
                f"{path.parent.parent.name}: precision = bf16, which this CPU does not compute "
                f"(it has neither AVX512-BF16 nor AMX). Export the bundle without --precision bf16."
            )
        self._compiled = core.compile_model(
            str(path),
            "CPU",
            {
                "INFERENCE_PRECISION_HINT": "bf16",
                "INFERENCE_NUM_THREADS": threads,
                "PERFORMANCE_HINT": "LATENCY",
            },
        )

    def run(self, outputs: list[str], inputs: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Compute all outputs, and return the named ones."""
        found = self._compiled(inputs)
        return {name: found[name] for name in outputs}
