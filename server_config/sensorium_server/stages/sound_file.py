"""WAV, FLAC, OGG and MP3: told from anything else, limits checked first, decoded to one channel.

libsndfile passes over the end of a WAV or OGG that is cut off, so its length is compared with the
bytes here.
"""

import io

import numpy as np
import soundfile
from numpy.typing import NDArray

from sensorium.errors import InvalidInputError
from sensorium_server.settings import Settings

Samples = NDArray[np.float32]

FORMATS = {"WAV", "WAVEX", "RF64", "FLAC", "OGG", "MP3"}
"""What is read, by libsndfile's names."""

FORMAT_NAMES = "WAV, FLAC, OGG or MP3"
MAX_CHANNELS = 8
MIN_RATE, MAX_RATE = 8000, 192_000
MAX_LEVEL = 100.0
"""How far beyond full scale samples may go: float WAVs do go a little, integers taken for floats
by thousands."""

_BLOCK = 65_536
_COMPLETE = 0.9
"""The least part of the promised samples that must be there, else the file is truncated."""

_RIFF_STREAM_SIZES = {0, 0x7FFF_FFFF, 0xFFFF_FFFF}
"""What programs write for a length that they do not know."""

_UNKNOWN_LENGTH = 2**63 - 1
"""What libsndfile says of a file that does not tell its length."""

_OGG_PAGE_HEADER = 27


def decode(data: bytes, limits: Settings) -> tuple[Samples, int]:
    """Return a sound file's samples, float32 [n], the mean of its channels, and their rate.

    Raises:
        InvalidInputError: `data` is empty, beyond a limit, not a sound file or damaged.
    """
    _check_bytes(data, limits)
    try:
        with soundfile.SoundFile(io.BytesIO(data)) as file:
            _check_header(file, limits)
            samples = _read(file)
            promised, rate = file.frames, file.samplerate
    except soundfile.SoundFileError as error:
        raise _damaged(data) from error
    if samples.size < _COMPLETE * promised:
        raise _damaged(data)
    return checked(samples, "audio"), rate


def _check_bytes(data: bytes, limits: Settings) -> None:
    """Check what can be told of the bytes without a decoder."""
    if not data:
        raise InvalidInputError(f"audio is empty (0 bytes). Send the bytes of a {FORMAT_NAMES}.")
    if len(data) > limits.max_audio_bytes:
        raise InvalidInputError(
            f"audio is {len(data) / 1e6:.1f} MB; the limit is {limits.max_audio_bytes / 1e6:g} MB "
            f"(max_audio_bytes). Send a smaller file, or raise the limit on the server."
        )
    riff = data[:4] in {b"RIFF", b"RF64"} and data[8:12] == b"WAVE"
    mp3 = data[:3] == b"ID3" or (data[:1] == b"\xff" and data[1:2] >= b"\xe0")
    if not (riff or mp3 or data[:4] in {b"fLaC", b"OggS"}):
        raise InvalidInputError(
            f"audio is not a {FORMAT_NAMES}: its {len(data):,} bytes start with "
            f"{data[:8].hex(' ')}. Send the bytes of a sound file."
        )
    if (riff and _riff_end(data) > len(data)) or (data[:4] == b"OggS" and _ogg_ends_early(data)):
        raise _damaged(data)


def _riff_end(data: bytes) -> int:
    """Return where a WAV says that it ends, 0 when it does not know."""
    size = int.from_bytes(data[4:8], "little")
    return 0 if size in _RIFF_STREAM_SIZES else size + 8


def _ogg_ends_early(data: bytes) -> bool:
    """Tell whether the last page of an OGG is cut off, which libsndfile would pass over."""
    page = data[data.rfind(b"OggS") :]
    if len(page) < _OGG_PAGE_HEADER:
        return True
    lengths = page[_OGG_PAGE_HEADER : _OGG_PAGE_HEADER + page[_OGG_PAGE_HEADER - 1]]
    return len(page) < _OGG_PAGE_HEADER + page[_OGG_PAGE_HEADER - 1] + sum(lengths)


def _damaged(data: bytes) -> InvalidInputError:
    return InvalidInputError(
        f"audio is damaged or truncated: its {len(data):,} bytes cannot be decoded to the end. "
        f"Send the whole file."
    )


def _check_header(file: soundfile.SoundFile, limits: Settings) -> None:
    """Check what the header says, before anything is decoded."""
    if file.format not in FORMATS:
        raise InvalidInputError(f"audio is {file.format}. Send a {FORMAT_NAMES}.")
    if file.frames == _UNKNOWN_LENGTH:
        raise InvalidInputError(
            "audio does not tell its length, as when it was streamed. Write it to a file instead."
        )
    seconds = file.frames / max(file.samplerate, 1)
    if seconds > limits.max_audio_s:
        raise InvalidInputError(
            f"audio is {seconds:.1f} s long; the limit is {limits.max_audio_s:g} s (max_audio_s). "
            f"Send a shorter one, or raise the limit on the server."
        )
    if file.channels > MAX_CHANNELS:
        raise InvalidInputError(
            f"audio has {file.channels} channels; the most is {MAX_CHANNELS}. Mix it down."
        )
    check_rate(file.samplerate)


def check_rate(rate: int) -> None:
    """Refuse a rate at which there is no sound to speak of, or too many samples."""
    if not MIN_RATE <= rate <= MAX_RATE:
        raise InvalidInputError(
            f"audio has {rate:,} samples per second; they may be {MIN_RATE:,} to {MAX_RATE:,}. "
            f"Resample it."
        )


def _read(file: soundfile.SoundFile) -> Samples:
    """Decode block by block, each to the mean of its channels; never more than the header says."""
    blocks = [
        file.read(_BLOCK, dtype="float32", always_2d=True).mean(axis=1)
        for _ in range(0, file.frames, _BLOCK)
    ]
    return np.concatenate([*blocks, np.zeros(0, np.float32)])


def checked(samples: Samples, name: str) -> Samples:
    """Return the samples if they are sound: finite, and about in ±1."""
    wrong = np.flatnonzero(~(np.abs(samples) <= MAX_LEVEL))
    if wrong.size == 0:
        return samples
    value = samples[wrong[0]]
    if np.isfinite(value):
        raise InvalidInputError(
            f"{name} has a sample of {value:,.0f} at position {wrong[0]:,}; float samples lie in "
            f"-1 to 1. Scale it."
        )
    raise InvalidInputError(
        f"{name} has {wrong.size:,} samples that are NaN, infinite or too large, the first at "
        f"position {wrong[0]:,}. Send finite ones."
    )
