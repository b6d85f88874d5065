"""The ways to run one network on a GPU; written for one, and not yet run on any."""

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from harness.engine_way import HostTimed, PyTorch, Run, Way, written
from harness.subject import Subject
from sensorium_export.engines import BuildPlan, product_named
from sensorium_export.engines.tensorrt import typed_files
from sensorium_server.cuda import CudaDevice, Timer
from sensorium_server.onnx_provider import CUDA, TENSORRT, gpu_providers, installed_providers
from sensorium_server.onnx_session import OnnxGraph
from sensorium_server.tensorrt_engine import TensorRtEngine

PRECISIONS = ("fp16", "bf16")


class OnnxRuntimeGpu(HostTimed):
    """ONNX Runtime on CUDA, or on TensorRT by ONNX Runtime; inputs and outputs stay on the GPU."""

    def __init__(self, precision: str, provider: str) -> None:
        self.precision, self._provider = precision, provider
        self._session: Any = None

    def why_not(self) -> str:
        """Say why it cannot be taken here."""
        if self._provider not in installed_providers():
            return f"this ONNX Runtime has no {self._provider}"
        return ""

    def load(self, subject: Subject, largest: int, scratch: Path) -> None:
        """Open the file in the precision; TensorRT builds its engine at the first run."""
        plan = BuildPlan(self.precision, ())
        path = written(typed_files(subject.graph_file, plan), scratch / f"ort_{self.precision}")
        sizes = subject.ranges(largest) if self._provider == TENSORRT else {}
        providers = gpu_providers(installed_providers(), OnnxGraph(path).inputs, sizes)
        if self._provider == TENSORRT:
            providers[0][1][f"trt_{self.precision}_enable"] = "1"
        self._session = onnxruntime.InferenceSession(str(path), providers=providers)

    def prepared(self, subject: Subject, batch: int) -> Run:
        """Put the inputs on the GPU, and bind the outputs there."""
        binding = self._session.io_binding()
        for name, array in subject.arrays(batch).items():
            value = onnxruntime.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(array), "cuda", 0)
            binding.bind_ortvalue_input(name, value)
        for output in self._session.get_outputs():
            binding.bind_output(output.name, "cuda", 0)
        return lambda: self._session.run_with_iobinding(binding)


class Plan:
    """An engine of TensorRT or TensorRT-RTX, built here, launched as a CUDA graph."""

    def __init__(self, precision: str, product: str) -> None:
        self.precision, self._product = precision, product
        self._device: CudaDevice | None = None
        self._engine: TensorRtEngine | None = None

    def why_not(self) -> str:
        """Say why it cannot be taken here."""
        return product_named(self._product).why_unavailable()

    def load(self, subject: Subject, largest: int, scratch: Path) -> None:
        """Build the engine and load it."""
        plan = BuildPlan(self.precision, (subject.ranges(largest),))
        built = product_named(self._product).build(subject.graph_file, plan)
        path = scratch / f"{self._product}_{self.precision}.plan"
        path.write_bytes(built)
        self._device = CudaDevice()
        self._engine = TensorRtEngine(path, self._product, self._device)

    def prepared(self, subject: Subject, batch: int) -> Run:
        """Put the inputs on the GPU and record a run."""
        device, engine = self._device, self._engine
        assert device is not None  # noqa: S101 - loaded before
        assert engine is not None  # noqa: S101
        context = engine.context(0)
        arrays = {
            name: np.ascontiguousarray(array) for name, array in subject.arrays(batch).items()
        }
        kept: list[Any] = [arrays, context]
        for name, array in arrays.items():
            memory = device.allocate(array.nbytes)
            device.copy(memory.pointer, array.ctypes.data, array.nbytes)
            context.resize(name, array.shape)
            context.bind(name, memory.pointer)
            kept.append(memory)
        for tensor in engine.layout.outputs:
            size = int(np.prod(context.shape(tensor.name))) * tensor.dtype.itemsize
            memory = device.allocate(size)
            context.bind(tensor.name, memory.pointer)
            kept.append(memory)
        context.enqueue()
        device.synchronize()
        launch = device.recorded(context.enqueue)

        def run(_kept: object = kept) -> None:
            launch()

        return run

    def ms(self, run: Run, repeats: int) -> float:
        """Return the milliseconds of a run, by CUDA events on the engine's stream."""
        device = self._device
        assert device is not None  # noqa: S101 - loaded before
        timer = Timer(device)
        timer.start()
        for _ in range(repeats):
            run()
        return timer.stop() / repeats


def gpu_ways() -> dict[str, Way]:
    """Return the ways on a GPU."""
    ways: dict[str, Way] = {}
    for precision in PRECISIONS:
        ways |= {
            f"PyTorch eager {precision}": PyTorch(precision, "cuda"),
            f"torch.compile {precision}": PyTorch(precision, "cuda", "max-autotune"),
            f"ONNX Runtime CUDA {precision}": OnnxRuntimeGpu(precision, CUDA),
            f"ONNX Runtime TensorRT {precision}": OnnxRuntimeGpu(precision, TENSORRT),
            f"TensorRT {precision}": Plan(precision, "tensorrt"),
            f"TensorRT-RTX {precision}": Plan(precision, "tensorrt_rtx"),
        }
    return ways
