"""The state of what is being generated, with keys and values on the device for good.

The step graph gets all of the past at its full length, of which each row's own part is what lies
before its position, as in `decoding_slots.py`. So shapes depend on the number of rows alone, the
cache never grows or moves, and a step writes one token of each row into its place.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from sensorium_server.decoding_slots import Slots, StepGraph
from sensorium_server.device import Device, DeviceArray, Part, Pitched, zeros

_FLOAT = np.dtype(np.float32)


class DeviceSlots(Slots):
    """`Slots` whose past and cross arrays are on a device."""

    def __init__(
        self, count: int, length: int, cache_shape: tuple[int, int, int], device: Device
    ) -> None:
        layers, heads, width = cache_shape
        # What numbers each row is told by stays on the host, where it is needed.
        super().__init__(count, 0, (layers, heads, width))
        self._device = device
        self._planes, self._item = layers * heads, width * _FLOAT.itemsize
        # What the last token adds is never read: no token comes after it.
        self._length = length - 1
        self._kept = zeros(device, (count, layers, heads, self._length, width), _FLOAT)
        self._seen = zeros(device, (count, layers, heads, 0, width), _FLOAT)

    def take(self, token: int, cross: Any, mask: NDArray[Any]) -> int:  # noqa: ANN401 - on the device
        """Fill the next slot; `cross` is a `DeviceArray` [kv_layers,heads,memory,head_dim]."""
        slot = self._begin(token, mask)
        length = cross.shape[2] * self._item
        self._device.copy_rows(
            Pitched(self._seen[slot].pointer, self._seen.shape[3] * self._item),
            Pitched(cross.pointer, length),
            length,
            self._planes,
        )
        return slot

    def run(self, graph: StepGraph) -> NDArray[Any]:
        """Run a step over all rows in use; return their logits."""
        rows = self.used
        position = self.position[:rows]
        logits, present = graph(
            self.token[:rows],
            position,
            self._kept.rows(0, rows),
            self._seen.rows(0, rows),
            self._mask[:rows],
        )
        for row, place in enumerate(position.tolist()):
            if place == self._length:
                continue
            self._device.copy_rows(
                Pitched(self._kept[row].pointer + place * self._item, self._length * self._item),
                Pitched(present[row].pointer, self._item),
                self._item,
                self._planes,
            )
        self.position[:rows] += 1
        return logits

    def follow(self, source: int, slot: int) -> None:
        """Let a slot go on from what another one of the same memory has said."""
        self._copy_past(source, slot)

    def clear(self, slots: Sequence[int]) -> None:
        """Forget numbers that are none: masked or not, NaN times zero is NaN for the next row."""
        for array in (self._kept, self._seen):
            for slot in slots:
                self._device.clear(array[slot].pointer, array.row_bytes)

    def leave(self, slot: int) -> int:
        """Free a slot; return the number of the last one, whose row now lies there."""
        self.used -= 1
        last = self.used
        if slot != last:
            for array in (self.token, self.position, self._memory, self._mask):
                array[slot] = array[last]
            seen = self._seen
            self._device.copy(seen[slot].pointer, seen[last].pointer, seen.row_bytes)
            self._copy_past(last, slot)
        return last

    def reserve_memory(self, length: int) -> None:
        """Make room for memories of that length; the room stays."""
        known = self._mask.shape[1]
        if length <= known:
            return
        mask = np.zeros((self.count, length), np.int64)
        mask[: self.used, :known] = self._mask[: self.used]
        old = self._seen
        shape = (*old.shape[:3], length, old.shape[4])
        self._mask, self._seen = mask, zeros(self._device, shape, _FLOAT)
        if self.used and known:
            self._device.copy_rows(
                Pitched(self._seen.pointer, length * self._item),
                Pitched(old.pointer, known * self._item),
                known * self._item,
                self.used * self._planes,
            )
            # The copy must be done before the old memory goes.
            self._device.synchronize()

    def _copy_past(self, source: int, slot: int) -> None:
        pitch = self._length * self._item
        used = min(int(self.position[source]), self._length)
        self._device.copy_rows(
            Pitched(self._kept[slot].pointer, pitch),
            Pitched(self._kept[source].pointer, pitch),
            used * self._item,
            self._planes,
        )


class Bound(Protocol):
    """A graph that reads and writes memory of a device where it is."""

    def run_bound(
        self,
        inputs: Mapping[str, Part],
        on_host: Sequence[str],
        on_device: Mapping[str, tuple[int, ...]],
    ) -> tuple[list[NDArray[Any]], dict[str, DeviceArray]]:
        """Compute outputs, some on the host, others on the device, valid until the next run.

        Args:
            inputs: Arrays of the host, or `DeviceArray`s, by name.
            on_host: Outputs that are wanted on the host.
            on_device: The shapes of those, of FP32, that stay on the device.
        """


class BoundGraph:
    """A graph of ONNX Runtime that reads and writes memory of a device where it is."""

    def __init__(self, session: Any, device: Device, kind: str) -> None:  # noqa: ANN401 - untyped
        """Bind a session.

        Args:
            session: ONNX Runtime's own.
            device: Where the memory is.
            kind: What ONNX Runtime calls the device: `cuda`, or `cpu` for the host's own memory.
        """
        self._session, self._device, self._kind = session, device, kind
        self._buffers: dict[str, DeviceArray] = {}

    def run_bound(
        self,
        inputs: Mapping[str, Part],
        on_host: Sequence[str],
        on_device: Mapping[str, tuple[int, ...]],
    ) -> tuple[list[NDArray[Any]], dict[str, DeviceArray]]:
        """Compute outputs; see `Bound`."""
        binding = self._session.io_binding()
        index = self._device.dlpack_device[1]
        for name, array in inputs.items():
            if isinstance(array, DeviceArray):
                where = (self._kind, index, array.dtype.type, list(array.shape), array.pointer)
                binding.bind_input(name, *where)
            else:
                binding.bind_cpu_input(name, np.ascontiguousarray(array))
        for name in on_host:
            binding.bind_output(name, "cpu")
        results = {name: self._buffer(name, shape) for name, shape in on_device.items()}
        for name, array in results.items():
            where = (self._kind, index, array.dtype.type, list(array.shape), array.pointer)
            binding.bind_output(name, *where)
        self._device.synchronize()
        self._session.run_with_iobinding(binding)
        binding.synchronize_outputs()
        found = dict(zip((*on_host, *on_device), binding.get_outputs(), strict=True))
        return [found[name].numpy() for name in on_host], results

    def _buffer(self, name: str, shape: tuple[int, ...]) -> DeviceArray:
        """Return memory for an output, the same as before where that is large enough."""
        known = self._buffers.get(name)
        wanted = int(np.prod(shape))
        if known is None or known.shape[0] < wanted:
            self._device.synchronize()
            known = self._buffers[name] = zeros(self._device, (max(wanted, 1),), _FLOAT)
        return replace(known, shape=shape)
