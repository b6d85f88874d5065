"""Labels and events for the reference."""

from dataclasses import replace

import numpy as np
import pytest

from sensorium_export.recipe import Recipe
from sensorium_export.reference_labels import (
    Event,
    action_scores,
    merged,
    ranked,
    sound_events,
    tag_scores,
    track_events,
)


def test_best_comes_first_and_equals_keep_their_order() -> None:
    """All labels are put out, the likeliest first."""
    assert ranked([0.1, 0.9, 0.1], ["beep", "bell", "bark"]) == [
        *(("bell", 0.9), ("beep", 0.1), ("bark", 0.1))
    ]


def test_tag_is_the_loudest_valid_frame() -> None:
    """Masked frames count for nothing; without a valid one all scores are 0."""
    activity = np.array([[0.25, 0.5], [0.75, 0.125]], np.float32)

    assert tag_scores(activity, np.array([1, 0])) == [0.25, 0.5]
    assert tag_scores(activity, np.array([1, 1])) == [0.75, 0.5]
    assert tag_scores(activity, np.array([0, 0])) == [0.0, 0.0]


def test_action_is_the_best_track() -> None:
    """A track counts as much as it is one."""
    actions = np.array([[0.5, 0.5], [1.0, 0.0]], np.float32)
    spans = np.array([[1.0, 0, 1], [0.25, 0, 1]], np.float32)

    assert action_scores(actions, spans) == [0.5, 0.5]


@pytest.fixture
def heard(recipe: Recipe) -> "np.ndarray[tuple[int, int], np.dtype[np.float32]]":
    """Ten frames: the second sound from the third to the seventh, a flash of the first."""
    activity = np.zeros((10, len(recipe.audio_labels)), np.float32)
    activity[3:8, 1] = 0.75
    activity[5, 0] = 1.0
    return activity


def test_sound_lasts_from_half_a_hop_before_to_half_a_hop_after(
    recipe: Recipe, heard: "np.ndarray[tuple[int, int], np.dtype[np.float32]]"
) -> None:
    """Start, end and score come from the run of frames; a flash is no event."""
    (event,) = sound_events(heard, np.ones(10, np.int64), recipe)

    assert event.label == recipe.audio_labels[1]
    assert (event.start_s, event.end_s) == pytest.approx((2.5 * 0.032, 7.5 * 0.032))
    assert event.score == 0.75


def test_masked_frames_are_silent(
    recipe: Recipe, heard: "np.ndarray[tuple[int, int], np.dtype[np.float32]]"
) -> None:
    """What padding holds is not heard."""
    assert sound_events(heard, np.zeros(10, np.int64), recipe) == []


def test_track_is_an_event_when_it_is_there_and_does_something(recipe: Recipe) -> None:
    """Idle and unlikely tracks are none; a span that is backwards is turned."""
    actions = np.zeros((3, len(recipe.video_labels)), np.float32)
    actions[[0, 1, 2], [1, 0, 2]] = 1
    spans = np.array([[0.75, 0.5, 0.25], [0.75, 0, 1], [0.25, 0, 1]], np.float32)

    assert track_events(actions, spans, 4.0, recipe) == [
        Event(1.0, 2.0, recipe.video_labels[1], 0.75)
    ]
    bolder = replace(recipe, events=replace(recipe.events, track_threshold=0.1))
    assert len(track_events(actions, spans, 4.0, bolder)) == 2


def test_events_of_one_label_never_overlap() -> None:
    """What overlaps becomes one, with the larger score; what only touches stays."""
    found = [
        *(Event(0.5, 1.5, "bell", 0.6), Event(0.0, 1.0, "bell", 0.7)),
        *(Event(1.5, 2.0, "bell", 0.9), Event(0.25, 0.75, "drum", 0.8)),
    ]

    assert merged(found) == [
        *(Event(0.0, 1.5, "bell", 0.7), Event(0.25, 0.75, "drum", 0.8)),
        Event(1.5, 2.0, "bell", 0.9),
    ]
