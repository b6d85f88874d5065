"""The sound track of a video: its pitch, its timing, its absence."""

import numpy as np
import pytest
from numpy.typing import NDArray
from tests.server import media

from sensorium.errors import InvalidInputError
from sensorium_server.settings import load
from sensorium_server.stages.audio import sound_track_of

RATE = 16_000
LIMITS = load()
FRAMES = media.clip(20)


def burst(rate: int, channels: int = 1) -> NDArray[np.float32]:
    """Return two seconds of silence with a tone from 1.0 to 1.2 s."""
    wave = media.tone(2.0, rate, channels=channels)
    wave[:rate] = 0
    wave[rate * 6 // 5 :] = 0
    return wave


@pytest.mark.parametrize("channels", [1, 2, 6])
@pytest.mark.parametrize("kind", ["mp4", "webm"])
def test_sound_is_where_it_was_put(kind: str, channels: int) -> None:
    """A burst keeps its time to 5 ms and its level, in AAC and Opus, mono to 5.1."""
    make = media.mp4 if kind == "mp4" else media.webm
    clip = make(FRAMES, audio=burst(48_000, channels), audio_rate=48_000)

    samples = sound_track_of(clip, LIMITS, RATE)
    loud = np.flatnonzero(np.abs(samples) > 0.1)

    assert loud[0] / RATE == pytest.approx(1.0, abs=0.005)
    assert loud[-1] / RATE == pytest.approx(1.2, abs=0.005)


def test_late_pictures_shift_the_sound() -> None:
    """Time counts from the first frame: sound before it is cut, so that both stay in step."""
    clip = media.video(FRAMES, [0.5 + index / 10 for index in range(20)], audio=burst(48_000)[:, 0])

    loud = np.flatnonzero(np.abs(sound_track_of(clip, LIMITS, RATE)) > 0.1)

    assert loud[0] / RATE == pytest.approx(0.5, abs=0.005)


def test_no_sound_track() -> None:
    """A video without sound gives no samples."""
    assert sound_track_of(media.mp4(FRAMES), LIMITS, RATE).size == 0


def test_sound_without_pictures_is_heard() -> None:
    """A video file with nothing but sound can be listened to."""
    samples = sound_track_of(media.sound_only(media.tone(1.0)[:, 0], RATE), LIMITS, RATE)

    assert len(samples) == pytest.approx(RATE, abs=1100)


@pytest.mark.parametrize("part", [0.3, 0.6])
def test_truncated_video(part: float) -> None:
    """A video cut in its middle is refused."""
    clip = media.webm(FRAMES, audio=burst(48_000)[:, 0])

    with pytest.raises(InvalidInputError, match="video is damaged or truncated"):
        sound_track_of(clip[: int(len(clip) * part)], LIMITS, RATE)


def test_long_track_is_refused() -> None:
    """The limit on a video's seconds holds for its sound as well."""
    clip = media.sound_only(np.zeros(61 * 8000, np.float32), 8000)

    with pytest.raises(InvalidInputError, match=r"video is 61.* s long; the limit is 60 s"):
        sound_track_of(clip, LIMITS, RATE)
