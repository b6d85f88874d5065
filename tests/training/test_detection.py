import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sensorium_training.detection import (
    Counts,
    Span,
    average_precision,
    detection,
    event_counts,
    iou,
    matched_ious,
    most_pairs,
    tagging,
)


@pytest.mark.parametrize(
    ("truth", "found", "wanted"),
    [
        ([Span("a", 1.0, 2.0)], [Span("a", 1.2, 2.2)], Counts(1, 0, 0)),
        ([Span("a", 1.0, 2.0)], [Span("a", 1.21, 2.0)], Counts(0, 1, 1)),
        ([Span("a", 1.0, 2.0)], [Span("a", 0.8, 1.8)], Counts(1, 0, 0)),
        ([Span("a", 1.0, 2.0)], [Span("a", 1.0, 2.25)], Counts(0, 1, 1)),
        ([Span("a", 1.0, 3.0)], [Span("a", 1.0, 3.4)], Counts(1, 0, 0)),
        ([Span("a", 1.0, 2.0)], [Span("b", 1.0, 2.0)], Counts(0, 1, 1)),
        ([Span("a", 1.0, 2.0)], [], Counts(0, 0, 1)),
        ([], [Span("a", 1.0, 2.0)], Counts(0, 1, 0)),
        ([Span("a", 1.0, 2.0)], [Span("a", 1.0, 2.0), Span("a", 1.1, 2.1)], Counts(1, 1, 0)),
        ([Span("a", 1.0, 2.0), Span("a", 1.1, 2.1)], [Span("a", 1.0, 2.0)], Counts(1, 0, 1)),
    ],
    ids=[
        "at the collar", "late", "early", "offset late", "offset of a long event", "wrong label",
        "missed", "false alarm", "found twice", "one for two",
    ],
)  # fmt: skip
def test_one_clip_by_hand(truth: list[Span], found: list[Span], wanted: Counts) -> None:
    """Onsets within 0.2 s, offsets within 0.2 s or a fifth of the event's length, each once."""
    assert event_counts(truth, found, collar_s=0.2) == wanted


def test_pairs_are_as_many_as_can_be() -> None:
    """The first event leaves its nearest to the one that has no other."""
    truth = [Span("a", 1.0, 2.0), Span("a", 1.3, 2.3)]
    found = [Span("a", 1.15, 2.15), Span("a", 0.9, 1.9)]

    assert event_counts(truth, found, collar_s=0.2) == Counts(2, 0, 0)


def test_figures_of_a_set_by_hand() -> None:
    """Counts are added up over clips before they become shares."""
    clips = [
        ([Span("a", 0, 1), Span("b", 2, 3)], [Span("a", 0, 1)]),
        ([Span("a", 0, 2)], [Span("a", 0, 1), Span("b", 0, 1), Span("a", 1, 2)]),
    ]
    got = detection(clips, collar_s=0.2)

    assert got.precision == 1 / 4
    assert got.recall == 1 / 3
    assert got.f1 == pytest.approx(2 / 7)
    assert got.iou == (1 + 0.5) / 2


def test_nothing_to_find_and_nothing_found_is_right() -> None:
    """A silent clip that is left alone is no mistake, and there is no IoU of nothing."""
    got = detection([([], [])], collar_s=0.2)

    assert (got.f1, got.precision, got.recall, got.iou) == (1, 1, 1, None)


@pytest.mark.parametrize(
    ("other", "wanted"),
    [((1, 3), 1.0), ((2, 4), 1 / 3), ((3, 4), 0.0), ((5, 6), 0.0), ((1.5, 2), 0.25)],
)
def test_iou_by_hand(other: tuple[float, float], wanted: float) -> None:
    """Shared time over covered time; apart or touching is 0."""
    assert iou(Span("a", 1, 3), Span("a", *other)) == pytest.approx(wanted)


def test_iou_without_length() -> None:
    """Two events without length share nothing."""
    assert iou(Span("a", 1, 1), Span("a", 1, 1)) == 0


def test_best_pairs_are_made_first() -> None:
    """Events of one label are paired by IoU, others not at all, and each once."""
    truth = [Span("a", 0, 2), Span("a", 2, 4), Span("b", 0, 1)]
    found = [Span("a", 1, 4), Span("c", 0, 1), Span("a", 6, 7)]

    assert matched_ious(truth, found) == [pytest.approx(2 / 3), 0.0]


def test_tagging_by_hand() -> None:
    """Two clips of three labels: one wrong decision of six."""
    truth = np.array([[True, False, True], [False, False, True]])
    scores = np.array([[0.9, 0.2, 0.4], [0.1, 0.3, 0.8]])
    got = tagging(truth, scores)

    assert got.accuracy == pytest.approx(5 / 6)
    assert got.exact == 0.5
    assert got.f1 == pytest.approx(4 / 5)
    assert got.mean_average_precision == 1.0


def test_average_precision_by_hand() -> None:
    """True clips at ranks 1 and 3 of 4: (1/1 + 2/3) / 2; equal scores share a rank."""
    truth = np.array([True, False, True, False])

    assert average_precision(truth, np.array([0.9, 0.8, 0.7, 0.1])) == pytest.approx(5 / 6)
    assert average_precision(truth, np.full(4, 0.5)) == 0.5


SPANS = st.lists(
    st.tuples(st.sampled_from("ab"), st.integers(0, 40), st.integers(1, 20)).map(
        lambda drawn: Span(drawn[0], drawn[1] / 10, (drawn[1] + drawn[2]) / 10)
    ),
    max_size=5,
)


@given(SPANS)
def test_truth_itself_is_perfect(truth: list[Span]) -> None:
    """What is there, in any order, is found without a mistake."""
    got = detection([(truth, truth[::-1])], collar_s=0.2)

    assert got.f1 == 1
    assert got.iou in {1, None}


@given(SPANS, SPANS)
def test_counts_add_up(truth: list[Span], found: list[Span]) -> None:
    """Hits and misses are what is there, hits and false alarms what was found; roles swap."""
    counts = event_counts(truth, found, collar_s=0.2, offset_share=0)
    swapped = event_counts(found, truth, collar_s=0.2, offset_share=0)

    assert counts.hits + counts.misses == len(truth)
    assert counts.hits + counts.false_alarms == len(found)
    assert (swapped.hits, swapped.misses) == (counts.hits, counts.false_alarms)
    assert 0 <= counts.f1 <= 1


@given(st.lists(st.lists(st.integers(0, 3), max_size=4, unique=True), max_size=4))
def test_no_choice_gives_more_pairs(candidates: list[list[int]]) -> None:
    """No assignment, of all that there are, has more pairs."""
    best = max(
        sum(one is not None for one in choice)
        for choice in itertools.product(*([None, *own] for own in candidates))
        if len(set(choice) - {None}) == sum(one is not None for one in choice)
    )

    assert most_pairs(candidates) == best
