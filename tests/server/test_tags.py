from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from sensorium.errors import ConfigurationError, ServerError
from sensorium_server.settings import load
from sensorium_server.stages import Stage, StageConfig, tags

LABELS = ("beep", "bell", "siren")


def made(labels: str = ",".join(LABELS)) -> Stage:
    """Return the stage with labels."""
    return tags.stage(StageConfig("tag_postprocess", Path(), {"labels": labels}), load())


def inputs(activity: Any, mask: Any = None) -> dict[str, Any]:  # noqa: ANN401 - whatever makes an array
    """Return a request; without a mask every frame is shown."""
    made_of = np.array(activity, np.float32)
    shown = np.ones(made_of.shape[:2], np.int64) if mask is None else np.array(mask, np.int64)
    return {"sound_activity": made_of, "log_mel_mask": shown}


def test_the_greatest_activity_counts() -> None:
    """A sound's score is its activity in its best frame, and the best sound comes first."""
    outputs = made()(inputs([[[0.1, 0.2, 0.3], [0.9, 0.0, 0.4]]]))

    assert outputs["labels"].tolist() == [[b"beep", b"siren", b"bell"]]
    assert outputs["labels"].dtype == np.object_
    assert outputs["scores"].tolist() == [[np.float32(0.9), np.float32(0.4), np.float32(0.2)]]
    assert outputs["scores"].dtype == np.float32


def test_ties_keep_the_labels_order() -> None:
    """Equal scores come in the order in which the labels are written."""
    outputs = made()(inputs([[[0.5, 0.7, 0.5]]]))

    assert outputs["labels"].tolist() == [[b"bell", b"beep", b"siren"]]


@pytest.mark.parametrize("noise", [0.99, np.nan, np.inf])
def test_masked_frames_count_for_nothing(noise: float) -> None:
    """What a masked frame holds changes no score by one bit."""
    quiet = made()(inputs([[[0.1, 0.2, 0.3], [0, 0, 0]]], [[1, 0]]))
    noisy = made()(inputs([[[0.1, 0.2, 0.3], [noise] * 3]], [[1, 0]]))

    assert noisy["scores"].tobytes() == quiet["scores"].tobytes()
    assert noisy["labels"].tolist() == quiet["labels"].tolist()


def test_a_missing_recording_scores_zero() -> None:
    """Without a valid frame every sound scores 0, in the labels' order."""
    outputs = made()(inputs([[[0.9, 0.9, 0.9]]], [[0]]))

    assert outputs["labels"].tolist() == [[label.encode() for label in LABELS]]
    assert outputs["scores"].tolist() == [[0, 0, 0]]


@pytest.mark.parametrize("number", [np.nan, np.inf])
def test_numbers_that_are_none_are_our_fault(number: float) -> None:
    """NaN in a valid frame is an error of the server that names the tensor."""
    with pytest.raises(ServerError, match="put out NaN or infinity in sound_activity"):
        made()(inputs([[[0.1, number, 0.3]]]))


def test_labels_must_fit_the_encoder() -> None:
    """More or fewer labels than scores are told apart from a good answer."""
    with pytest.raises(ConfigurationError, match=r"names 2 labels \(beep, …\), but .* scores 3"):
        made("beep,bell")(inputs([[[0.1, 0.2, 0.3]]]))


@pytest.mark.parametrize("labels", ["", "beep,,bell", "beep,bell,beep"])
def test_labels_must_be_labels(labels: str) -> None:
    """An empty label or one that is there twice stops the start."""
    with pytest.raises(ConfigurationError, match=r"labels = .* has an empty label or one twice"):
        made(labels)


def test_labels_are_required() -> None:
    """A config without labels is named with what it lacks."""
    with pytest.raises(ConfigurationError, match=r'tag_postprocess.* lacks the parameter "labels"'):
        tags.stage(StageConfig("tag_postprocess", Path()), load())


@given(
    arrays.arrays(np.float32, (4, 6, 3), elements=st.floats(0, 1, width=32)),
    arrays.arrays(np.int64, (4, 6), elements=st.integers(0, 1)),
    st.permutations(range(4)),
)
def test_rows_are_independent(activity: Any, mask: Any, order: list[int]) -> None:  # noqa: ANN401 - drawn arrays
    """Rows in another order give the same answers in that order."""
    straight, turned = made()(inputs(activity, mask)), made()(inputs(activity[order], mask[order]))

    for name, array in straight.items():
        assert turned[name].tolist() == array[order].tolist()
