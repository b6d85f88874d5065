"""The arrays that hold the state of what is being generated: a slot for each row of a step.

Rows in use lie in slots 0…n-1, and the last one moves into a gap, so that every step works on
plain slices.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

StepGraph = Callable[[Array, Array, Any, Any, Array], tuple[Array, Any]]
"""Token, position, past, cross and memory mask to logits and present; see the contract.

Past, cross and present may be on a device: see `device_slots.py`.
"""


class Slots:
    """Preallocated arrays of `count` rows that may grow to `length` tokens."""

    def __init__(self, count: int, length: int, cache_shape: tuple[int, int, int]) -> None:
        layers, heads, width = cache_shape
        self.count = count
        self.used = 0
        self.token = np.zeros(count, np.int64)
        self.position = np.zeros(count, np.int64)
        self._past = np.zeros((count, layers, heads, length, width), np.float32)
        self._cross = np.zeros((count, layers, heads, 0, width), np.float32)
        self._mask = np.zeros((count, 0), np.int64)
        self._memory = np.zeros(count, np.int64)

    def take(self, token: int, cross: Array, mask: Array) -> int:
        """Fill the next slot; `cross` may be longer than the mask, which is the memory's length."""
        slot = self._begin(token, mask)
        self._cross[slot, :, :, : cross.shape[2]] = cross
        return slot

    def _begin(self, token: int, mask: Array) -> int:
        slot = self.used
        self.used += 1
        self.token[slot] = token
        self.position[slot] = 0
        self._memory[slot] = len(mask)
        self._mask[slot] = 0
        self._mask[slot, : len(mask)] = mask
        return slot

    def run(self, graph: StepGraph) -> Array:
        """Run a step over all rows in use; return their logits."""
        rows = self.used
        position = self.position[:rows]
        memory = int(self._memory[:rows].max())
        logits, present = graph(
            self.token[:rows],
            position,
            self._past[:rows, :, :, : int(position.max())],
            self._cross[:rows, :, :, :memory],
            self._mask[:rows, :memory],
        )
        self._past[np.arange(rows), :, :, position] = present
        self.position[:rows] += 1
        return logits

    def follow(self, source: int, slot: int) -> None:
        """Let a slot go on from what another one of the same memory has said."""
        used = int(self.position[source])
        self._past[slot, :, :, :used] = self._past[source, :, :, :used]

    def clear(self, slots: Sequence[int]) -> None:
        """Forget numbers that are none: masked or not, NaN times zero is NaN for the next row."""
        self._past[slots] = 0
        self._cross[slots] = 0

    def leave(self, slot: int) -> int:
        """Free a slot; return the number of the last one, whose row now lies there."""
        self.used -= 1
        last = self.used
        if slot != last:
            for array in (self.token, self.position, self._memory, self._mask, self._cross):
                array[slot] = array[last]
            used = int(self.position[last])
            self._past[slot, :, :, :used] = self._past[last, :, :, :used]
        return last

    def reserve_memory(self, length: int) -> None:
        """Make room for memories of that length; the room stays."""
        known = self._mask.shape[1]
        if length > known:
            # Not padded: what no row has used yet takes no memory.
            used, (count, layers, heads, _, width) = self.used, self._cross.shape
            mask = np.zeros((count, length), np.int64)
            cross = np.zeros((count, layers, heads, length, width), np.float32)
            mask[:used, :known] = self._mask[:used]
            cross[:used, :, :, :known] = self._cross[:used]
            self._mask, self._cross = mask, cross
