"""Beam search over one text, equal to that of transformers 5: same candidates, same stopping.

Of each step's best continuations those that end compete, by their length-penalised score, for
`num_beams` places; the best of the others go on. Scores are 32-bit numbers, as over there.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sensorium_server.generation import Generation
from sensorium_server.search import Moves, Step
from sensorium_server.token_rules import TokenRules

Array = NDArray[Any]

_NEVER = np.float32(-1e9)
"""The score of what must not be chosen."""


@dataclass(frozen=True, slots=True)
class _Beam:
    tokens: list[int]
    log_probability: float


@dataclass(frozen=True, slots=True)
class _Ended:
    """A place among the texts that ended; one without a text waits for its first."""

    score: np.float32
    text: _Beam | None = None


class BeamSearch:
    """The running beams of one text, best first, and the best of those that ended."""

    def __init__(self, generation: Generation) -> None:
        beams = generation.num_beams
        self.done = False
        self._generation = generation
        self._rules = TokenRules(generation)
        self._beams = [_Beam([], 0.0)] * beams
        self._scores = np.full(beams, _NEVER)
        # All beams are alike at first: only one may go on.
        self._scores[0] = 0
        self._ended = [_Ended(_NEVER)] * beams
        self._length = 0

    @property
    def tokens(self) -> list[int]:
        """The best text that ended."""
        best = self._ended[0].text
        if best is None:
            return []
        at_end = best.tokens[-1] in self._generation.eos_ids
        return best.tokens[:-1] if at_end else best.tokens

    @property
    def log_probability(self) -> float:
        """Of that text and its end token, without penalties."""
        best = self._ended[0].text
        return -np.inf if best is None else best.log_probability

    def advance(self, step: Step, slots: Sequence[int]) -> Moves:
        """Take one more token in every beam."""
        scores, parents, tokens = self._candidates(step, slots)
        self._length += 1
        ends = np.isin(tokens, self._generation.eos_ids)
        ends |= self._length == self._generation.max_new_tokens
        texts = [
            _Beam(
                [*self._beams[parent].tokens, token],
                self._beams[parent].log_probability + step.log_probability_of(slots[parent], token),
            )
            for parent, token in zip(parents.tolist(), tokens.tolist(), strict=True)
        ]
        running = _best(scores + ends * _NEVER, len(slots))
        self._beams = [texts[index] for index in running]
        self._scores = (scores + ends * _NEVER)[running]
        self._keep(scores, ends, texts)
        self.done = bool(ends.all()) or not self._can_improve()
        return Moves(tokens[running].tolist(), parents[running].tolist())

    def _candidates(self, step: Step, slots: Sequence[int]) -> tuple[Array, Array, Array]:
        """Return the scores, beams and tokens of the best continuations, best first."""
        logarithms = step.log_probabilities(slots)
        allowed = np.stack(
            [
                self._rules.applied(row, beam.tokens)
                for row, beam in zip(logarithms, self._beams, strict=True)
            ]
        )
        total = (allowed + self._scores[:, None]).ravel()
        # Enough that as many as there are beams go on even when all others end.
        count = max(2, 1 + len(self._generation.eos_ids)) * len(slots)
        best = _best(total, min(count, len(total)))
        return total[best], *np.divmod(best, logarithms.shape[1])

    def _keep(self, scores: Array, ends: Array, texts: Sequence[_Beam]) -> None:
        """Let what ended just now, and is among the best, take places of what ended before."""
        penalty = np.float32(self._length**self._generation.length_penalty)
        beams = len(self._ended)
        places = [
            *self._ended,
            *(
                _Ended(score / penalty, text)
                for score, end, text in zip(scores[:beams], ends, texts, strict=False)
                if end
            ),
        ]
        best = _best(np.array([place.score for place in places], np.float32), beams)
        self._ended = [places[index] for index in best]

    def _can_improve(self) -> bool:
        """Tell whether a running beam may still get a better score than the worst that ended."""
        generation = self._generation
        all_ended = all(place.text is not None for place in self._ended)
        if all_ended and generation.early_stopping == "true":
            return False
        hopeful = generation.early_stopping == "never" and generation.length_penalty > 0
        length = generation.max_new_tokens if hopeful else self._length
        reachable = self._scores[0] / np.float32(length**generation.length_penalty)
        return bool(reachable > self._ended[-1].score)


def _best(scores: Array, count: int) -> Array:
    """Return where the highest scores are, highest first, and of equal ones the earlier first."""
    if count < len(scores):
        least = np.partition(scores, -count)[-count]
        found = np.flatnonzero(scores >= least)
    else:
        found = np.arange(len(scores))
    order: Array = found[np.argsort(-scores[found], kind="stable")]
    return order[:count]
