"""The stage `video_preprocess`: video bytes to a few normalised frames.

Reads MP4 and WebM (H.264, H.265, MPEG-4, VP8, VP9, AV1). All packets are read first, without
decoding any: they tell the length and the number of frames, whatever the header says. Then the
frames are decoded in order, and of each sampled moment the frame that is on the screen then is
kept, by its timestamp, so that a variable frame rate is right. It is turned upright by the file's
rotation and made square as `image_preprocess` does.

Parameters in `config.pbtxt`:

| key | meaning | default |
|---|---|---|
| `frames` | how many frames the encoder takes | required |
| `image_size` | edge of the square that the encoder takes, pixels | required |
| `sampling` | `uniform` over the video, or `fps`: see `sampling.py` | `uniform` |
| `fps` | moments per second, for `sampling` `fps` | required then |
| `resample` | `bicubic`, `bilinear` or `lanczos`, all antialiased | `bicubic` |
| `crop`, `resize_edge` | `squash` or `center_crop`: see `framing.py` | `squash` |
| `mean`, `std` | three numbers each, `0.5,0.5,0.5`, of channels scaled to 0…1 | required |

Input `video` BYTES [n,1], outputs `frames` FP32 [n,frames,3,image_size,image_size] and `duration_s`
FP32 [n,1], the seconds that the frames cover. With `audio`, an item that is empty gives zeros and
0 seconds where the audio's is not.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any

import numpy as np
from av import VideoFrame
from av.container import InputContainer
from av.packet import Packet
from av.video.stream import VideoStream
from numpy.typing import NDArray
from PIL import Image

from sensorium import contract
from sensorium.errors import InvalidInputError
from sensorium_server.isolation import IsolatedWorker
from sensorium_server.settings import Settings
from sensorium_server.stages import Stage, StageConfig, Tensors
from sensorium_server.stages.container import (
    CODEC_NAMES,
    COMPLETE,
    VIDEO_CODECS,
    check_pixels,
    check_seconds,
    damaged,
    decoder_limits,
    end_s,
    opened,
    packets_of,
    start_s,
)
from sensorium_server.stages.framing import Framing, framing_from
from sensorium_server.stages.image import normaliser
from sensorium_server.stages.item import item, map_items
from sensorium_server.stages.sampling import sample_times, stretch_s

SAMPLING = ("uniform", "fps")

_EARLY_S = 1e-3
"""How early a frame may be shown: WebM rounds to this, and moments often fall on frames' starts."""

_SHORTEST_S = 1e-3
"""What a lone frame without a duration lasts: more than the 0 of a missing video."""


def stage(config: StageConfig, settings: Settings) -> Stage:
    """Build the stage from its parameters and the limits."""
    frames, size = config.integer("frames"), config.integer("image_size")
    by_fps = config.choice("sampling", SAMPLING, "uniform") == "fps"
    fps = config.numbers("fps")[0] if by_fps else None
    framing = framing_from(config)
    normalise = normaliser(config)
    worker = IsolatedWorker(settings.decode_timeout_s)
    worker.load(sampled_frames)

    def preprocess(inputs: Tensors) -> Tensors:
        videos = inputs[contract.VIDEO.name].ravel()
        values = np.zeros((videos.size, frames, 3, size, size), np.float32)
        seconds = np.zeros((videos.size, 1), np.float32)

        def fill(row: int) -> None:
            if not videos[row] and item(inputs, contract.AUDIO, row):
                return
            pictures, seconds[row] = worker.call(
                "video", sampled_frames, videos[row], settings, frames, framing, fps
            )
            normalise(pictures, values[row])

        map_items(fill, np.arange(videos.size))
        return {contract.FRAMES.name: values, contract.DURATION_S.name: seconds}

    return preprocess


