"""Sounds and clips as file bytes, drawn from seeds as pictures are in `probes`.

Every way in which they may be stored is among them: WAV of 8 to 32 bits and float, FLAC, OGG and
MP3, of one to six channels and 8 to 96 kHz, silence, and sounds shorter than one window; MP4 and
WebM, with and without a sound track, of odd sizes, turned by the file, of varying frame rate, and
of a single frame.
"""

import io
from dataclasses import dataclass
from fractions import Fraction

import av
import numpy as np
import soundfile
from av.audio.stream import AudioStream
from av.container import OutputContainer
from av.video.stream import VideoStream
from numpy.typing import NDArray

_CLIP_RATE = 48_000
_MILLISECOND = Fraction(1, 1000)
_QUARTER_TURN = b"".join(
    number.to_bytes(4, "big", signed=True)
    for number in (0, 1 << 16, 0, -(1 << 16), 0, 0, 0, 0, 1 << 30)
)
_MATRIX = slice(44, 80)
"""Where the matrix lies behind the name of an MP4's track header, version 0."""


@dataclass(frozen=True, slots=True)
class SoundWay:
    """One way to store a sound; names are libsndfile's."""

    kind: str
    subtype: str
    rate: int
    channels: int
    seconds: float = 0.0
    silent: bool = False

    def __str__(self) -> str:
        loudness = " silent" if self.silent else ""
        return f"{self.kind} {self.subtype} {self.rate} Hz x{self.channels}{loudness}"


@dataclass(frozen=True, slots=True)
class ClipWay:
    """One way to store a clip; names are FFmpeg's, `sound` is empty for a silent one."""

    kind: str
    codec: str
    size: tuple[int, int] = (64, 64)
    sound: str = ""
    frames: int = 0
    turned: bool = False
    varying: bool = False
    pixels: str = "yuv420p"

    def __str__(self) -> str:
        width, height = self.size
        words = [self.kind, self.codec, f"{width}x{height}"]
        words += [f"with {self.sound}"] if self.sound else []
        words += ["turned"] if self.turned else []
        words += ["varying rate"] if self.varying else []
        return " ".join(words)


SOUND_WAYS = (
    SoundWay("WAV", "PCM_16", 16_000, 1),
    SoundWay("WAV", "PCM_U8", 8000, 1),
    SoundWay("FLAC", "PCM_16", 44_100, 2),
    SoundWay("OGG", "VORBIS", 48_000, 2),
    SoundWay("MP3", "MPEG_LAYER_III", 44_100, 2),
    SoundWay("WAV", "PCM_24", 48_000, 2),
    SoundWay("WAV", "FLOAT", 22_050, 1),
    SoundWay("WAVEX", "PCM_16", 48_000, 6),
    SoundWay("WAV", "PCM_16", 16_000, 1, silent=True),
    SoundWay("FLAC", "PCM_24", 96_000, 1),
    SoundWay("WAV", "PCM_16", 16_000, 1, seconds=0.05),
    SoundWay("OGG", "OPUS", 48_000, 1),
    SoundWay("MP3", "MPEG_LAYER_III", 16_000, 1),
    SoundWay("WAV", "PCM_32", 11_025, 2),
    SoundWay("WAV", "DOUBLE", 32_000, 1),
)
"""Every way to store a sound; `seconds` 0 draws the length."""

CLIP_WAYS = (
    ClipWay("mp4", "libx264"),
    ClipWay("mp4", "libx264", (96, 64), sound="aac"),
    ClipWay("webm", "libvpx-vp9", (65, 47), sound="libopus"),
    ClipWay("mp4", "mpeg4", (48, 80)),
    ClipWay("mp4", "libx264", (80, 48), turned=True, sound="aac"),
    ClipWay("webm", "libvpx", (64, 64), varying=True),
    ClipWay("mp4", "libx264", (33, 41), pixels="yuv444p"),
    ClipWay("mp4", "mpeg4", varying=True, sound="aac"),
    ClipWay("mp4", "libx264", frames=1),
    ClipWay("webm", "libvpx-vp9", (128, 96)),
    ClipWay("mp4", "libx264", (64, 48), varying=True, turned=True),
)
"""Every way to store a clip; `frames` 0 draws their number."""


def drawn_sound(seed: int, number: int) -> tuple[str, bytes]:
    """Draw one sound and store it in one of the ways, by turns; return its name and bytes."""
    random = np.random.default_rng((seed, number, 1))
    way = SOUND_WAYS[number % len(SOUND_WAYS)]
    seconds = way.seconds or float(random.uniform(0.3, 2.5))
    samples = _tones(random, seconds, way.rate, way.channels) * (not way.silent)
    file = io.BytesIO()
    soundfile.write(file, samples, way.rate, subtype=way.subtype, format=way.kind)
    return str(way), file.getvalue()


