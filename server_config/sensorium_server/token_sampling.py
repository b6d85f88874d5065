"""A token drawn by its probability, the same for the same seed whoever shares the batch."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sensorium_server.generation import Generation

Array = NDArray[Any]


class TokenSampler:
    """Draws the tokens of one text, one after the other, from a stream of its own."""

    def __init__(self, generation: Generation) -> None:
        self._generation = generation
        self._random = np.random.Generator(np.random.Philox(generation.seed))

    def drawn(self, scores: Array) -> int:
        """Draw one of the tokens whose scores [vocabulary] these are."""
        kept = warped(scores, self._generation)
        if not np.isfinite(kept.max()):
            return int(kept.argmax())
        cumulative = np.exp(kept - kept.max(), dtype=np.float64).cumsum()
        drawn = np.searchsorted(cumulative, self._random.random() * cumulative[-1], side="right")
        return int(drawn)


def warped(scores: Array, generation: Generation) -> Array:
    """Return the scores at the temperature, minus infinity outside `top_k` and `top_p`."""
    warm = scores / np.float32(generation.temperature)
    if 0 < generation.top_k < len(warm):
        least = np.partition(warm, -generation.top_k)[-generation.top_k]
        warm = np.where(warm < least, -np.inf, warm)
    if generation.top_p < 1:
        order = warm.argsort(kind="stable")
        probability = np.exp(warm[order] - warm[order[-1]])
        cumulative = (probability / probability.sum()).cumsum()
        tail = order[:-1][cumulative[:-1] <= 1 - generation.top_p]
        warm[tail] = -np.inf
    return warm
