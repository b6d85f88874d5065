"""Real sound and video files for tests, made with soundfile and PyAV."""

import io
import os
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from itertools import chain
from typing import Any

import av
import numpy as np
import soundfile
from av.audio.stream import AudioStream
from av.container import OutputContainer
from av.video.stream import VideoStream
from numpy.typing import NDArray

SUBTYPES = {"FLAC": "PCM_16", "OGG": "VORBIS", "MP3": "MPEG_LAYER_III", "WAV": "PCM_16"}
MP4_CODECS = ("libx264", "libx265", "mpeg4")
WEBM_CODECS = ("libvpx", "libvpx-vp9", "libsvtav1")
_LAYOUTS = {1: "mono", 2: "stereo", 6: "5.1"}
_PIXELS = {"libx264rgb": "rgb24", "mjpeg": "yuvj420p"}
_BLOCK = 8192
_TICKS = 1000
"""Timestamps of videos are in milliseconds."""

_TKHD_MATRIX = 44
_ROTATIONS = {
    0: (1, 0, 0, 1),
    90: (0, 1, -1, 0),
    180: (-1, 0, 0, -1),
    270: (0, -1, 1, 0),
}
"""Clockwise degrees by which a player turns the picture, and the matrix that says so."""


def tone(
    seconds: float, rate: int = 16_000, hz: float = 440.0, channels: int = 1
) -> NDArray[np.float32]:
    """Return a sine at a quarter of full scale, float32 [n, channels]."""
    wave = 0.25 * np.sin(2 * np.pi * hz * np.arange(round(seconds * rate)) / rate)
    return np.repeat(wave[:, None], channels, 1).astype(np.float32)


def sound(samples: NDArray[Any], rate: int, kind: str, subtype: str | None = None) -> bytes:
    """Return a sound file; `kind` is WAV, FLAC, OGG or MP3, the subtype libsndfile's name."""
    file = io.BytesIO()
    channels = 1 if samples.ndim == 1 else samples.shape[1]
    with soundfile.SoundFile(
        file, "w", rate, channels, subtype or SUBTYPES[kind], format=kind
    ) as output:
        # libsndfile's Vorbis encoder overflows its stack when it is given minutes at once.
        for start in range(0, len(samples), _BLOCK):
            output.write(samples[start : start + _BLOCK])
    return file.getvalue()


def wav(samples: NDArray[Any], rate: int, subtype: str = "PCM_16") -> bytes:
    """Return a WAV."""
    return sound(samples, rate, "WAV", subtype)


def flac(samples: NDArray[Any], rate: int, subtype: str = "PCM_16") -> bytes:
    """Return a FLAC."""
    return sound(samples, rate, "FLAC", subtype)


def ogg(samples: NDArray[Any], rate: int, subtype: str = "VORBIS") -> bytes:
    """Return an OGG, Vorbis or Opus."""
    return sound(samples, rate, "OGG", subtype)


def mp3(samples: NDArray[Any], rate: int) -> bytes:
    """Return an MP3."""
    return sound(samples, rate, "MP3")


def clip(frames: int, height: int = 48, width: int = 64) -> NDArray[np.uint8]:
    """Return frames of one grey each, darkest first, uint8 [frames, height, width, 3]."""
    return np.broadcast_to(greys(frames)[:, None, None, None], (frames, height, width, 3)).astype(
        np.uint8
    )


def greys(frames: int) -> NDArray[np.uint8]:
    """Return the greys of `clip`."""
    return np.linspace(30, 220, frames).astype(np.uint8)


def mp4(
    frames: NDArray[np.uint8],
    fps: float = 10,
    audio: NDArray[np.float32] | None = None,
    *,
    audio_rate: int = 16_000,
    codec: str = "libx264",
    rotation: int = 0,
) -> bytes:
    """Return an MP4 of uint8 frames [t, h, w, 3], with AAC sound [n] or [n, channels].

    Rotated by 90 degrees, a player turns the picture clockwise.
    """
    starts = [index / fps for index in range(len(frames))]
    data = video(frames, starts, "mp4", codec, audio, audio_rate=audio_rate)
    return rotated(data, rotation) if rotation else data


