import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from sensorium.errors import ConfigurationError, ServerError
from sensorium_server.settings import load
from sensorium_server.stages import Stage, StageConfig, events
from sensorium_server.stages.events import Event, Rules, majority, merged, runs, sound_events

SOUNDS = ("beep", "bell")
ACTIONS = ("stands still", "moves left", "jumps")
HOP_S = 0.032
RULES = Rules(SOUNDS, ACTIONS)
FRAMES, TRACKS = 40, 3
Draw = Any
"""An array that Hypothesis drew."""


def made(**parameters: object) -> Stage:
    """Return the stage with the labels above and other parameters."""
    labels = {"audio_labels": ",".join(SOUNDS), "video_labels": ",".join(ACTIONS)}
    texts = {key: str(value) for key, value in parameters.items()}
    return events.stage(StageConfig("event_postprocess", Path(), labels | texts), load())


def heard(*spans: tuple[str, int, int], level: float = 1.0) -> Draw:
    """Return an activity [frames, sounds] of sounds from a frame to before another."""
    activity = np.zeros((FRAMES, len(SOUNDS)), np.float32)
    for label, first, end in spans:
        activity[first:end, SOUNDS.index(label)] = level
    return activity


def inputs(*rows: tuple[Draw, list[tuple[str, float, float, float]], float]) -> dict[str, Any]:
    """Return a request; a row is an activity or None, tracks (as events), and a duration."""
    count = len(rows)
    request: dict[str, Any] = {
        "sound_activity": np.zeros((count, FRAMES, len(SOUNDS)), np.float32),
        "log_mel_mask": np.zeros((count, FRAMES), np.int64),
        "track_actions": np.zeros((count, TRACKS, len(ACTIONS)), np.float32),
        "track_spans": np.zeros((count, TRACKS, 3), np.float32),
        "duration_s": np.array([[duration] for _, _, duration in rows], np.float32),
    }
    for row, (activity, tracks, _) in enumerate(rows):
        if activity is not None:
            request["sound_activity"][row] = activity
            request["log_mel_mask"][row] = 1
        for track, (label, start, end, presence) in enumerate(tracks):
            request["track_actions"][row, track, ACTIONS.index(label)] = 1
            request["track_spans"][row, track] = (presence, start, end)
    return request


def found(outputs: Any, row: int = 0) -> list[tuple[str, float, float, float]]:  # noqa: ANN401 - tensors by name
    """Return a row's events, without the empty labels at its end, rounded to milliseconds."""
    columns = (outputs[name][row].tolist() for name in ("labels", "start_s", "end_s", "scores"))
    return [
        (label.decode(), round(start, 3), round(end, 3), round(score, 3))
        for label, start, end, score in zip(*columns, strict=True)
        if label
    ]


def test_a_run_of_frames_is_a_sound() -> None:
    """A sound lasts from half a hop before its first frame to half a hop after its last."""
    outputs = made()(inputs((heard(("bell", 10, 20), level=0.75), [], 0)))

    assert found(outputs) == [("bell", round(9.5 * HOP_S, 3), round(19.5 * HOP_S, 3), 0.75)]


def test_sounds_at_the_ends_are_heard() -> None:
    """The first and the last frame belong to events like any other; no event starts before 0."""
    outputs = made()(inputs((heard(("beep", 0, 3), ("beep", 37, 40)), [], 0)))

    assert found(outputs) == [
        ("beep", 0.0, round(2.5 * HOP_S, 3), 1.0),
        ("beep", round(36.5 * HOP_S, 3), round(39.5 * HOP_S, 3), 1.0),
    ]


def test_the_score_is_the_mean_of_the_run() -> None:
    """The score is the mean activity between the ends, what the filter filled in included."""
    activity = heard(("beep", 4, 12))
    activity[8, 0] = 0.2

    assert found(made()(inputs((activity, [], 0))))[0][3] == 0.9


def test_clicks_and_gaps_of_two_frames_are_filtered() -> None:
    """Of five frames the median drops what is shorter than three and fills what is."""
    outputs = made()(inputs((heard(("beep", 5, 7), ("bell", 10, 20), ("bell", 22, 30)), [], 0)))

    assert [(label, end) for label, _, end, _ in found(outputs)] == [
        ("bell", round(29.5 * HOP_S, 3))
    ]


def test_parameters_change_the_rules() -> None:
    """Without a filter the shortest run is what `min_frames` says; hop and threshold count too."""
    request = inputs((heard(("beep", 5, 7), ("bell", 10, 11), level=0.3), [], 0))
    stage = made(median_frames=1, sound_threshold=0.3, hop_s=0.01)

    assert found(stage(request)) == [("beep", 0.045, 0.065, 0.3)]
    assert found(made(median_frames=1)(request)) == []