def drawn_clip(seed: int, number: int) -> tuple[str, bytes]:
    """Draw one clip and store it in one of the ways, by turns; return its name and bytes."""
    random = np.random.default_rng((seed, number, 2))
    way = CLIP_WAYS[number % len(CLIP_WAYS)]
    frames = way.frames or int(random.integers(8, 24))
    rate = int(random.choice([8, 10, 12, 15]))
    steps_ms = np.full(frames, 1000 // rate)
    if way.varying:
        steps_ms = random.integers(20, 250, frames)
    starts_ms = np.concatenate([[0], np.cumsum(steps_ms)[:-1]])
    file = io.BytesIO()
    with av.open(file, "w", format=way.kind, options={"fflags": "+bitexact"}) as container:
        picture = _picture_track(container, way, rate)
        if way.sound:
            samples = _tones(random, float(steps_ms.sum()) / 1000, _CLIP_RATE, 1)
            _write_sound(container, way.sound, samples)
        _write_frames(container, picture, _moving(random, frames, way.size), starts_ms)
    return str(way), _turned(file.getvalue()) if way.turned else file.getvalue()


def _tones(
    random: np.random.Generator, seconds: float, rate: int, channels: int
) -> NDArray[np.float32]:
    """Return some tones that come and go over a little noise, [samples, channels]."""
    time_s = np.arange(max(1, round(seconds * rate))) / rate
    samples = random.normal(0, random.uniform(0.0005, 0.02), (time_s.size, channels))
    for _ in range(int(random.integers(1, 5))):
        start_s, hertz = random.uniform(0, seconds), random.uniform(80, min(7000, rate * 0.45))
        fades = np.clip((time_s - start_s) * 50, 0, 1)
        fades *= np.exp(-np.maximum(time_s - start_s, 0) / random.uniform(0.05, 1.0))
        tone = random.uniform(0.05, 0.2) * fades * np.sin(2 * np.pi * hertz * time_s)
        samples += tone[:, None] * random.uniform(0.3, 1, channels)
    return np.clip(samples, -0.99, 0.99).astype(np.float32)


def _moving(random: np.random.Generator, frames: int, size: tuple[int, int]) -> NDArray[np.uint8]:
    """Return pictures of some boxes that move over a plain ground, [frames, height, width, 3]."""
    width, height = size
    pictures = np.empty((frames, height, width, 3), np.uint8)
    pictures[:] = random.integers(0, 256, 3)
    for _ in range(int(random.integers(1, 4))):
        colour, side = random.integers(0, 256, 3), int(min(size) * random.uniform(0.2, 0.5))
        path = np.linspace(random.random(2), random.random(2), frames)
        for picture, (x, y) in zip(pictures, path, strict=True):
            left, top = int(x * (width - side)), int(y * (height - side))
            picture[top : top + side, left : left + side] = colour
    return pictures


def _picture_track(container: OutputContainer, way: ClipWay, rate: int) -> VideoStream:
    stream = container.add_stream(way.codec, rate=rate)
    assert isinstance(stream, VideoStream)  # noqa: S101 - by its codec
    stream.width, stream.height = way.size
    stream.pix_fmt = way.pixels
    stream.time_base = stream.codec_context.time_base = _MILLISECOND
    stream.codec_context.thread_count = 1
    if way.codec == "libx264":
        # Its macroblock tree gives small pictures other bytes each time.
        stream.codec_context.options = {"x264-params": "no-mbtree=1"}
    return stream


def _write_frames(
    container: OutputContainer,
    stream: VideoStream,
    pictures: NDArray[np.uint8],
    starts_ms: NDArray[np.int64],
) -> None:
    for picture, start_ms in zip(pictures, starts_ms, strict=True):
        frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
        frame.pts, frame.time_base = int(start_ms), _MILLISECOND
        container.mux(stream.encode(frame))
    container.mux(stream.encode(None))


def _write_sound(container: OutputContainer, codec: str, samples: NDArray[np.float32]) -> None:
    stream = container.add_stream(codec, rate=_CLIP_RATE, layout="mono")
    assert isinstance(stream, AudioStream)  # noqa: S101 - by its codec
    frame = av.AudioFrame.from_ndarray(samples.T.copy(), format="fltp", layout="mono")
    frame.sample_rate, frame.pts = _CLIP_RATE, 0
    container.mux(stream.encode(frame))
    container.mux(stream.encode(None))


def _turned(mp4: bytes) -> bytes:
    """Turn an MP4 by a quarter, as phones do: by the matrix in the picture track's header."""
    start = mp4.index(b"tkhd")
    matrix = slice(start + _MATRIX.start, start + _MATRIX.stop)
    return mp4[: matrix.start] + _QUARTER_TURN + mp4[matrix.stop :]