def webm(
    frames: NDArray[np.uint8],
    fps: float = 10,
    audio: NDArray[np.float32] | None = None,
    *,
    audio_rate: int = 48_000,
    codec: str = "libvpx",
) -> bytes:
    """Return a WebM of uint8 frames [t, h, w, 3], with Opus sound [n] or [n, channels]."""
    starts = [index / fps for index in range(len(frames))]
    return video(frames, starts, "webm", codec, audio, audio_rate=audio_rate)


def video(
    frames: NDArray[np.uint8],
    starts: Sequence[float],
    container: str = "mp4",
    codec: str = "libx264",
    audio: NDArray[np.float32] | None = None,
    *,
    audio_rate: int = 48_000,
) -> bytes:
    """Return a video whose frames start at the given seconds, for a variable frame rate."""
    file = io.BytesIO()
    with _priority_kept(), av.open(file, "w", format=container) as output:
        # Both streams exist before the first packet, which writes the header.
        picture = _picture_stream(output, frames.shape[1:3], codec, starts)
        track = None if audio is None else _sound_stream(output, audio, audio_rate, container)
        _encode(output, picture, _pictures(frames, starts))
        if track is not None and audio is not None:
            _encode(output, track, _sounds(audio, audio_rate))
    return file.getvalue()


def sound_only(audio: NDArray[np.float32], rate: int, container: str = "mp4") -> bytes:
    """Return a video file that holds a sound track and no pictures."""
    file = io.BytesIO()
    with av.open(file, "w", format=container) as output:
        _encode(output, _sound_stream(output, audio, rate, container), _sounds(audio, rate))
    return file.getvalue()


def rotated(data: bytes, degrees: int) -> bytes:
    """Return an MP4 whose first track a player turns clockwise by a multiple of 90 degrees."""
    a, b, c, d = (value << 16 for value in _ROTATIONS[degrees])
    at = data.index(b"tkhd") + _TKHD_MATRIX
    matrix = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    return data[:at] + matrix + data[at + len(matrix) :]


@contextmanager
def _priority_kept() -> Iterator[None]:
    """Undo what SVT-AV1 does as root: its caller, and all processes after, run in real time.

    Whatever spins there then keeps all else from the processor.
    """
    policy, parameters = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        yield
    finally:
        os.sched_setscheduler(0, policy, parameters)


def _picture_stream(
    output: OutputContainer, size: Sequence[int], codec: str, starts: Sequence[float]
) -> VideoStream:
    gaps = np.diff(starts)
    stream = output.add_stream(codec, rate=max(1, round(1 / gaps.min())) if gaps.size else 10)
    assert isinstance(stream, VideoStream)
    stream.height, stream.width = size
    # Odd sizes need a format that shares no colour between neighbours.
    odd = any(edge % 2 for edge in size)
    stream.pix_fmt = _PIXELS.get(codec, "yuv444p" if odd else "yuv420p")
    stream.codec_context.time_base = Fraction(1, _TICKS)
    if codec == "libx265":
        stream.options = {"x265-params": "log-level=none"}
    return stream


def _sound_stream(
    output: OutputContainer, audio: NDArray[np.float32], rate: int, container: str
) -> AudioStream:
    stream = output.add_stream("libopus" if container == "webm" else "aac", rate=rate)
    assert isinstance(stream, AudioStream)
    stream.layout = _layout(audio)
    return stream


def _pictures(frames: NDArray[np.uint8], starts: Sequence[float]) -> Iterator[av.VideoFrame]:
    for picture, start in zip(frames, starts, strict=True):
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), "rgb24")
        frame.pts, frame.time_base = round(start * _TICKS), Fraction(1, _TICKS)
        yield frame


def _sounds(audio: NDArray[np.float32], rate: int) -> Iterator[av.AudioFrame]:
    packed = np.ascontiguousarray(audio.reshape(1, -1))
    frame = av.AudioFrame.from_ndarray(packed, "flt", _layout(audio))
    frame.sample_rate, frame.pts = rate, 0
    yield frame


def _layout(audio: NDArray[np.float32]) -> str:
    return _LAYOUTS[1 if audio.ndim == 1 else audio.shape[1]]


def _encode(
    output: OutputContainer,
    stream: VideoStream | AudioStream,
    frames: Iterator[av.VideoFrame] | Iterator[av.AudioFrame],
) -> None:
    for frame in chain(frames, [None]):
        output.mux(stream.encode(frame))  # type: ignore[arg-type] # a stream's own kind of frame
