"""Text generation for many rows at once, each at its own position and in its own way.

A row joins with its memory, gains one token per `step`, and leaves at an end token or at the
limit; others join and leave meanwhile. A row that is searched with beams takes a slot for each;
greedy, drawn and searched rows share a run of the graph.
"""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from sensorium_server.beam_search import BeamSearch
from sensorium_server.decoding_slots import Slots, StepGraph
from sensorium_server.generation import Generation
from sensorium_server.search import Moves, Search, SingleSearch, Step

Array = NDArray[Any]
Key = TypeVar("Key", bound=Hashable)

CrossGraph = Callable[[Array], Any]
"""Memory [n,memory,width] to its keys and values, [n,kv_layers,heads,memory,head_dim]."""

MakeSlots = Callable[[int, int, tuple[int, int, int]], Slots]
"""From the number of slots, the most tokens, and [kv_layers,heads,head_dim]."""


@dataclass(frozen=True, slots=True)
class Generated(Generic[Key]):
    """What became of one row: its tokens without prompt and end token, and their probability.

    `score` is the joint probability, the end token's included, that the graph alone gives them,
    however they were chosen. It is NaN when the graph put out numbers that are none.
    """

    key: Key
    tokens: list[int]
    score: float


@dataclass(slots=True)
class _Row(Generic[Key]):
    """A text with its slots, one for each beam; the likeliest beam's comes first."""

    key: Key
    prompt: tuple[int, ...]
    search: Search
    slots: list[int]
    fed: int = 1


class Decoder(Generic[Key]):
    """The rows that are being generated now."""

    def __init__(
        self,
        cross: CrossGraph,
        step: StepGraph,
        cache_shape: tuple[int, int, int],
        generation: Generation,
        slots: int,
        *,
        make_slots: MakeSlots = Slots,
    ) -> None:
        self.generation = generation
        """How rows are generated that say nothing else."""
        self._cross_graph = cross
        self._step_graph = step
        # The last token is never fed: there is nothing after it.
        length = len(generation.prompt_ids) + generation.max_new_tokens - 1
        self._slots = make_slots(slots, length, cache_shape)
        self._owners: list[_Row[Key]] = []

    @property
    def longest_past(self) -> int:
        """How many tokens a row has behind it at most: the last one is never fed."""
        generation = self.generation
        return len(generation.prompt_ids) + generation.max_new_tokens - 2

    @property
    def running(self) -> int:
        """How many slots are in use."""
        return len(self._owners)

    @property
    def keys(self) -> list[Key]:
        """The keys of the running rows."""
        return [row.key for row in self._rows()]

    @property
    def slots(self) -> int:
        """How many rows can run at once; each beam counts."""
        return self._slots.count

    @property
    def free(self) -> int:
        """How many more rows may join; each beam counts."""
        return self._slots.count - len(self._owners)

    def join(
        self,
        keys: Sequence[Key],
        memories: Sequence[Array],
        masks: Sequence[Array],
        generations: Sequence[Generation | None] | None = None,
    ) -> None:
        """Let rows join; their memories [memory,width] may differ in length.

        When this raises, nobody joined.
        """
        lengths = [len(memory) for memory in memories]
        longest = max(lengths)
        batch = np.zeros((len(keys), longest, memories[0].shape[1]), np.float32)
        for row, memory in zip(batch, memories, strict=True):
            row[: len(memory)] = memory
        cross = self._cross_graph(batch)
        self._slots.reserve_memory(longest)
        for index, (key, mask) in enumerate(zip(keys, masks, strict=True)):
            generation = (generations[index] if generations else None) or self.generation
            taken = [
                self._slots.take(generation.prompt_ids[0], cross[index], mask)
                for _ in range(generation.num_beams)
            ]
            joined = _Row(key, generation.prompt_ids, _search(generation), taken)
            self._owners.extend([joined] * len(taken))

    def step(self) -> list[Generated[Key]]:
        """Give every running row its next token; return those that ended, which leave."""
        step = Step(self._slots.run(self._step_graph))
        self._slots.token[: len(self._owners)] = step.likeliest
        sick = set(np.flatnonzero(~np.isfinite(step.log_probability)).tolist())
        # Judged before anybody leaves, for then rows move to other slots.
        rows = [(row, sick.isdisjoint(row.slots)) for row in self._rows()]
        for row, healthy in rows:
            if healthy:
                self._advance(row, step)
        ended = []
        for row, healthy in reversed(rows):
            if not healthy:
                ended.append(Generated(row.key, row.search.tokens, float("nan")))
                self._slots.clear(row.slots)
                self._leave(row)
            elif row.search.done:
                score = float(np.exp(row.search.log_probability))
                ended.append(Generated(row.key, row.search.tokens, score))
                self._leave(row)
        return ended

    def discard(self, keys: set[Key]) -> None:
        """Take out rows before they ended."""
        for row in reversed(self._rows()):
            if row.key in keys:
                self._leave(row)

    def _rows(self) -> list[_Row[Key]]:
        """Return every row once, by its first slot."""
        return [row for slot, row in enumerate(self._owners) if row.slots[0] == slot]

    def _advance(self, row: _Row[Key], step: Step) -> None:
        if row.fed < len(row.prompt):
            self._slots.token[row.slots] = row.prompt[row.fed]
            row.fed += 1
            return
        moves = row.search.advance(step, row.slots)
        if moves is not None:
            self._move(row, moves)

    def _move(self, row: _Row[Key], moves: Moves) -> None:
        """Let the beams go on: a beam's first heir stays in its slot, others take those left."""
        left = [slot for beam, slot in enumerate(row.slots) if beam not in moves.parents]
        heirs = []
        for beam in moves.parents:
            slot = row.slots[beam]
            if slot in heirs:
                slot = left.pop()
                self._slots.follow(row.slots[beam], slot)
            heirs.append(slot)
        row.slots = heirs
        self._slots.token[heirs] = moves.tokens

    def _leave(self, row: _Row[Key]) -> None:
        # From the last one on: what moves into the gap is then never the row's own.
        for slot in sorted(row.slots, reverse=True):
            last = self._slots.leave(slot)
            moved = self._owners.pop()
            if slot != last:
                self._owners[slot] = moved
                moved.slots[moved.slots.index(last)] = slot


def _search(generation: Generation) -> Search:
    return BeamSearch(generation) if generation.num_beams > 1 else SingleSearch(generation)
