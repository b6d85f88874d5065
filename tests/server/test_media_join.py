from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from sensorium.errors import ServerError
from sensorium_server.settings import load
from sensorium_server.stages import StageConfig, media_join

STAGE = media_join.stage(StageConfig("media_join", Path()), load())
TOKENS = {"image": 2, "video": 3, "audio": 4}
FILL = {"image": 1.0, "video": 2.0, "audio": 3.0}
ROWS, WIDTH = 2, 5


def inputs(*media: str) -> dict[str, Any]:
    """Return a request in which all tokens of a medium hold its own number."""
    request: dict[str, Any] = {}
    for medium in media:
        shape = (ROWS, TOKENS[medium], WIDTH)
        request[f"{medium}_tokens"] = np.full(shape, FILL[medium], np.float32)
        request[f"{medium}_mask"] = np.ones(shape[:2], np.int64)
    return request


@pytest.mark.parametrize(
    "media", [("audio",), ("image", "audio"), ("audio", "video"), ("audio", "video", "image")]
)
def test_what_is_given_is_joined_in_one_order(media: tuple[str, ...]) -> None:
    """Tokens stand in the order image, video, audio; what was not given leaves no gap."""
    outputs = STAGE(inputs(*media))
    order = [medium for medium in ("image", "video", "audio") if medium in media]
    wanted = [FILL[medium] for medium in order for _ in range(TOKENS[medium])]

    assert outputs["media_tokens"][0, :, 0].tolist() == wanted
    assert outputs["media_tokens"].shape == (ROWS, len(wanted), WIDTH)
    assert outputs["media_mask"].tolist() == [[1] * len(wanted)] * ROWS
    assert outputs["media_tokens"].dtype == np.float32
    assert outputs["media_mask"].dtype == np.int64


def test_an_image_that_is_not_there_is_masked() -> None:
    """Where `image_present` is 0 the image's mask is 0, whatever the encoder said."""
    request = inputs("image", "audio")
    request["image_present"] = np.array([[1], [0]], np.int64)
    outputs = STAGE(request)

    assert outputs["media_mask"].tolist() == [[1, 1, 1, 1, 1, 1], [0, 0, 1, 1, 1, 1]]
    assert outputs["media_tokens"][1, :2].tolist() == [[0.0] * WIDTH] * 2


@given(
    arrays.arrays(np.float32, (ROWS, 2, WIDTH), elements=st.floats(width=32)),
    arrays.arrays(np.int64, (ROWS, 4), elements=st.integers(0, 1)),
    st.floats(width=32),
)
def test_masked_tokens_cannot_change_a_bit(image: Any, mask: Any, noise: float) -> None:  # noqa: ANN401 - drawn arrays
    """A missing image and masked sounds give the same bytes, whatever their tokens hold."""
    request = inputs("image", "audio") | {"audio_mask": mask}
    request["image_present"] = np.zeros((ROWS, 1), np.int64)
    wanted = STAGE(request)
    hidden = np.where(mask[..., None] == 0, np.float32(noise), request["audio_tokens"])
    got = STAGE(request | {"image_tokens": image, "audio_tokens": hidden})

    for name, array in wanted.items():
        assert got[name].tobytes() == array.tobytes()


def test_numbers_that_are_none_are_our_fault() -> None:
    """NaN in a token that is shown is an error of the server that names the tensor."""
    request = inputs("video", "audio")
    request["video_tokens"][1, 0, 0] = np.nan

    with pytest.raises(ServerError, match="put out NaN or infinity in video_tokens"):
        STAGE(request)


def test_rows_are_independent() -> None:
    """Rows in another order give the same answers in that order."""
    draw = np.random.default_rng(3)
    request = inputs("image", "video", "audio")
    for name, array in request.items():
        drawn = draw.normal(size=array.shape)
        request[name] = (drawn > 0).astype(np.int64) if "mask" in name else drawn
    straight = STAGE(request)
    turned = STAGE({name: array[::-1] for name, array in request.items()})

    for name, array in straight.items():
        assert np.array_equal(turned[name], array[::-1])
