"""Videos: every container and codec, timestamps, rotation, limits and damage."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from tests.server import media

from sensorium.errors import ConfigurationError, InvalidInputError
from sensorium_server.settings import Settings, load
from sensorium_server.stages import Stage, StageConfig, video
from sensorium_server.stages.framing import Framing
from sensorium_server.stages.video import sampled_frames

LIMITS = load()
FRAMES = media.clip(20)
PARAMETERS = {"frames": "4", "image_size": "8", "mean": "0.5,0.4,0.3", "std": "0.5,0.25,0.2"}
VALID = {
    "h264": media.mp4(FRAMES),
    "mpeg4": media.mp4(FRAMES, codec="mpeg4"),
    "vp8": media.webm(FRAMES),
    "vp9": media.webm(FRAMES, codec="libvpx-vp9"),
    "h264 with sound": media.mp4(FRAMES, audio=media.tone(2.0)[:, 0]),
    "vp8 with sound": media.webm(FRAMES, audio=media.tone(2.0, 48_000)[:, 0]),
}


@pytest.fixture(scope="module")
def stage() -> Stage:
    """Return the stage, with its one child for all tests."""
    return video.stage(StageConfig("video_preprocess", Path(), PARAMETERS), LIMITS)


def batch(**items: list[bytes]) -> dict[str, Any]:
    """Return one request of several rows."""
    return {
        name: np.array([[item] for item in column], np.object_) for name, column in items.items()
    }


def centres(pictures: NDArray[np.uint8]) -> list[int]:
    """Return the grey in the middle of each frame."""
    middle = pictures.shape[1] // 2
    return [int(value) for value in pictures[:, middle, middle, 0]]


def corners() -> NDArray[np.uint8]:
    """Return frames whose upper left corner is white, upper right grey, all else black."""
    frames = np.zeros((5, 48, 64, 3), np.uint8)
    frames[:, :24, :32] = 255
    frames[:, :24, 32:] = 128
    return frames


@pytest.mark.parametrize(
    "codec", ["libx264", "libx265", "mpeg4", "libvpx", "libvpx-vp9", "libsvtav1"]
)
def test_every_codec_gives_its_frames(codec: str) -> None:
    """H.264, H.265, MPEG-4, VP8, VP9 and AV1 give the frames at the sampled moments.

    And making one leaves the test's own process as it was; see `media`.
    """
    policy = os.sched_getscheduler(0)
    make = media.mp4 if codec in media.MP4_CODECS else media.webm

    pictures, seconds = sampled_frames(make(FRAMES, codec=codec), LIMITS, 5, Framing(16))

    assert pictures.shape == (5, 16, 16, 3)
    assert pictures.dtype == np.uint8
    assert seconds == pytest.approx(2.0)
    assert os.sched_getscheduler(0) == policy
    np.testing.assert_allclose(centres(pictures), media.greys(20)[2::4], atol=4)


@pytest.mark.parametrize("size", [(37, 51), (1, 1), (2, 300), (241, 33)])
def test_odd_sizes(size: tuple[int, int]) -> None:
    """Frames of any height and width are squashed to the square."""
    pictures, _ = sampled_frames(media.mp4(media.clip(6, *size)), LIMITS, 3, Framing(16))

    np.testing.assert_allclose(centres(pictures), media.greys(6)[1::2], atol=4)


def test_frames_are_resized_like_images() -> None:
    """A frame goes through Pillow's antialiased bicubic filter, as an image does."""
    noise = np.random.default_rng(0).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    large = np.asarray(Image.fromarray(noise).resize((160, 128), Image.Resampling.BILINEAR))
    data = media.video(np.stack([large] * 2), [0, 0.1], codec="libx264rgb")

    pictures, _ = sampled_frames(data, LIMITS, 1, Framing(16))

    expected = Image.fromarray(large).resize((16, 16), Image.Resampling.BICUBIC)
    assert np.abs(pictures[0].astype(int) - np.asarray(expected)).mean() < 2


@pytest.mark.parametrize(("container", "codec"), [("mp4", "libx264"), ("webm", "libvpx")])
def test_variable_frame_rate(container: str, codec: str) -> None:
    """Of each moment the frame on the screen then is taken, by its timestamp."""
    starts = [0, 0.1, 0.2, 1.5, 2.9]
    data = media.video(media.clip(5), starts, container, codec)

    pictures, seconds = sampled_frames(data, LIMITS, 6, Framing(16))

    assert seconds == pytest.approx(2.95, abs=0.06)
    # Moments: 0.25, 0.74, 1.23, 1.72, 2.21, 2.70 s.
    np.testing.assert_allclose(centres(pictures), media.greys(5)[[2, 2, 2, 3, 3, 3]], atol=4)


