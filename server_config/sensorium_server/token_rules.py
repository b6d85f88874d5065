"""Which tokens may come next: those that are never, not yet or no more allowed get minus infinity.

The same as transformers' logits processors of these names, in their order.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sensorium_server.generation import Generation

Array = NDArray[Any]


class TokenRules:
    """The rules of one text."""

    def __init__(self, generation: Generation) -> None:
        self._generation = generation
        self.active = bool(
            generation.suppress_ids
            or generation.begin_suppress_ids
            or generation.min_new_tokens
            or generation.no_repeat_ngram_size
            or generation.repetition_penalty != 1
        )

    def applied(self, scores: Array, tokens: Sequence[int]) -> Array:
        """Return the scores [vocabulary] of the token that follows `tokens`, as the rules leave it.

        Repetitions are counted over the prompt too.
        """
        if not self.active:
            return scores
        rules = self._generation
        scores = scores.copy()
        said = (*rules.prompt_ids, *tokens)
        if rules.repetition_penalty != 1:
            repeated = _within(scores, sorted(set(said)))
            old = scores[repeated]
            penalty = np.float32(rules.repetition_penalty)
            scores[repeated] = np.where(old < 0, old * penalty, old / penalty)
        banned = [*rules.suppress_ids]
        if rules.no_repeat_ngram_size:
            banned += _completions(said, rules.no_repeat_ngram_size)
        if len(tokens) < rules.min_new_tokens:
            banned += rules.eos_ids
        if not tokens:
            banned += rules.begin_suppress_ids
        scores[_within(scores, banned)] = -np.inf
        return scores


def _within(scores: Array, tokens: Sequence[int]) -> Array:
    """Return the ids that the vocabulary has; a checkpoint's config may name others."""
    ids = np.array(tokens, np.int64)
    return ids[(ids >= 0) & (ids < len(scores))]


def _completions(said: Sequence[int], size: int) -> list[int]:
    """Return the tokens that would end an n-gram which has been said before."""
    if len(said) < size:
        return []
    prefix = said[len(said) + 1 - size :]
    starts = range(len(said) - size + 1)
    return [said[at + size - 1] for at in starts if said[at : at + size - 1] == prefix]
