"""How one text finds its next token: the likeliest, or one drawn by its probability."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from sensorium_server.generation import Generation
from sensorium_server.token_rules import TokenRules
from sensorium_server.token_sampling import TokenSampler

Array = NDArray[Any]


class Step:
    """What the graph said in one step: a row for each slot.

    `log_probability` is that of the likeliest token, NaN where the graph put out numbers that are
    none.
    """

    def __init__(self, logits: Array) -> None:
        rows = np.arange(len(logits))
        self.logits = logits
        self.likeliest = logits.argmax(axis=-1)
        self._highest = logits[rows, self.likeliest]
        self.log_probability: Array = -np.log(
            np.exp(logits - self._highest[:, None], dtype=np.float64).sum(axis=-1)
        )

    def log_probabilities(self, slots: Sequence[int]) -> Array:
        """Return the logarithms of all tokens' probabilities in some slots."""
        below = self.logits[slots] - self._highest[slots, None]
        logarithms: Array = below + self.log_probability[slots, None].astype(np.float32)
        return logarithms

    def log_probability_of(self, slot: int, token: int) -> float:
        """Return the logarithm of one token's probability."""
        return float(self.log_probability[slot] + self.logits[slot, token] - self._highest[slot])


@dataclass(frozen=True, slots=True)
class Moves:
    """How a text goes on: a token for each of its beams, and the number of the beam it follows."""

    tokens: Sequence[int]
    parents: Sequence[int]


class Search(Protocol):
    """One text's way to its end."""

    @property
    def tokens(self) -> list[int]:
        """The text, without the prompt and the end token; final when `done`."""

    @property
    def log_probability(self) -> float:
        """Of the text and its end token, as the graph alone has it."""

    @property
    def done(self) -> bool:
        """Whether the text has ended."""

    def advance(self, step: Step, slots: Sequence[int]) -> Moves | None:
        """Take what follows from the step in these slots; None where it is the likeliest token."""


class SingleSearch:
    """The likeliest token each time, or a drawn one."""

    def __init__(self, generation: Generation) -> None:
        self.tokens: list[int] = []
        self.log_probability = 0.0
        self.done = False
        self._generation = generation
        self._rules = TokenRules(generation)
        self._sampler = TokenSampler(generation) if generation.do_sample else None
        self._plain = not (generation.do_sample or self._rules.active)

    def advance(self, step: Step, slots: Sequence[int]) -> Moves | None:
        """Take one more token."""
        (slot,) = slots
        moves = None
        if self._plain:
            token, gain = int(step.likeliest[slot]), float(step.log_probability[slot])
        else:
            scores = self._rules.applied(step.logits[slot], self.tokens)
            token = int(scores.argmax()) if self._sampler is None else self._sampler.drawn(scores)
            gain = step.log_probability_of(slot, token)
            moves = Moves([token], [0])
        self.log_probability += gain
        at_end = token in self._generation.eos_ids
        if not at_end:
            self.tokens.append(token)
        self.done = at_end or len(self.tokens) == self._generation.max_new_tokens
        return moves
