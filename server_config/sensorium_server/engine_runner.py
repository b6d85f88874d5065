"""Runs a compiled engine on batches of requests, whose parts are on the host or on the device.

Every tensor has one buffer for the largest profile, at the same address for life. So the work of a
run, once its shapes have come twice, is recorded as a CUDA graph and queued by a single call. Batch
sizes are rounded up to buckets, or there would be too many graphs.

    parts on the host ─ join and pad ─▶ pinned ─┐
    parts on the device ────────────────────────┴▶ input buffers ─ engine ─▶ output buffers
"""

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from sensorium_server.batching import Axes, Batcher, resized
from sensorium_server.device import (
    CaptureError,
    Device,
    DeviceArray,
    Part,
    Pitched,
    on_host,
    zeros,
)
from sensorium_server.engine_layout import Layout, Shape, batch_buckets, bucket_for

GRAPHS = 64
"""How many CUDA graphs are kept when the config does not say."""


class Context(Protocol):
    """An execution context: one profile of an engine, ready to run."""

    def bind(self, name: str, pointer: int) -> None:
        """Say where a tensor lies."""

    def resize(self, name: str, shape: Shape) -> None:
        """Say an input's shape."""

    def shape(self, name: str) -> Shape:
        """Return an output's shape, by the inputs' shapes."""

    def enqueue(self) -> None:
        """Queue a run on the device's stream."""


class Engine(Protocol):
    """A loaded engine."""

    layout: Layout

    def context(self, profile: int) -> Context:
        """Make an execution context for a profile."""


@dataclass(slots=True)
class _Run:
    """The work for one set of shapes: the outputs' shapes, and what queues it."""

    shapes: Mapping[str, Shape]
    queue: Callable[[], None] | None = None
    is_plain: bool = False


