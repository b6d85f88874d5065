"""Greedy text generation for many rows at once, each at its own position.

A row joins with its memory, gains one token per `step`, and leaves at the end token or at the
limit; others join and leave meanwhile. Running rows lie in slots 0…n-1 of preallocated arrays, and
the last one moves into a gap, so that every step works on plain slices.
"""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Key = TypeVar("Key", bound=Hashable)

CrossGraph = Callable[[Array], Array]
"""Memory [n,memory,width] to its keys and values, [n,kv_layers,heads,memory,head_dim]."""

StepGraph = Callable[[Array, Array, Array, Array, Array], tuple[Array, Array]]
"""Token, position, past, cross and memory mask to logits and present; see the contract."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Where generation starts and stops, and how many rows run at once."""

    bos_id: int
    eos_id: int
    max_new_tokens: int
    slots: int


@dataclass(frozen=True, slots=True)
class Generated(Generic[Key]):
    """What became of one row: its tokens without the end token, and their joint probability.

    `score` is NaN when the graph put out numbers that are none.
    """

    key: Key
    tokens: list[int]
    score: float


@dataclass(slots=True)
class _Row(Generic[Key]):
    key: Key
    tokens: list[int] = field(default_factory=list)
    log_probability: float = 0.0


class GreedyDecoder(Generic[Key]):
    """The rows that are being generated now, and the arrays that hold their state."""

    def __init__(
        self,
        cross: CrossGraph,
        step: StepGraph,
        cache_shape: tuple[int, int, int],
        limits: Limits,
    ) -> None:
        layers, heads, width = cache_shape
        slots = limits.slots
        self._cross_graph = cross
        self._step_graph = step
        self._limits = limits
        self._rows: list[_Row[Key]] = []
        self._token = np.zeros(slots, np.int64)
        self._position = np.zeros(slots, np.int64)
        self._past = np.zeros((slots, layers, heads, limits.max_new_tokens, width), np.float32)
        self._cross = np.zeros((slots, layers, heads, 0, width), np.float32)
        self._mask = np.zeros((slots, 0), np.int64)
        self._memory = np.zeros(slots, np.int64)

    @property
    def running(self) -> int:
        """How many rows are being generated."""
        return len(self._rows)

    @property
    def keys(self) -> list[Key]:
        """The keys of the running rows."""
        return [row.key for row in self._rows]

    @property
    def slots(self) -> int:
        """How many rows can run at once."""
        return self._limits.slots

    @property
    def free(self) -> int:
        """How many rows may join."""
        return self._limits.slots - len(self._rows)

    def join(self, keys: Sequence[Key], memories: Sequence[Array], masks: Sequence[Array]) -> None:
        """Let rows join; their memories [memory,width] may differ in length.

        When this raises, nobody joined.
        """
        lengths = [len(memory) for memory in memories]
        longest = max(lengths)
        batch = np.zeros((len(keys), longest, memories[0].shape[1]), np.float32)
        for row, memory in zip(batch, memories, strict=True):
            row[: len(memory)] = memory
        cross = self._cross_graph(batch)
        self._reserve_memory(longest)
        for index, (key, mask) in enumerate(zip(keys, masks, strict=True)):
            slot = len(self._rows)
            self._rows.append(_Row(key))
            self._token[slot] = self._limits.bos_id
            self._position[slot] = 0
            self._memory[slot] = lengths[index]
            self._cross[slot, :, :, :longest] = cross[index]
            self._mask[slot] = 0
            self._mask[slot, : len(mask)] = mask

    def step(self) -> list[Generated[Key]]:
        """Give every running row its next token; return those that ended, which leave."""
        rows = len(self._rows)
        position = self._position[:rows]
        memory = int(self._memory[:rows].max())
        logits, present = self._step_graph(
            self._token[:rows],
            position,
            self._past[:rows, :, :, : int(position.max())],
            self._cross[:rows, :, :, :memory],
            self._mask[:rows, :memory],
        )
        chosen = logits.argmax(axis=-1)
        best = logits[np.arange(rows), chosen]
        log_probability = -np.log(np.exp(logits - best[:, None], dtype=np.float64).sum(axis=-1))
        self._past[np.arange(rows), :, :, position] = present
        self._token[:rows] = chosen
        self._position[:rows] += 1
        for row, token, gain in zip(
            self._rows, chosen.tolist(), log_probability.tolist(), strict=True
        ):
            row.log_probability += gain
            row.tokens.append(token)
        return self._collect()

    def _collect(self) -> list[Generated[Key]]:
        """Take out the rows that ended at their last token."""
        ended = []
        for slot in reversed(range(len(self._rows))):
            row = self._rows[slot]
            at_end = row.tokens[-1] == self._limits.eos_id
            broken = not np.isfinite(row.log_probability)
            if at_end or broken or len(row.tokens) == self._limits.max_new_tokens:
                tokens = row.tokens[:-1] if at_end else row.tokens
                ended.append(Generated(row.key, tokens, float(np.exp(row.log_probability))))
                if broken:
                    # Masked or not, NaN times zero is NaN for whoever has this slot next.
                    self._past[slot] = 0
                    self._cross[slot] = 0
                self._leave(slot)
        return ended

    def discard(self, keys: set[Key]) -> None:
        """Take out rows before they ended."""
        for slot in reversed(range(len(self._rows))):
            if self._rows[slot].key in keys:
                self._leave(slot)

    def _leave(self, slot: int) -> None:
        last = len(self._rows) - 1
        if slot != last:
            self._rows[slot] = self._rows[last]
            for array in (self._token, self._position, self._memory, self._mask, self._cross):
                array[slot] = array[last]
            used = int(self._position[last])
            self._past[slot, :, :, :used] = self._past[last, :, :, :used]
        self._rows.pop()

    def _reserve_memory(self, length: int) -> None:
        """Make room for memories of that length; the room stays."""
        missing = length - self._mask.shape[1]
        if missing > 0:
            self._mask = np.pad(self._mask, ((0, 0), (0, missing)))
            self._cross = np.pad(self._cross, ((0, 0), (0, 0), (0, 0), (0, missing), (0, 0)))
