"""The ways to run one network, each behind the same two steps: load it, then make a run of a batch.

A run is timed by CUDA events on the stream that it is queued on where that can be reached, by the
host's clock around a run that waits for itself where it cannot (ONNX Runtime).
"""

import copy
import shutil
import time
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn

from harness.subject import Subject
from sensorium_server.openvino_graph import computes_bf16

DTYPES: Mapping[str, torch.dtype] = {
    "fp32": torch.float32,
    "fp16": torch.float16,
    "bf16": torch.bfloat16,
}
Run = Callable[[], object]


class Way(Protocol):
    """One way."""

    precision: str

    def why_not(self) -> str:
        """Say why it cannot be taken here; empty if it can."""

    def load(self, subject: Subject, largest: int, scratch: Path) -> None:
        """Get ready for batches up to the largest."""

    def prepared(self, subject: Subject, batch: int) -> Run:
        """Return what runs a batch whose inputs are in place."""

    def ms(self, run: Run, repeats: int) -> float:
        """Return the milliseconds of a run, the mean of several in a row."""


class HostTimed:
    """Times runs that wait for themselves."""

    def ms(self, run: Run, repeats: int) -> float:
        """Return the milliseconds of a run, the mean of several in a row."""
        begin = time.perf_counter()
        for _ in range(repeats):
            run()
        return 1e3 * (time.perf_counter() - begin) / repeats


class PyTorch(HostTimed):
    """PyTorch, eager or compiled."""

    def __init__(self, precision: str, device: str, mode: str = "") -> None:
        self.precision, self._device, self._mode = precision, device, mode
        self._module: nn.Module | None = None

    def why_not(self) -> str:
        """Say why it cannot be taken here."""
        if self._mode and not any(map(shutil.which, ("c++", "g++", "clang++"))):
            return "torch.compile needs a C++ compiler"
        return ""

    def load(self, subject: Subject, largest: int, scratch: Path) -> None:
        """Copy the module into the precision."""
        del largest, scratch
        module = copy.deepcopy(subject.module).to(self._device, DTYPES[self.precision])
        if self._mode:
            torch.compiler.reset()
            module.compile(mode=self._mode, dynamic=False)
        self._module = module

    def prepared(self, subject: Subject, batch: int) -> Run:
        """Put the inputs into place."""
        module = self._module
        assert module is not None  # noqa: S101 - loaded before
        tensors = subject.tensors(batch, DTYPES[self.precision], self._device)

        def run() -> object:
            with torch.inference_mode():
                return module(*tensors)

        return run

    def ms(self, run: Run, repeats: int) -> float:
        """Return the milliseconds of a run; by CUDA events on a GPU."""
        if self._device == "cpu":
            return super().ms(run, repeats)
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        begin.record()
        for _ in range(repeats):
            run()
        end.record()
        end.synchronize()
        return float(begin.elapsed_time(end)) / repeats


class OnnxRuntime(HostTimed):
    """ONNX Runtime on the processor, by the file as it is or quantised."""

    def __init__(self, precision: str, threads: int) -> None:
        self.precision, self._threads = precision, threads
        self._graph: Any = None

    def why_not(self) -> str:
        """Nothing is needed that the server does not need."""
        return ""

    def load(self, subject: Subject, largest: int, scratch: Path) -> None:
        """Open the file."""
        from sensorium_export.precision import lowered  # noqa: PLC0415 - slow to import
        from sensorium_server.onnx_session import OnnxGraph  # noqa: PLC0415

        del largest
        path = written(lowered(subject.files, self.precision), scratch / self.precision)
        self._graph = OnnxGraph(path, threads=self._threads)

    def prepared(self, subject: Subject, batch: int) -> Run:
        """Draw the inputs."""
        arrays, outputs = subject.arrays(batch), list(self._graph.outputs)
        return lambda: self._graph.run(outputs, arrays)


class OpenVino(HostTimed):
    """OpenVINO on the processor."""

    def __init__(self, precision: str, threads: int) -> None:
        self.precision, self._threads = precision, threads
        self._compiled: Any = None

    def why_not(self) -> str:
        """Say why it cannot be taken here."""
        if find_spec("openvino") is None:
            return "openvino is not installed"
        if self.precision == "bf16" and not computes_bf16():
            return "this CPU does not compute bf16"
        return ""

    def load(self, subject: Subject, largest: int, scratch: Path) -> None:
        """Compile the file."""
        import openvino  # noqa: PLC0415 - an extra

        del largest
        path = written(subject.files, scratch / "openvino")
        hint = {"fp32": "f32", "bf16": "bf16"}[self.precision]
        self._compiled = openvino.Core().compile_model(
            str(path),
            "CPU",
            {
                "INFERENCE_PRECISION_HINT": hint,
                "INFERENCE_NUM_THREADS": self._threads,
                "PERFORMANCE_HINT": "LATENCY",
            },
        )

    def prepared(self, subject: Subject, batch: int) -> Run:
        """Draw the inputs."""
        arrays = subject.arrays(batch)
        return lambda: self._compiled(arrays)


def written(files: Mapping[str, bytes], directory: Path) -> Path:
    """Write a graph's files; return the ONNX file."""
    paths = [directory / name for name in files]
    for path, data in zip(paths, files.values(), strict=True):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return paths[0]


def cpu_ways(threads: int) -> dict[str, Way]:
    """Return the ways on a processor."""
    return {
        "PyTorch eager fp32": PyTorch("fp32", "cpu"),
        "torch.compile fp32": PyTorch("fp32", "cpu", "default"),
        "ONNX Runtime fp32": OnnxRuntime("fp32", threads),
        "ONNX Runtime int8": OnnxRuntime("int8", threads),
        "OpenVINO fp32": OpenVino("fp32", threads),
        "OpenVINO bf16": OpenVino("bf16", threads),
    }