def sampled_frames(
    data: bytes,
    limits: Settings,
    frames: int,
    framing: Framing,
    fps: float | None = None,
) -> tuple[NDArray[np.uint8], float]:
    """Return the frames at the sampled moments, and the seconds that they cover.

    Args:
        data: a video file.
        limits: the server's limits.
        frames: how many moments.
        framing: how each becomes a square.
        fps: moments per second from the start; None spreads them over the whole video.

    Returns:
        uint8 [frames, image_size, image_size, 3] and seconds.

    Raises:
        InvalidInputError: `data` is empty, beyond a limit, not a video or damaged.
    """
    with opened(data, limits) as container:
        stream = _picture_track(container)
        packets = packets_of(container, stream, data, limits)
        first, last, seconds = _timeline(stream, packets)
        check_seconds(seconds, limits)
        times = first + sample_times(seconds, frames, fps)
        shown = _on_screen(_decoded(stream, packets, limits), times, first, last)
        pictures = [_square(frame, framing) for frame in shown]
        if len(pictures) < frames:
            raise damaged(data)
    return np.stack(pictures), stretch_s(seconds, frames, fps)


def _picture_track(container: InputContainer) -> VideoStream:
    if not container.streams.video:
        raise InvalidInputError(
            "video has no frames: there is no picture track in it. Send its sound as audio."
        )
    stream = container.streams.video[0]
    name = stream.codec_context.name if stream.codec_context is not None else "unknown"
    if name not in VIDEO_CODECS:
        raise InvalidInputError(f'video has the codec "{name}". Encode it as {CODEC_NAMES}.')
    return stream


def _timeline(stream: VideoStream, packets: list["Packet[Any]"]) -> tuple[float, float, float]:
    """Return the seconds at which the first and the last frame start, and how long all last."""
    shown = [packet for packet in packets if not packet.is_discard]
    if not shown:
        raise InvalidInputError("video has no frames: its picture track is empty.")
    first, last = min(map(start_s, shown)), max(map(start_s, shown))
    if stream.duration is not None and stream.time_base is not None:
        end = first + float(stream.duration * stream.time_base)
    else:
        end = max(map(end_s, shown))
    return first, last, max(end, last, first + _SHORTEST_S) - first


def _decoded(
    stream: VideoStream, packets: Iterable["Packet[Any]"], limits: Settings
) -> Iterator[tuple[float, VideoFrame]]:
    """Decode frames in order, each with the second at which it starts."""
    stream.codec_context.options = decoder_limits(limits)
    stream.codec_context.thread_count = 1
    for packet in chain(packets, [None]):
        for frame in stream.codec_context.decode(packet):
            check_pixels(frame.width, frame.height, limits)
            if frame.pts is not None and stream.time_base is not None:
                yield float(frame.pts * stream.time_base), frame


def _on_screen(
    decoded: Iterable[tuple[float, VideoFrame]],
    times: NDArray[np.float64],
    first: float,
    last: float,
) -> Iterator[VideoFrame]:
    """Yield, for each ascending moment, the frame on the screen then.

    Moments are left out when most of the frames from the first to the last could not be decoded.
    """
    left = deque(times)
    begin, shown = first, None
    for start, frame in decoded:
        while shown is not None and left and left[0] < start - _EARLY_S:
            yield shown
            left.popleft()
        if not left:
            return
        begin, shown = start, frame
    if shown is not None and begin - first >= COMPLETE * (last - first):
        yield from (shown for _ in left)


def _square(frame: VideoFrame, framing: Framing) -> NDArray[np.uint8]:
    """Return a frame upright, [image_size, image_size, 3]; a crop is of the upright frame."""
    pixels, turns = frame.to_ndarray(format="rgb24", threads=1), round(frame.rotation / 90)
    if framing.crop == "squash":
        return np.rot90(np.asarray(framing(Image.fromarray(pixels))), turns)
    return np.asarray(framing(Image.fromarray(np.ascontiguousarray(np.rot90(pixels, turns)))))
