"""Runs a compiled engine on batches of requests, whose parts are on the host or on the device.

Every tensor has one buffer for the largest profile, at the same address for life. So the work of a
run, once its shapes have come twice, is recorded as a CUDA graph and queued by a single call. Batch
sizes are rounded up to buckets, or there would be too many graphs.

    parts on the host ─ join and pad ─▶ pinned ─┐
    parts on the device ────────────────────────┴▶ input buffers ─ engine ─▶ output buffers
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sensorium_server.batching import Axes, Batcher, resized
from sensorium_server.device import (
    Device,
    DeviceArray,
    Part,
    Pitched,
    on_host,
    zeros,
)
from sensorium_server.engine_layout import Shape, batch_buckets, bucket_for
from sensorium_server.engine_runs import GRAPHS, Engine, EngineRuns


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
        self._runs = EngineRuns(engine, device, graphs)
        self._batches = batch_buckets(self.layout.largest_batch)
        sizes = self._runs.largest_sizes()
        self._buffers = {
            tensor.name: zeros(device, (sizes[tensor.name],), tensor.dtype)
            for tensor in self.layout.tensors
        }
        self._cuts: dict[str, DeviceArray] = {}
        self._pinned = {
            tensor.name: device.pinned(sizes[tensor.name] * tensor.dtype.itemsize)
            for tensor in self.layout.inputs
        }
        self._pointers = {name: buffer.pointer for name, buffer in self._buffers.items()}

    @property
    def recorded(self) -> int:
        """How many CUDA graphs there are."""
        return self._runs.recorded

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
        found = self._runs.queue(number, shapes, self._pointers)
        self._device.synchronize()
        return {
            tensor.name: DeviceArray(
                self._buffers[tensor.name].pointer,
                (rows, *found[tensor.name][1:]),
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


def _can_be_copied(part: Part, shape: Shape) -> bool:
    """Whether a part differs from the batch along its second axis at most: rows with a pitch."""
    return part.shape[2:] == shape[2:]


def axes_of(shape: Shape, names: Sequence[str | int]) -> Axes:
    """Return a tensor's axes: the engine's sizes, and names for those that it leaves open."""
    pairs = zip(shape[1:], names, strict=True)
    return ("batch", *(str(name) if size < 0 else size for size, name in pairs))


def _valid(mask: NDArray[Any]) -> int:
    return int(mask.sum(axis=1).max())
