"""A device that is the host's own memory, and an engine on it that ONNX Runtime computes.

Everything but CUDA's calls then runs as on a GPU: addresses, pitches, buffers, recordings.
"""

import ctypes
from collections.abc import Callable, Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sensorium_server import dlpack
from sensorium_server.device import CaptureError, DeviceArray, Pitched, zeros
from sensorium_server.engine_layout import EngineTensor, Layout, Profile, Shape
from sensorium_server.onnx_session import OnnxGraph


class HostMemory:
    """Memory of the host."""

    def __init__(self, size: int) -> None:
        self._bytes = np.zeros(size, np.uint8)
        self.pointer: int = self._bytes.ctypes.data


class HostDevice:
    """Does at once what a GPU would queue; counts what is done."""

    def __init__(self, *, can_record: bool = True) -> None:
        self.dlpack_device = (dlpack.HOST, 0)
        self.allocated = 0
        self.copied: list[int] = []
        self.launched = 0
        self._can_record = can_record

    def claim(self) -> None:
        """Do nothing: there is one host."""

    def allocate(self, size: int) -> HostMemory:
        """Return so many bytes."""
        self.allocated += 1
        return HostMemory(size)

    def pinned(self, size: int) -> NDArray[np.uint8]:
        """Return so many bytes."""
        return np.zeros(size, np.uint8)

    def copy(self, target: int, source: int, size: int) -> None:
        """Copy bytes."""
        self.copied.append(size)
        ctypes.memmove(target, source, size)

    def copy_rows(self, target: Pitched, source: Pitched, width: int, rows: int) -> None:
        """Copy rows of bytes."""
        for row in range(rows):
            ctypes.memmove(
                target.pointer + row * target.pitch, source.pointer + row * source.pitch, width
            )

    def clear(self, pointer: int, size: int) -> None:
        """Write zeros."""
        ctypes.memset(pointer, 0, size)

    def synchronize(self) -> None:
        """Do nothing: all is done."""

    def recorded(self, work: Callable[[], None]) -> Callable[[], None]:
        """Return the work itself, counted, with the shapes and addresses that it has now."""
        if not self._can_record:
            raise CaptureError("this device records nothing")
        context = getattr(work, "__self__", None)
        recorded = context.frozen().enqueue if isinstance(context, OnnxContext) else work

        def launch() -> None:
            self.launched += 1
            recorded()

        return launch

    def placed(self, array: NDArray[Any]) -> DeviceArray:
        """Put an array on the device."""
        target = zeros(self, array.shape, array.dtype)
        ctypes.memmove(target.pointer, np.ascontiguousarray(array).ctypes.data, array.nbytes)
        return target


def at(pointer: int, shape: Shape, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return the array at an address."""
    size = prod(shape) * dtype.itemsize
    return (
        np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(pointer))
        .view(dtype)
        .reshape(shape)
    )


Sizes = Mapping[str, tuple[int, int]]


class OnnxEngine:
    """An ONNX file as an engine; each profile is the least and greatest size of every open axis."""

    def __init__(self, path: Path, profiles: Sequence[Sizes]) -> None:
        self.graph = OnnxGraph(path)
        self.runs: list[dict[str, Shape]] = []
        tensors = [
            EngineTensor(
                name,
                is_input,
                np.dtype(self.graph.dtypes[name] if is_input else _output_dtype(name)),
                tuple(axis if isinstance(axis, int) else -1 for axis in axes),
            )
            for side, is_input in ((self.graph.inputs, True), (self.graph.outputs, False))
            for name, axes in side.items()
        ]
        self.layout = Layout(
            tuple(tensors),
            tuple(Profile(self._corner(one, 0), self._corner(one, 1)) for one in profiles),
        )

    def _corner(self, sizes: Sizes, place: int) -> dict[str, Shape]:
        return {
            name: tuple(axis if isinstance(axis, int) else sizes[str(axis)][place] for axis in axes)
            for name, axes in self.graph.inputs.items()
        }

    def context(self, profile: int) -> "OnnxContext":
        """Make a context."""
        return OnnxContext(self, profile)


def _output_dtype(name: str) -> Any:  # noqa: ANN401 - a NumPy type
    return np.int64 if name.endswith("mask") else np.float32


class OnnxContext:
    """Reads and writes at the addresses that it was given."""

    def __init__(self, engine: OnnxEngine, profile: int) -> None:
        self._engine, self._profile = engine, profile
        self._pointers: dict[str, int] = {}
        self._shapes: dict[str, Shape] = {}

    def bind(self, name: str, pointer: int) -> None:
        """Say where a tensor lies."""
        self._pointers[name] = pointer

    def resize(self, name: str, shape: Shape) -> None:
        """Say an input's shape."""
        self._shapes[name] = shape

    def shape(self, name: str) -> Shape:
        """Return an output's shape."""
        graph = self._engine.graph
        sizes = {
            axis: size
            for one, axes in graph.inputs.items()
            for axis, size in zip(axes, self._shapes[one], strict=True)
        }
        return tuple(sizes.get(axis, axis) for axis in graph.outputs[name])  # type: ignore[misc, arg-type]

    def frozen(self) -> "OnnxContext":
        """Return a copy that keeps its shapes and addresses."""
        made = OnnxContext(self._engine, self._profile)
        made._pointers, made._shapes = dict(self._pointers), dict(self._shapes)
        return made

    def enqueue(self) -> None:
        """Compute at once."""
        engine = self._engine
        assert engine.layout.profiles[self._profile].holds(self._shapes)
        engine.runs.append(dict(self._shapes))
        inputs = {
            tensor.name: at(self._pointers[tensor.name], self._shapes[tensor.name], tensor.dtype)
            for tensor in engine.layout.inputs
        }
        results = engine.graph.run([one.name for one in engine.layout.outputs], inputs)
        for tensor in engine.layout.outputs:
            found = results[tensor.name]
            at(self._pointers[tensor.name], found.shape, tensor.dtype)[...] = found