def test_tracks_are_actions() -> None:
    """A present track whose action is not idle is an event; its span is a part of the clip."""
    tracks = [("jumps", 0.25, 0.5, 0.875), ("stands still", 0, 1, 1.0), ("moves left", 0, 1, 0.25)]

    assert found(made()(inputs((None, tracks, 8.0)))) == [("jumps", 2.0, 4.0, 0.875)]
    assert ("moves left", 0.0, 8.0, 0.25) in found(
        made(track_threshold=0.25)(inputs((None, tracks, 8.0)))
    )


def test_a_span_is_sorted_and_lies_in_the_clip() -> None:
    """An end before its start is taken the other way round; a span without length is no event."""
    tracks = [("jumps", 0.5, -0.5, 1.0), ("moves left", 0.5, 0.5, 1.0)]

    assert found(made()(inputs((None, tracks, 4.0)))) == [("jumps", 0.0, 2.0, 1.0)]


def test_sounds_and_actions_are_one_list_by_start() -> None:
    """A clip with sound gives the union of both, sorted by start; short rows end empty."""
    outputs = made()(
        inputs(
            (None, [], 4.0),
            (heard(("bell", 20, 30)), [("jumps", 0.125, 0.5, 1.0), ("jumps", 0.75, 1, 1.0)], 4.0),
        )
    )

    assert [label for label, *_ in found(outputs, 1)] == ["jumps", "bell", "jumps"]
    assert outputs["labels"].tolist()[0] == [b"", b"", b""]
    assert outputs["scores"].tolist()[0] == outputs["end_s"].tolist()[0] == [0, 0, 0]
    for name in ("scores", "start_s", "end_s"):
        assert outputs[name].dtype == np.float32
    assert outputs["labels"].dtype == np.object_


def test_overlapping_spansof_a_label_are_one() -> None:
    """Two that overlap become their union with the larger score; two that touch stay two."""
    tracks = [("jumps", 0, 0.5, 0.75), ("jumps", 0.25, 0.75, 1.0), ("jumps", 0.75, 1, 0.5)]

    assert found(made()(inputs((None, tracks, 4.0)))) == [
        ("jumps", 0.0, 3.0, 1.0),
        ("jumps", 3.0, 4.0, 0.5),
    ]


def test_no_event_is_an_empty_list() -> None:
    """A silent recording of nothing gives no event, not an error."""
    outputs = made()(inputs((heard(), [], 0)))

    assert {name: array.shape for name, array in outputs.items()} == dict.fromkeys(
        ("labels", "scores", "start_s", "end_s"), (1, 0)
    )


@pytest.mark.parametrize("noise", [1.0, np.nan])
@pytest.mark.parametrize(
    ("tensors", "row"),
    [
        (("sound_activity",), (None, [("jumps", 0.25, 0.5, 1.0)], 4.0)),
        (("track_actions", "track_spans"), (heard(("bell", 5, 9)), [], 0.0)),
    ],
    ids=["no audio", "no video"],
)
def test_a_missing_modality_adds_nothing(tensors: tuple[str, ...], row: Any, noise: float) -> None:  # noqa: ANN401 - see `inputs`
    """What the tensors of a missing modality hold changes no bit of the answer."""
    request = inputs(row)
    wanted = made()(request)
    for name in tensors:
        request[name][...] = noise
    got = made()(request)

    assert len(found(wanted)) == 1
    for name in ("scores", "start_s", "end_s"):
        assert got[name].tobytes() == wanted[name].tobytes()
    assert got["labels"].tolist() == wanted["labels"].tolist()


@pytest.mark.parametrize("tensor", ["sound_activity", "track_actions", "track_spans", "duration_s"])
def test_numbers_that_are_none_are_our_fault(tensor: str) -> None:
    """NaN of a modality that is there is an error of the server that names the tensor."""
    request = inputs((heard(("bell", 5, 9)), [("jumps", 0.25, 0.5, 1.0)], 4.0))
    request[tensor].ravel()[0] = np.nan

    with pytest.raises(ServerError, match=f"put out NaN or infinity in {tensor}"):
        made()(request)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"median_frames": 4}, "median_frames = 4 is not an odd number"),
        ({"median_frames": -1}, "median_frames = -1 is not an odd number"),
        ({"min_frames": 0}, "min_frames = 0 and hop_s = 0.032 must be positive"),
        ({"hop_s": "nan"}, "hop_s = nan must be positive"),
        ({"sound_threshold": "half"}, 'sound_threshold = "half" is not a list of numbers'),
        ({"audio_labels": "beep,beep"}, "audio_labels = .* has an empty label or one twice"),
    ],
)
def test_bad_parameters_stop_the_start(parameters: dict[str, object], message: str) -> None:
    """A parameter that makes no sense is named with its value."""
    with pytest.raises(ConfigurationError, match=message):
        made(**parameters)


@pytest.mark.parametrize("key", ["audio_labels", "video_labels"])
def test_labels_must_fit_the_encoder(key: str) -> None:
    """More or fewer labels than the encoder scores are an error, not a wrong name."""
    request = inputs((heard(), [], 4.0))

    with pytest.raises(ConfigurationError, match="names 1 labels"):
        made(**{key: "alone"})(request)


