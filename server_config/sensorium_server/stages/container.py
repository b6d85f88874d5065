"""MP4 and WebM: told from anything else, opened by their own demuxer only, limits checked first.

What is not one of the two never reaches FFmpeg's other demuxers, a file that names other files or
addresses opens none of them, and only the listed codecs are ever run.
"""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import av
from av.packet import Packet
from av.stream import Stream

from sensorium.errors import InvalidInputError
from sensorium_server.settings import Settings

if TYPE_CHECKING:
    from av.container import InputContainer

VIDEO_CODECS = ("h264", "hevc", "mpeg4", "vp8", "vp9", "libdav1d", "av1")
AUDIO_CODECS = (
    *("aac", "mp3float", "mp3", "opus", "libopus", "vorbis", "flac", "alac", "ac3", "eac3"),
    *("pcm_s16le", "pcm_s16be", "pcm_s24le", "pcm_s24be", "pcm_s32le", "pcm_f32le", "pcm_u8"),
)
CODEC_NAMES = "H.264, H.265, MPEG-4, VP8, VP9 or AV1"

COMPLETE = 0.9
"""The least part of what is promised that must be there, else the file is truncated."""

_FTYP = slice(4, 8)
_EBML = b"\x1a\x45\xdf\xa3"
_CODED_FRAME = 2
"""How much larger than the picture a coded frame may be: codecs round sizes up to whole blocks."""

# PyAV would pass FFmpeg's messages on to Python's logging.
av.logging.set_level(None)
av.logging.set_libav_level(av.logging.PANIC)


@contextmanager
def opened(data: bytes, limits: Settings) -> Iterator["InputContainer"]:
    """Open a video's bytes; what goes wrong with it inside the `with` is told as damage.

    Raises:
        InvalidInputError: `data` is empty, too large, too long, no MP4 or WebM, or damaged.
    """
    demuxer = _sniff(data, limits)
    try:
        with av.open(
            io.BytesIO(data),
            "r",
            format=demuxer,
            metadata_errors="replace",
            options={
                "protocol_whitelist": "none",
                "codec_whitelist": ",".join(VIDEO_CODECS + AUDIO_CODECS),
                **decoder_limits(limits),
            },
        ) as container:
            _check_header(container, limits)
            yield container
    except MemoryError:
        raise
    except (av.FFmpegError, ValueError, OverflowError) as error:
        raise damaged(data) from error


def packets_of(
    container: "InputContainer", stream: Stream, data: bytes, limits: Settings
) -> list["Packet[Any]"]:
    """Return a stream's packets, nothing decoded yet, once the file is known to be whole.

    Raises:
        InvalidInputError: the file ends long before its header says, or has too many frames.
    """
    packets: list[Packet[Any]] = []
    end = 0.0
    for packet in container.demux():
        end = max(end, end_s(packet))
        if packet.stream.index == stream.index and packet.pts is not None:
            packets.append(packet)
            if stream.type == "video":
                check_frames(len(packets), limits)
    if end < COMPLETE * (container.duration or 0) / av.time_base:
        raise damaged(data)
    return packets


def start_s(packet: "Packet[Any]") -> float:
    """Return the second at which a packet is shown or heard."""
    return float((packet.pts or 0) * (packet.time_base or 0))


def end_s(packet: "Packet[Any]") -> float:
    """Return the second at which a packet's time ends, as far as it says."""
    return start_s(packet) + float((packet.duration or 0) * (packet.time_base or 0))


def damaged(data: bytes) -> InvalidInputError:
    """Return the complaint about a file that ends too early or cannot be decoded."""
    return InvalidInputError(
        f"video is damaged or truncated: its {len(data):,} bytes cannot be decoded to the end. "
        f"Send the whole file."
    )


def decoder_limits(limits: Settings) -> dict[str, str]:
    """Return the options by which a decoder refuses huge frames by itself, on one thread."""
    return {"max_pixels": str(limits.max_video_pixels * _CODED_FRAME), "threads": "1"}


def check_seconds(seconds: float, limits: Settings) -> None:
    """Refuse a video that is too long."""
    if seconds > limits.max_video_s:
        raise InvalidInputError(
            f"video is {seconds:.1f} s long; the limit is {limits.max_video_s:g} s (max_video_s). "
            f"Send a shorter one, or raise the limit on the server."
        )


def check_frames(count: int, limits: Settings) -> None:
    """Refuse a video of too many frames."""
    if count > limits.max_video_frames:
        raise InvalidInputError(
            f"video has {count:,} frames or more; the limit is {limits.max_video_frames:,} "
            f"(max_video_frames). Send a shorter one, or raise the limit on the server."
        )


def check_pixels(width: int, height: int, limits: Settings) -> None:
    """Refuse a video whose frames are too large."""
    if width * height > limits.max_video_pixels:
        raise InvalidInputError(
            f"video has frames of {width:,} x {height:,} = {width * height:,} pixels; the limit is "
            f"{limits.max_video_pixels:,} (max_video_pixels). Send a smaller one, or raise the "
            f"limit on the server."
        )


def _sniff(data: bytes, limits: Settings) -> str:
    """Return the demuxer for the bytes."""
    if not data:
        raise InvalidInputError("video is empty (0 bytes). Send the bytes of an MP4 or WebM.")
    if len(data) > limits.max_video_bytes:
        raise InvalidInputError(
            f"video is {len(data) / 1e6:.1f} MB; the limit is {limits.max_video_bytes / 1e6:g} MB "
            f"(max_video_bytes). Send a smaller file, or raise the limit on the server."
        )
    if data[_FTYP] == b"ftyp":
        return "mp4"
    if data.startswith(_EBML):
        return "webm"
    raise InvalidInputError(
        f"video is not an MP4 or WebM: its {len(data):,} bytes start with {data[:8].hex(' ')}. "
        f"Send the bytes of a video file."
    )


def _check_header(container: "InputContainer", limits: Settings) -> None:
    """Check what the header says, before anything is decoded."""
    check_seconds((container.duration or 0) / av.time_base, limits)
    for stream in container.streams.video:
        check_frames(stream.frames, limits)
        if stream.codec_context is not None:
            check_pixels(stream.codec_context.width, stream.codec_context.height, limits)