def test_time_counts_from_the_first_frame() -> None:
    """A video whose timestamps start late is sampled over its own length."""
    data = media.video(FRAMES, [5 + index / 10 for index in range(20)])

    pictures, seconds = sampled_frames(data, LIMITS, 5, Framing(16))

    assert seconds == pytest.approx(2.0)
    np.testing.assert_allclose(centres(pictures), media.greys(20)[2::4], atol=4)


def test_sampling_by_fps() -> None:
    """At 10 per second the first frames are taken, whatever follows them."""
    pictures, seconds = sampled_frames(media.mp4(FRAMES), LIMITS, 5, Framing(16), 10.0)

    assert seconds == pytest.approx(0.5)
    np.testing.assert_allclose(centres(pictures), media.greys(20)[:5], atol=4)


def test_sampling_by_fps_beyond_the_end() -> None:
    """After the end of a short video its last frame stands still."""
    pictures, seconds = sampled_frames(media.mp4(FRAMES[:3]), LIMITS, 6, Framing(16), 10.0)

    assert seconds == pytest.approx(0.6)
    np.testing.assert_allclose(centres(pictures), media.greys(20)[[0, 1, 2, 2, 2, 2]], atol=4)


def test_one_frame_is_a_video() -> None:
    """A video of one frame is that frame at all moments."""
    pictures, seconds = sampled_frames(media.mp4(FRAMES[:1]), LIMITS, 4, Framing(16))

    assert seconds > 0
    np.testing.assert_allclose(centres(pictures), [30] * 4, atol=4)


@pytest.mark.parametrize(
    ("degrees", "white", "grey"),
    [
        (0, (0, 0), (0, -1)),
        (90, (0, -1), (-1, -1)),
        (180, (-1, -1), (-1, 0)),
        (270, (-1, 0), (0, 0)),
    ],
)
def test_rotated_video_is_turned_upright(
    degrees: int, white: tuple[int, int], grey: tuple[int, int]
) -> None:
    """Turned clockwise by the player, the corners move clockwise."""
    pictures, _ = sampled_frames(media.mp4(corners(), rotation=degrees), LIMITS, 1, Framing(16))

    assert pictures[0][white][0] > 230
    assert pictures[0][grey][0] == pytest.approx(128, abs=20)


