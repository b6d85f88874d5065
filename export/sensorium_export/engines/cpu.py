"""Engines for processors: ONNX files still, which ONNX Runtime or OpenVINO runs as the server does.

| precision | by `onnxruntime` | by `openvino` |
|---|---|---|
| `fp32` | the graph as ONNX Runtime optimises it, saved: it starts faster | the graph as it is |
| `bf16` | (it has no kernels) | the graph as it is, computed in bfloat16 |
| `int8` | weights to 8 bits (half of the range: see `precision.py`), activations as they come | |
| `int8_static` | weights and activations to 8 bits, with scales from a calibration | likewise |

A saved graph may hold what only this processor can compute, so its record names the processor.
"""

import logging
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import onnx
import onnxruntime

from sensorium.errors import ConfigurationError
from sensorium_export.engines import (
    BuildPlan,
    GraphFile,
    NodeProblem,
    Progress,
    Runner,
    no_progress,
)
from sensorium_export.precision import lowered
from sensorium_export.seeded_inputs import Array
from sensorium_export.tolerance import BF16, FP32, INT8
from sensorium_server.engine_record import Target
from sensorium_server.onnxruntime_backend import graph_from
from sensorium_server.stages import StageConfig
from sensorium_server.swap.device import processor
from sensorium_server.swap.engine_config import cpu_parameters

INT8_STATIC = "int8_static"
SUFFIX = ".cpu.onnx"
_QUANTIZED = ("MatMul", "Gemm", "Conv")
_FILE = "model.onnx"
_BF16_INSTRUCTIONS = ("avx512_bf16", "amx_bf16")


@dataclass(frozen=True, slots=True)
class CpuProduct:
    """One of the two; `calibration` are inputs of the graph, for `int8_static`."""

    name: str
    precisions: tuple[str, ...]
    calibration: tuple[Mapping[str, Array], ...] = ()
    suffix: str = SUFFIX

    def why_unavailable(self, compute_capability: str = "") -> str:
        """Say why it cannot build on this machine and what to do about it; empty if it can."""
        if compute_capability:
            return f"{self.name} builds for this processor, not for {compute_capability}"
        if find_spec(self.name) is None:
            return (
                f"{self.name} is not installed. Install it with: pip install 'sensorium[openvino]'"
            )
        return ""

    def why_not_runnable(self) -> str:
        """Say why it cannot run an engine here; what it builds it can run."""
        return self.why_unavailable()

    def version(self) -> str:
        """Return the product's version."""
        return version(self.name)

    def target(self, compute_capability: str = "") -> Target:
        """Return this machine's processor."""
        del compute_capability
        return processor()

    def problems(self, graph: GraphFile) -> tuple[NodeProblem, ...]:
        """Return what is refused: nothing, as all graphs are served by ONNX Runtime anyway."""
        del graph
        return ()

    def build(self, graph: GraphFile, plan: BuildPlan, progress: Progress = no_progress) -> bytes:
        """Make the file that is served.

        Raises:
            ConfigurationError: The graph, the precision or the processor is not fit for it.
        """
        if len(graph.files) > 1:
            raise ConfigurationError(
                f"{graph.name} has more weights than one file holds, and is served as it is"
            )
        precision = plan.precision
        if precision not in self.precisions:
            raise ConfigurationError(
                f"{self.name} builds {', '.join(self.precisions)}, not {precision}"
            )
        if precision == BF16 and not any(one in processor().device for one in _BF16_INSTRUCTIONS):
            raise ConfigurationError("this processor has neither AVX512-BF16 nor AMX for bf16")
        progress(f"{graph.name} in {precision}", 0, 1)
        (data,) = graph.files.values()
        if precision == INT8:
            (data,) = lowered({_FILE: data}, INT8).values()
        elif precision == INT8_STATIC:
            data = _calibrated(graph.name, data, self.calibration)
        return _optimised(data) if self.name == "onnxruntime" else data

    @contextmanager
    def runner(self, graph: GraphFile, engine: bytes, plan: BuildPlan) -> Iterator[Runner]:
        """Load an engine as the server does; give what runs it."""
        with tempfile.TemporaryDirectory() as directory:
            folder = Path(directory, graph.name.replace("/", "_"), "1")
            folder.mkdir(parents=True)
            (folder / _FILE).write_bytes(engine)
            parameters = cpu_parameters(self.name, plan.precision)
            loaded = graph_from(StageConfig(graph.name, folder, parameters))
            yield lambda inputs: loaded.run(list(loaded.outputs), dict(inputs))


ONNXRUNTIME = CpuProduct("onnxruntime", (FP32, INT8))
OPENVINO = CpuProduct("openvino", (FP32, BF16))


def calibrated_products(inputs: Sequence[Mapping[str, Array]]) -> tuple[CpuProduct, ...]:
    """Return both products with all of their precisions, calibrated on inputs of a graph."""
    given = tuple(inputs)
    return (
        CpuProduct("onnxruntime", (FP32, INT8, INT8_STATIC), given),
        CpuProduct("openvino", (FP32, BF16, INT8_STATIC), given),
    )


def _optimised(data: bytes) -> bytes:
    """Return a graph as ONNX Runtime optimises it for this processor."""
    with tempfile.TemporaryDirectory() as directory:
        target = Path(directory, _FILE)
        options = onnxruntime.SessionOptions()
        options.optimized_model_filepath = str(target)
        options.log_severity_level = 3
        onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        return target.read_bytes()


def _calibrated(name: str, data: bytes, inputs: Sequence[Mapping[str, Array]]) -> bytes:
    """Return a graph whose matrix products are quantised, with scales from the given inputs."""
    if not inputs:
        raise ConfigurationError(
            f"{name} in {INT8_STATIC} needs inputs to calibrate on. Use --search, or int8"
        )
    # Slow to import, and only who quantises needs it.
    from onnxruntime.quantization import (  # noqa: PLC0415
        CalibrationDataReader,
        QuantFormat,
        QuantType,
        quantize_static,
    )

    reader = type("_Reader", (CalibrationDataReader,), {"get_next": _next_of(inputs)})()
    with tempfile.TemporaryDirectory() as directory:
        target = Path(directory, _FILE)
        logging.disable(logging.WARNING)  # it advises what is for convolutions
        try:
            quantize_static(
                onnx.load_from_string(data),
                target,
                reader,
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=list(_QUANTIZED),
                per_channel=True,
                reduce_range=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
            )
        finally:
            logging.disable(logging.NOTSET)
        return target.read_bytes()


def _next_of(inputs: Sequence[Mapping[str, Array]]) -> Callable[[Any], dict[str, Array] | None]:
    rest = iter(inputs)

    def get_next(_reader: object) -> dict[str, Array] | None:
        given = next(rest, None)
        return None if given is None else dict(given)

    return get_next
