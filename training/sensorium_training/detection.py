"""How well events and labels are found: event-based F1, temporal IoU and tagging accuracy.

Event-based F1 is that of Mesaros, Heittola and Virtanen, "Metrics for Polyphonic Sound Event
Detection" (2016), section 3.2: an event is found when one of its label has its onset within a
collar of the true one, and its offset within the collar or a share of the true event's length,
whichever is greater. Each event counts once; counts are added up over all clips (micro-average).
The pairs are as many as can be (maximum matching), not the first that come.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

AUDIO_COLLAR_S = 0.2
VIDEO_COLLAR_S = 0.5
OFFSET_SHARE = 0.2
_ROUNDING_S = 1e-6
"""So that an event that is off by the collar itself is found."""


class Span(NamedTuple):
    """What begins and ends when."""

    label: str
    start_s: float
    end_s: float


@dataclass(frozen=True, slots=True)
class Counts:
    """Events that were found, that are not there, and that were missed."""

    hits: int = 0
    false_alarms: int = 0
    misses: int = 0

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(
            self.hits + other.hits,
            self.false_alarms + other.false_alarms,
            self.misses + other.misses,
        )

    @property
    def precision(self) -> float:
        """Share of what was found that is there; 1 when nothing was found."""
        return _share(self.hits, self.hits + self.false_alarms)

    @property
    def recall(self) -> float:
        """Share of what is there that was found; 1 when nothing is there."""
        return _share(self.hits, self.hits + self.misses)

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall; 1 when nothing is there and nothing was found."""
        return _share(2 * self.hits, 2 * self.hits + self.false_alarms + self.misses)


def _share(part: float, whole: float) -> float:
    return part / whole if whole else 1.0


def event_counts(
    truth: Sequence[Span],
    found: Sequence[Span],
    collar_s: float,
    offset_share: float = OFFSET_SHARE,
) -> Counts:
    """Count one clip's events.

    Args:
        truth: The events that are there.
        found: The events that a model says are there.
        collar_s: How far an onset may be off, seconds.
        offset_share: How far an offset may be off as a part of the true event's length, where that
            is more than the collar.
    """

    def fits(true: Span, other: Span) -> bool:
        late_s = max(collar_s, offset_share * (true.end_s - true.start_s))
        return (
            true.label == other.label
            and abs(other.start_s - true.start_s) <= collar_s + _ROUNDING_S
            and abs(other.end_s - true.end_s) <= late_s + _ROUNDING_S
        )

    candidates = [[at for at, other in enumerate(found) if fits(true, other)] for true in truth]
    hits = most_pairs(candidates)
    return Counts(hits, len(found) - hits, len(truth) - hits)


def most_pairs(candidates: Sequence[Sequence[int]]) -> int:
    """Return how many can have one of their candidates when each candidate goes to one at most.

    Kuhn's algorithm: whoever finds all candidates taken asks their owners to take another one.
    """
    owner: dict[int, int] = {}

    def placed(one: int, asked: set[int]) -> bool:
        for candidate in candidates[one]:
            if candidate not in asked:
                asked.add(candidate)
                if candidate not in owner or placed(owner[candidate], asked):
                    owner[candidate] = one
                    return True
        return False

    return sum(placed(one, set()) for one in range(len(candidates)))


def iou(one: Span, other: Span) -> float:
    """Return how much of the time that two spans cover they share; labels do not matter."""
    both_s = min(one.end_s, other.end_s) - max(one.start_s, other.start_s)
    either_s = max(one.end_s, other.end_s) - min(one.start_s, other.start_s)
    return max(both_s, 0.0) / either_s if either_s > 0 else 0.0


def matched_ious(truth: Sequence[Span], found: Sequence[Span]) -> list[float]:
    """Return the temporal IoU of each pair of events of one label.

    Pairs are made by the greatest IoU first, each event in one at most; so a label that is there
    twice and found once gives one pair. A pair of one label that shares no time counts as 0. What
    has no partner is left to F1.
    """
    pairs = sorted(
        (
            (iou(true, other), -row, -column)
            for row, true in enumerate(truth)
            for column, other in enumerate(found)
            if true.label == other.label
        ),
        reverse=True,
    )
    rows: set[int] = set()
    columns: set[int] = set()
    chosen = []
    for value, row, column in pairs:
        if row not in rows and column not in columns:
            rows.add(row)
            columns.add(column)
            chosen.append(value)
    return chosen


@dataclass(frozen=True, slots=True)
class Detection:
    """The figures of a set of clips; `iou` is None when no label was found where it is."""

    f1: float
    precision: float
    recall: float
    iou: float | None


def detection(clips: Iterable[tuple[Sequence[Span], Sequence[Span]]], collar_s: float) -> Detection:
    """Judge a set of clips, each its true events and those found.

    Args:
        clips: Pairs of truth and found.
        collar_s: How far an onset may be off, seconds; see `event_counts`.
    """
    counts, ious = Counts(), list[float]()
    for truth, found in clips:
        counts += event_counts(truth, found, collar_s)
        ious += matched_ious(truth, found)
    mean = sum(ious) / len(ious) if ious else None
    return Detection(counts.f1, counts.precision, counts.recall, mean)


@dataclass(frozen=True, slots=True)
class Tagging:
    """How well labels are given to clips.

    `accuracy` is the share of right decisions (clip by label), `exact` the share of clips whose set
    of labels is right, `mean_average_precision` the mean over the labels that are there.
    """

    accuracy: float
    exact: float
    f1: float
    mean_average_precision: float


def tagging(truth: NDArray[np.bool_], scores: NDArray[Any], threshold: float = 0.5) -> Tagging:
    """Judge a set of clips by the scores of all labels.

    Args:
        truth: bool, [clips, labels].
        scores: float, [clips, labels].
        threshold: Least score of a label that is given.
    """
    given = scores >= threshold
    right = given == truth
    counts = Counts(
        int((given & truth).sum()), int((given & ~truth).sum()), int((~given & truth).sum())
    )
    there = np.flatnonzero(truth.any(axis=0))
    precisions = [average_precision(truth[:, label], scores[:, label]) for label in there]
    return Tagging(
        accuracy=float(right.mean()),
        exact=float(right.all(axis=1).mean()),
        f1=counts.f1,
        mean_average_precision=float(np.mean(precisions)) if precisions else 1.0,
    )


def average_precision(truth: NDArray[np.bool_], scores: NDArray[Any]) -> float:
    """Return the mean, over the true clips, of the precision at each one's score.

    Clips of equal score are taken together.
    """
    above = scores[truth][:, None] <= scores
    return float(((above & truth).sum(axis=1) / above.sum(axis=1)).mean())