MINUTES = media.video(media.clip(2), [0, 600])
BAD = {
    "empty": (b"", r"video is empty \(0 bytes\). Send the bytes of an MP4 or WebM"),
    "text": (b"a text file named .mp4", "not an MP4 or WebM: its 22 bytes start with 61 20 74"),
    "playlist": (b"#EXTM3U\nfile:///etc/passwd\n", "not an MP4 or WebM"),
    "picture": (b"\x89PNG\r\n\x1a\n" + bytes(99), "not an MP4 or WebM"),
    "sound": (media.wav(media.tone(0.1), 16_000), "not an MP4 or WebM"),
    "ftyp only": (b"\0\0\0\x18ftypisom" + bytes(12), "damaged or truncated"),
    "ebml only": (b"\x1a\x45\xdf\xa3" + bytes(40), "damaged or truncated"),
    "no pictures": (
        media.sound_only(media.tone(1.0)[:, 0], 16_000),
        "video has no frames: there is no picture track",
    ),
    "ten minutes": (MINUTES, r"60\d.0 s long; the limit is 60 s \(max_video_s\)"),
    "other codec": (
        media.video(FRAMES, [index / 10 for index in range(20)], codec="mjpeg"),
        'codec "mjpeg". Encode it as H.264',
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_video_is_refused(case: str) -> None:
    """Each kind of bad file is refused with what is wrong and the way out."""
    data, message = BAD[case]

    with pytest.raises(InvalidInputError, match=message):
        sampled_frames(data, LIMITS, 4, Framing(16))


@pytest.mark.parametrize(
    ("limit", "message"),
    [
        ({"max_video_bytes": 1000}, r"0.0 MB; the limit is 0.001 MB \(max_video_bytes\)"),
        ({"max_video_s": 1.5}, r"2.0 s long; the limit is 1.5 s \(max_video_s\)"),
        ({"max_video_pixels": 3000}, r"64 x 48 = 3,072 pixels; .* 3,000 \(max_video_pixels\)"),
        ({"max_video_frames": 19}, r"20 frames or more; the limit is 19 \(max_video_frames\)"),
    ],
)
@pytest.mark.parametrize("kind", ["h264 with sound", "vp8 with sound"])
def test_limits(kind: str, limit: dict[str, float], message: str) -> None:
    """Bytes, seconds, pixels and frames each have a limit, told with its name."""
    with pytest.raises(InvalidInputError, match=message):
        sampled_frames(VALID[kind], LIMITS.model_copy(update=limit), 4, Framing(16))


@pytest.mark.parametrize("kind", VALID)
@pytest.mark.parametrize("part", [0.1, 0.5, 0.8])
def test_truncated_video_is_refused(kind: str, part: float) -> None:
    """A video that ends in its middle is refused, not seen in part."""
    data = VALID[kind]

    with pytest.raises(InvalidInputError, match="video is damaged or truncated"):
        sampled_frames(data[: int(len(data) * part)], LIMITS, 4, Framing(16))


@pytest.mark.parametrize("kind", VALID)
@hypothesis_settings(max_examples=40, deadline=None)
@given(st.data())
def test_any_damage_is_refused_or_read(kind: str, data: st.DataObject) -> None:
    """Cut or flipped bits give frames or `InvalidInputError`, nothing else."""
    damaged = bytearray(VALID[kind])
    for _ in range(data.draw(st.integers(0, 8))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    cut = data.draw(st.integers(0, len(damaged)))
    try:
        pictures, seconds = sampled_frames(bytes(damaged[:cut]), LIMITS, 4, Framing(8))
    except InvalidInputError:
        return

    assert pictures.shape == (4, 8, 8, 3)
    assert 0 < seconds <= LIMITS.max_video_s


def test_no_other_file_is_opened(tmp_path: Path) -> None:
    """A list of files, which FFmpeg by itself would follow, is refused."""
    (tmp_path / "secret.mp4").write_bytes(VALID["h264"])
    playlist = f"ffconcat version 1.0\nfile '{tmp_path}/secret.mp4'\n".encode()

    with pytest.raises(InvalidInputError, match="not an MP4 or WebM"):
        sampled_frames(playlist, LIMITS, 4, Framing(8))


def test_stage_normalises(stage: Stage) -> None:
    """The stage's values are (x/255 − mean)/std of the sampled frames, channel by channel."""
    data = media.mp4(corners())
    pictures, seconds = sampled_frames(data, LIMITS, 4, Framing(8))
    expected = (pictures / 255 - [0.5, 0.4, 0.3]) / [0.5, 0.25, 0.2]

    outputs = stage(batch(video=[data, VALID["vp8"]]))

    assert outputs["frames"].dtype == np.float32
    assert outputs["frames"].shape == (2, 4, 3, 8, 8)
    np.testing.assert_allclose(outputs["frames"][0], expected.transpose(0, 3, 1, 2), atol=2e-6)
    np.testing.assert_allclose(outputs["duration_s"], [[seconds], [2.0]], rtol=1e-6)


def test_missing_video_is_zeros(stage: Stage) -> None:
    """Where the video is empty and the audio is not, there are zeros that last 0 seconds."""
    outputs = stage(batch(video=[b"", VALID["vp8"]], audio=[b"any", b""]))

    assert not outputs["frames"][0].any()
    assert outputs["frames"][1].any()
    assert outputs["duration_s"][:, 0].tolist() == [0.0, 2.0]


def test_nothing_at_all_is_refused(stage: Stage) -> None:
    """Without video and audio the video is told to be empty."""
    with pytest.raises(InvalidInputError, match=r"^video is empty \(0 bytes\)"):
        stage(batch(video=[b""], audio=[b""]))


def test_bad_item_is_named(stage: Stage) -> None:
    """In a request of several the bad one is told by its index."""
    with pytest.raises(InvalidInputError, match=r"^item 1 of 2: video is not an MP4"):
        stage(batch(video=[VALID["vp8"], b"garbage"]))


def test_stage_samples_by_fps() -> None:
    """`sampling` and `fps` reach the sampling, and a missing `fps` is told."""
    by_fps = PARAMETERS | {"sampling": "fps"}
    made = video.stage(StageConfig("video_preprocess", Path(), by_fps | {"fps": "8"}), LIMITS)

    assert made(batch(video=[VALID["h264"]]))["duration_s"].tolist() == [[0.5]]
    with pytest.raises(ConfigurationError, match='lacks the parameter "fps"'):
        video.stage(StageConfig("video_preprocess", Path(), by_fps), LIMITS)


def test_decoder_that_is_too_slow(settings: Settings) -> None:
    """A video that takes too long to decode is refused with the setting to change."""
    hasty = settings.model_copy(update={"decode_timeout_s": 0.05})
    slow = video.stage(StageConfig("video_preprocess", Path(), PARAMETERS), hasty)
    large = media.mp4(media.clip(60, 720, 1280), codec="mpeg4")

    with pytest.raises(InvalidInputError, match=r"video took longer than 0.05 s .*decode_timeout"):
        slow(batch(video=[large]))
