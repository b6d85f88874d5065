"""Questions from templates: fixed words with gaps for phrases, so that the words can be listed."""

from bisect import bisect
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np

from sensorium_training.world.phrase import pick
from sensorium_training.world.question import Question

Templates = Mapping[str, Sequence[str]]
"""By name, the ways to say it; "{a}" and "{b}" are gaps."""


@dataclass(frozen=True, slots=True)
class Phrase:
    """Words whose noun, the one at index `noun`, refers to the `matched` of `about`."""

    words: list[str]
    noun: int
    matched: list[int]
    about: str


def say(
    rng: np.random.Generator,
    kind: str,
    answer: str,
    ways: Sequence[str],
    *phrases: Phrase,
) -> Question:
    """Return one of the templates `ways` with its gaps, "{a}" then "{b}", filled by `phrases`."""
    question = Question(kind, answer=answer)
    for word in pick(rng, ways).split():
        if word in GAPS:
            phrase = phrases[GAPS.index(word)]
            question.mention(phrase.words, phrase.noun, phrase.matched, phrase.about)
        else:
            question.words.append(word)
    return question


GAPS = ("{a}", "{b}")


def words_of(texts: Iterable[str]) -> set[str]:
    """Return the words of `texts` but for gaps."""
    return {word for text in texts for word in text.split()} - set(GAPS)


def fixed_words(templates: Templates) -> set[str]:
    """Return all words that `templates` hold themselves."""
    return {word for ways in templates.values() for word in words_of(ways)}


def yes_no(truth: bool) -> str:  # noqa: FBT001 - reads as the answer that it is
    """Return the answer to a yes or no question."""
    return "yes" if truth else "no"


def toss(rng: np.random.Generator, share: float = 0.5) -> bool:
    """Return true in `share` of the calls."""
    return bool(rng.random() < share)


def choose(rng: np.random.Generator, options: Sequence[int]) -> int:
    """Return one of `options`."""
    return options[int(rng.integers(len(options)))]


def weighted(rng: np.random.Generator, weights: Mapping[str, float]) -> str:
    """Return a key of `weights`, each as often as its weight says."""
    bounds = list(accumulate(weights.values()))
    return list(weights)[min(bisect(bounds, rng.random() * bounds[-1]), len(bounds) - 1)]
