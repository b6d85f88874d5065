from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from sensorium.errors import ServerError
from sensorium_server.settings import load
from sensorium_server.stages import StageConfig, actions

LABELS = ("stands still", "moves left", "jumps")
STAGE = actions.stage(
    StageConfig("action_postprocess", Path(), {"labels": ",".join(LABELS)}), load()
)


def inputs(probabilities: Any, presence: Any) -> dict[str, Any]:  # noqa: ANN401 - whatever makes an array
    """Return a request of tracks that span the clip."""
    present = np.array(presence, np.float32)
    spans = np.stack([present, np.zeros_like(present), np.ones_like(present)], axis=-1)
    return {"track_actions": np.array(probabilities, np.float32), "track_spans": spans}


def test_presence_weighs_the_action() -> None:
    """An action scores the best product of presence and probability over the tracks."""
    outputs = STAGE(inputs([[[0.25, 0.75, 0], [0, 0.5, 0.5]]], [[0.5, 1.0]]))

    assert outputs["labels"].tolist() == [[b"moves left", b"jumps", b"stands still"]]
    assert outputs["scores"].tolist() == [[0.5, 0.5, 0.125]]
    assert outputs["labels"].dtype == np.object_
    assert outputs["scores"].dtype == np.float32


def test_absent_tracks_score_nothing() -> None:
    """Without a track every action scores 0, in the labels' order."""
    outputs = STAGE(inputs([[[0, 0, 1.0]]], [[0.0]]))

    assert outputs["labels"].tolist() == [[label.encode() for label in LABELS]]
    assert outputs["scores"].tolist() == [[0, 0, 0]]


@pytest.mark.parametrize("tensor", ["track_actions", "track_spans"])
def test_numbers_that_are_none_are_our_fault(tensor: str) -> None:
    """NaN is an error of the server that names the tensor."""
    request = inputs([[[0, 0, 1.0]]], [[0.5]])
    request[tensor][0, 0, 0] = np.nan

    with pytest.raises(ServerError, match=f"put out NaN or infinity in {tensor}"):
        STAGE(request)


@given(
    arrays.arrays(np.float32, (3, 2, 3), elements=st.floats(0, 1, width=32)),
    arrays.arrays(np.float32, (3, 2), elements=st.floats(0, 1, width=32)),
    st.permutations(range(3)),
)
def test_rows_are_independent(probabilities: Any, presence: Any, order: list[int]) -> None:  # noqa: ANN401 - drawn arrays
    """Rows in another order give the same answers in that order."""
    straight = STAGE(inputs(probabilities, presence))
    turned = STAGE(inputs(probabilities[order], presence[order]))

    for name, array in straight.items():
        assert turned[name].tolist() == array[order].tolist()
