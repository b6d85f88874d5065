"""ONNX graphs by OpenVINO: the same files, in bf16 about twice as fast where a CPU computes it.

Needs the extra `openvino`. In bf16 weights are rounded when the graph is loaded; inputs and outputs
stay FP32. int8 is for graphs that were quantised.
"""

from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from sensorium.errors import ConfigurationError
from sensorium_server.onnx_session import Graph, OnnxGraph

_HINTS = {"fp32": "f32", "bf16": "bf16", "int8": "f32"}


class OpenVinoGraph(Graph):
    """One loaded graph, as `OnnxGraph` is one."""

    def __init__(self, path: Path, *, threads: int = 1, precision: str = "bf16") -> None:
        try:
            import openvino  # noqa: PLC0415 - an extra
        except ImportError as error:
            raise ConfigurationError(
                f"precision = {precision} by OpenVINO, which is not installed. "
                "Install it with: pip install 'sensorium[openvino]'"
            ) from error
        # OpenVINO forgets the names of open axes.
        named = OnnxGraph(path, optimized=True)
        super().__init__(named.inputs, named.outputs, named.dtypes)
        if precision == "bf16" and not computes_bf16():
            raise ConfigurationError(
                f"{path.parent.parent.name}: precision = bf16, which this CPU does not compute "
                f"(it has neither AVX512-BF16 nor AMX). Export the bundle without --precision bf16."
            )
        self._compiled = openvino.Core().compile_model(
            str(path),
            "CPU",
            {
                "INFERENCE_PRECISION_HINT": _HINTS[precision],
                "INFERENCE_NUM_THREADS": threads,
                "PERFORMANCE_HINT": "LATENCY",
            },
        )

    def run(self, outputs: list[str], inputs: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Compute all outputs, and return the named ones."""
        # Of the two equal types for int64 that NumPy has, OpenVINO knows one.
        known = {name: array.view(array.dtype.str) for name, array in inputs.items()}
        found = self._compiled(known)
        return {name: found[name] for name in outputs}


def computes_bf16() -> bool:
    """Whether this CPU computes in bfloat16, as OpenVINO sees it (False where it is missing)."""
    try:
        import openvino  # noqa: PLC0415 - an extra
    except ImportError:
        return False
    return "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