@given(
    arrays.arrays(np.float32, (12, 2), elements=st.floats(0, 1, width=32)),
    st.sampled_from([1, 3, 5, 7]),
)
def test_majority_is_the_median(activity: Draw, frames: int) -> None:
    """A vote of zeros and ones says where the median of the values reaches the threshold."""
    padded = np.pad(activity, ((frames // 2, frames // 2), (0, 0)))
    median = [np.median(padded[at : at + frames], axis=0) >= 0.5 for at in range(len(activity))]

    assert majority(activity >= 0.5, frames).tolist() == np.array(median).tolist()


@given(arrays.arrays(np.bool_, (3, 9)))
def test_runs_are_all_of_it(active: Draw) -> None:
    """Runs are not empty, never touch in a row, and cover what is active and nothing else."""
    covered = np.zeros_like(active)
    last = (-1, 0)
    for row, first, end in zip(*(part.tolist() for part in runs(active)), strict=True):
        assert first < end
        assert (row, first) > last
        covered[row, first:end] = True
        last = (row, end)

    assert np.array_equal(covered, active)


def _spans(label: str) -> st.SearchStrategy[list[tuple[str, int, int]]]:
    """Draw sounds of a kind with at least four frames each and between two."""
    lengths = st.lists(st.tuples(st.integers(4, 8), st.integers(4, 8)), max_size=2)
    return lengths.map(
        lambda pairs: [
            (label, sum(map(sum, pairs[:index])) + gap, sum(map(sum, pairs[: index + 1])))
            for index, (gap, _) in enumerate(pairs)
        ]
    )


@given(_spans("beep"), _spans("bell"), st.floats(0, 0.49))
def test_perfect_activity_gives_the_truth(
    beeps: list[tuple[str, int, int]], bells: list[tuple[str, int, int]], shift: float
) -> None:
    """Events between frames, seen in each frame that they cover, are found within one hop."""
    truth = sorted(
        ((label, (first - shift) * HOP_S, (end - 1 + shift) * HOP_S))
        for label, first, end in beeps + bells
    )
    got = sorted(sound_events(heard(*beeps, *bells), RULES))

    assert [event.label for event in got] == [label for label, *_ in truth]
    for event, (_, start_s, end_s) in zip(got, truth, strict=True):
        assert event.score == 1
        assert abs(event.start_s - start_s) <= HOP_S
        assert abs(event.end_s - end_s) <= HOP_S


EVENTS = st.lists(
    st.tuples(st.sampled_from("ab"), st.integers(0, 20), st.integers(0, 6), st.floats(0, 1)).map(
        lambda drawn: Event(drawn[0], drawn[1], drawn[1] + drawn[2], drawn[3])
    )
)


@given(EVENTS, st.randoms())
def test_merged_spansnever_overlap(drawn: list[Event], random: Any) -> None:  # noqa: ANN401 - a random.Random
    """Within a label no two overlap, all time is kept, and the order of the input is nothing."""
    got = merged(drawn)
    shuffled = random.sample(drawn, len(drawn))

    assert merged(shuffled) == got
    assert [event.start_s for event in got] == sorted(event.start_s for event in got)
    for label in "ab":
        own = [event for event in got if event.label == label]
        for one, other in itertools.pairwise(own):
            assert one.end_s <= other.start_s
        assert _covered(own) == _covered([event for event in drawn if event.label == label])
    if drawn:
        assert max(event.score for event in got) == max(event.score for event in drawn)


def _covered(spans: list[Event]) -> set[int]:
    return {at for event in spans for at in range(int(event.start_s), int(event.end_s))}


def _floats(*shape: int) -> st.SearchStrategy[Draw]:
    return arrays.arrays(np.float32, shape, elements=st.floats(0, 1, width=32))


def _requests(rows: int) -> st.SearchStrategy[dict[str, Any]]:
    masks: Callable[..., Any] = arrays.arrays
    return st.fixed_dictionaries(
        {
            "sound_activity": _floats(rows, 12, len(SOUNDS)),
            "log_mel_mask": masks(np.int64, (rows, 12), elements=st.integers(0, 1)),
            "track_actions": _floats(rows, TRACKS, len(ACTIONS)),
            "track_spans": _floats(rows, TRACKS, 3),
            "duration_s": _floats(rows, 1),
        }
    )


@given(_requests(3), st.permutations(range(3)))
def test_rows_are_independent(request_: dict[str, Any], order: list[int]) -> None:
    """Rows in another order give the same events in that order, and none overlap in a label."""
    straight = made()(request_)
    turned = made()({name: array[order] for name, array in request_.items()})

    for name, array in straight.items():
        assert turned[name].tolist() == array[order].tolist()
    for row in range(3):
        last: dict[str, float] = {}
        columns = (straight[name][row].tolist() for name in ("labels", "start_s", "end_s"))
        for label, start_s, end_s in zip(*columns, strict=True):
            if label:
                assert last.get(label, 0.0) <= start_s <= end_s
                last[label] = end_s