class EngineRunner:
    """One engine with its buffers."""

    def __init__(self, engine: Engine, device: Device, *, graphs: int = GRAPHS) -> None:
        """Allocate for the largest shapes of every profile.

        Args:
            engine: The loaded engine.
            device: Where it was loaded.
            graphs: How many CUDA graphs to keep; 0 never records any.
        """
        self.layout = engine.layout
        self._device = device
        self._graphs = graphs
        self._contexts = [engine.context(number) for number in range(len(self.layout.profiles))]
        self._runs: OrderedDict[tuple[int, tuple[Shape, ...]], _Run] = OrderedDict()
        self._batches = batch_buckets(self.layout.largest_batch)
        sizes = self._largest_sizes()
        self._buffers = {
            tensor.name: zeros(device, (sizes[tensor.name],), tensor.dtype)
            for tensor in self.layout.tensors
        }
        self._cuts: dict[str, DeviceArray] = {}
        self._pinned = {
            tensor.name: device.pinned(sizes[tensor.name] * tensor.dtype.itemsize)
            for tensor in self.layout.inputs
        }
        for context in self._contexts:
            for name, buffer in self._buffers.items():
                context.bind(name, buffer.pointer)

    def _largest_sizes(self) -> dict[str, int]:
        """Return how many elements each tensor has at most."""
        largest: dict[str, int] = {}
        for context, profile in zip(self._contexts, self.layout.profiles, strict=True):
            for name, shape in profile.greatest.items():
                context.resize(name, shape)
                largest[name] = max(largest.get(name, 1), prod(shape))
            for tensor in self.layout.outputs:
                size = prod(context.shape(tensor.name))
                largest[tensor.name] = max(largest.get(tensor.name, 1), size)
        return largest

    @property
    def recorded(self) -> int:
        """How many CUDA graphs there are."""
        return sum(run.queue is not None for run in self._runs.values())

    def run(
        self,
        requests: Sequence[Mapping[str, Part]],
        tails: Mapping[str, Shape],
        pad_values: Mapping[str, float],
    ) -> dict[str, DeviceArray]:
        """Run a batch and wait for it; return whole outputs, in buffers that the next run reuses.

        Args:
            requests: The parts of each input, of the same rank.
            tails: The shape of each input without its first axis, at least that of every part.
            pad_values: What the padding holds, by input; 0 if not given.

        Raises:
            InvalidInputError: no profile holds the shapes.
        """
        rows = sum(len(next(iter(request.values()))) for request in requests)
        batch = bucket_for(rows, self._batches)
        shapes = {name: (batch, *tail) for name, tail in tails.items()}
        number = self.layout.profile_for(shapes)
        for name in shapes:
            parts = [request[name] for request in requests]
            self._fill(name, parts, (rows, *tails[name]), pad_values.get(name, 0))
        run = self._run(number, shapes)
        self._queue(number, run)
        self._device.synchronize()
        return {
            tensor.name: DeviceArray(
                self._buffers[tensor.name].pointer,
                (rows, *run.shapes[tensor.name][1:]),
                tensor.dtype,
                self._device.dlpack_device,
                self._buffers[tensor.name],
            )
            for tensor in self.layout.outputs
        }

    def split(
        self,
        batcher: Batcher,
        results: Mapping[str, DeviceArray],
        rows: Sequence[int],
        sizes: Sequence[Mapping[str, int]],
    ) -> list[dict[str, Part]]:
        """Give each request its part of the results, without the padding, still on the device.

        The parts hold until the next run.
        """
        masks = {
            axis: on_host(self._device, results[mask])
            for axis, mask in batcher.masks.items()
            if mask in results
        }
        used = dict.fromkeys(results, 0)
        parts: list[dict[str, Part]] = []
        start = 0
        for count, size in zip(rows, sizes, strict=True):
            own = {axis: size[axis] for axis in batcher.buckets if axis in size}
            own |= {axis: _valid(mask[start : start + count]) for axis, mask in masks.items()}
            part: dict[str, Part] = {}
            for name, array in results.items():
                mine = array.rows(start, count)
                wanted = resized(mine.shape[1:], batcher.outputs[name][1:], own)
                part[name] = self._cut(name, mine, wanted, used)
            parts.append(part)
            start += count
        self._device.synchronize()
        return parts

    def _cut(self, name: str, array: DeviceArray, tail: Shape, used: dict[str, int]) -> Part:
        """Leave the padding out; where that is of another axis than the second, on the host."""
        if tail == array.shape[1:]:
            return array
        if tail[1:] != array.shape[2:]:
            whole = on_host(self._device, array)
            return np.ascontiguousarray(whole[(slice(None), *map(slice, tail))])
        if name not in self._cuts:
            buffer = self._buffers[name]
            self._cuts[name] = zeros(self._device, buffer.shape, buffer.dtype)
        pointer = self._cuts[name].pointer + used[name]
        cut = replace(array, pointer=pointer, shape=(len(array), *tail), owner=self._cuts[name])
        self._device.copy_rows(
            Pitched(pointer, cut.row_bytes),
            Pitched(array.pointer, array.row_bytes),
            cut.row_bytes,
            len(array),
        )
        used[name] += cut.nbytes
        return cut

    def _fill(self, name: str, parts: Sequence[Part], shape: Shape, pad_value: float) -> None:
        """Put an input into its buffer; what is on the device and needs no filling stays there."""
        buffer = self._buffers[name]
        on_device = all(isinstance(part, DeviceArray) for part in parts)
        if on_device and pad_value == 0 and all(_can_be_copied(part, shape) for part in parts):
            self._copy_in(buffer, parts, shape)
            return
        size = prod(shape) * buffer.dtype.itemsize
        whole = self._pinned[name][:size].view(buffer.dtype).reshape(shape)
        if any(part.shape[1:] != shape[1:] for part in parts):
            whole.fill(pad_value)
        start = 0
        for part in parts:
            array = on_host(self._device, part) if isinstance(part, DeviceArray) else part
            whole[(slice(start, start + len(part)), *map(slice, part.shape[1:]))] = array
            start += len(part)
        self._device.copy(buffer.pointer, whole.ctypes.data, size)

    def _copy_in(self, buffer: DeviceArray, parts: Sequence[Part], shape: Shape) -> None:
        itemsize = buffer.dtype.itemsize
        pitch = prod(shape[1:]) * itemsize
        if any(part.shape[1:] != shape[1:] for part in parts):
            self._device.clear(buffer.pointer, shape[0] * pitch)
        target = buffer.pointer
        for part in parts:
            assert isinstance(part, DeviceArray)  # noqa: S101 - the caller looked
            width = part.row_bytes
            self._device.copy_rows(
                Pitched(target, pitch), Pitched(part.pointer, width), width, len(part)
            )
            target += len(part) * pitch

    def _run(self, number: int, shapes: Mapping[str, Shape]) -> _Run:
        """Return the work for these shapes, the oldest forgotten where there are too many."""
        key = (number, tuple(shapes.values()))
        if key in self._runs:
            self._runs.move_to_end(key)
            return self._runs[key]
        context = self._contexts[number]
        self._resize(number, shapes)
        given = {tensor.name: context.shape(tensor.name) for tensor in self.layout.outputs}
        self._runs[key] = run = _Run({**shapes, **given})
        while len(self._runs) > max(self._graphs, 1):
            self._runs.popitem(last=False)
        return run

    def _resize(self, number: int, shapes: Mapping[str, Shape]) -> None:
        for tensor in self.layout.inputs:
            self._contexts[number].resize(tensor.name, shapes[tensor.name])

    def _queue(self, number: int, run: _Run) -> None:
        """Queue a run: plainly at first, then by its recording."""
        if run.queue is not None:
            run.queue()
            return
        context = self._contexts[number]
        self._resize(number, run.shapes)
        context.enqueue()
        if run.is_plain or not self._graphs:
            return
        # The run above made whatever is made at the first time; only then can one be recorded.
        self._device.synchronize()
        try:
            run.queue = self._device.recorded(context.enqueue)
        except CaptureError:
            run.is_plain = True


def _can_be_copied(part: Part, shape: Shape) -> bool:
    """Whether a part differs from the batch along its second axis at most: rows with a pitch."""
    return part.shape[2:] == shape[2:]


def axes_of(shape: Shape, names: Sequence[str | int]) -> Axes:
    """Return a tensor's axes: the engine's sizes, and names for those that it leaves open."""
    pairs = zip(shape[1:], names, strict=True)
    return ("batch", *(str(name) if size < 0 else size for size, name in pairs))


def _valid(mask: NDArray[Any]) -> int:
    return int(mask.sum(axis=1).max())
