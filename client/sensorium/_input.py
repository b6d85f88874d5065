"""What the caller gives, turned into bytes and checked before the network."""

import os
from collections.abc import Callable, Mapping
from numbers import Integral, Real
from pathlib import Path
from typing import Any, BinaryIO

from sensorium._config import MAX_GUIDANCE_SCALE, MAX_SEED, MAX_STEPS, Limits
from sensorium.contract import (
    AUDIO,
    GUIDANCE_SCALE,
    IMAGE,
    QUESTION,
    SEED,
    STEPS,
    TEXT,
    VIDEO,
    Signature,
    TensorSpec,
)
from sensorium.errors import InvalidInputError

MediaInput = bytes | bytearray | memoryview | str | os.PathLike[str] | BinaryIO
"""A picture, a sound or a clip: its encoded bytes, a path, or a file opened in binary mode."""

Value = bytes | int | float
"""One input, read and checked."""

_FORMATS: Mapping[TensorSpec, str] = {
    IMAGE: "an encoded picture (JPEG, PNG, WebP)",
    AUDIO: "an encoded sound (WAV, FLAC, OGG, MP3)",
    VIDEO: "an encoded clip (MP4, WebM)",
}


def reads_file(inputs: Mapping[str, object]) -> bool:
    """Tell whether reading the inputs may wait for a disk."""
    names = [spec.name for spec in _FORMATS]
    return any(
        name in names and not isinstance(value, bytes | bytearray | memoryview | None)
        for name, value in inputs.items()
    )


def media_bytes(media: object, spec: TensorSpec, limits: Limits) -> bytes:
    """Read a picture, a sound or a clip, at most as much of it as the limit allows.

    Raises:
        InvalidInputError: it cannot be read, is empty or is over the limit.
    """
    name, setting = spec.name, f"max_{spec.name}_bytes"
    limit: int = getattr(limits, setting)
    size: int | None = None
    if isinstance(media, bytes | bytearray | memoryview):
        data = bytes(media)
    elif isinstance(media, str | os.PathLike):
        data, size = _file_bytes(Path(media), name, limit)
    elif hasattr(media, "read"):
        data = _stream_bytes(media.read, name, limit)
    else:
        raise InvalidInputError(
            f"{name} is a {type(media).__name__}; give bytes, a path or an open binary file."
        )
    if not data:
        raise InvalidInputError(f"{name} is empty: it has 0 bytes. Give {_FORMATS[spec]}.")
    size = max(size or 0, len(data))
    if size > limit:
        raise InvalidInputError(
            f"{name} is {size / 1e6:.1f} MB; the limit is {limit / 1e6:g} MB ({setting}). "
            "Make it smaller, or raise the limit on the server and in Client(limits=…)."
        )
    return data


def _file_bytes(path: Path, name: str, limit: int) -> tuple[bytes, int]:
    try:
        with path.open("rb") as file:
            return file.read(limit + 1), os.fstat(file.fileno()).st_size
    except FileNotFoundError:
        raise InvalidInputError(f"{name}: there is no file {str(path)!r}.") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InvalidInputError(f"{name}: cannot read {str(path)!r}: {reason}.") from error


def _stream_bytes(read: Callable[[int], object], name: str, limit: int) -> bytes:
    try:
        data = read(limit + 1)
    except (OSError, ValueError) as error:
        raise InvalidInputError(f"{name}: cannot read the open file: {error}.") from error
    if not isinstance(data, bytes):
        raise InvalidInputError(f"{name} is a file opened as text; open it in binary mode, 'rb'.")
    return data


def text_bytes(text: object, spec: TensorSpec, limits: Limits) -> bytes:
    """Encode a text.

    Raises:
        InvalidInputError: it is not a string, is blank, is over the limit or is not Unicode.
    """
    name = spec.name
    if not isinstance(text, str):
        raise InvalidInputError(f"{name} is a {type(text).__name__}; give a str.")
    if not text.strip():
        raise InvalidInputError(f"{name} is empty; give at least one word.")
    if len(text) > limits.max_text_chars:
        raise InvalidInputError(
            f"{name} has {len(text)} characters; the limit is {limits.max_text_chars} "
            "(max_text_chars). Shorten it, or raise the limit on the server and in "
            "Client(limits=…)."
        )
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise InvalidInputError(
            f"{name} has a half of a surrogate pair at character {error.start}, "
            "which is not valid Unicode; remove it."
        ) from error


_RANGES: Mapping[TensorSpec, tuple[type[Any], float, float]] = {
    SEED: (Integral, 0, MAX_SEED),
    STEPS: (Integral, 1, MAX_STEPS),
    GUIDANCE_SCALE: (Real, 0, MAX_GUIDANCE_SCALE),
}


def number(value: Any, spec: TensorSpec, limits: Limits) -> float:  # noqa: ANN401, ARG001 - a reader
    """Let pass a number in its range, whole where it counts something.

    Raises:
        InvalidInputError: it is no number, is not finite or is outside the range.
    """
    kind, smallest, largest = _RANGES[spec]
    if not isinstance(value, kind) or isinstance(value, bool):
        wanted = "a whole number" if kind is Integral else "a number"
        raise InvalidInputError(f"{spec.name} is a {type(value).__name__}; give {wanted}.")
    if not smallest <= value <= largest:  # NaN is not either
        raise InvalidInputError(
            f"{spec.name} is {value}; it must lie between {smallest} and {largest}."
        )
    return int(value) if kind is Integral else float(value)


_READERS: Mapping[TensorSpec, Callable[[object, TensorSpec, Limits], Value]] = {
    **dict.fromkeys(_FORMATS, media_bytes),
    QUESTION: text_bytes,
    TEXT: text_bytes,
    **dict.fromkeys(_RANGES, number),
}


def inputs_read(
    signature: Signature, inputs: Mapping[str, object], limits: Limits
) -> dict[str, Value]:
    """Read and check all inputs of a task by its signature; a missing modality is empty bytes.

    Raises:
        InvalidInputError: one is missing, unknown or wrong.
    """
    wanted = [spec.name for spec in signature.inputs]
    missing = _missing_media(signature, inputs)
    if set(inputs) | set(missing) != set(wanted):
        raise InvalidInputError(
            f"the inputs are {sorted(inputs)}; this task takes exactly {sorted(wanted)}."
        )
    return {
        spec.name: b"" if spec.name in missing else _READERS[spec](inputs[spec.name], spec, limits)
        for spec in signature.inputs
    }


def _missing_media(signature: Signature, inputs: Mapping[str, object]) -> list[str]:
    """Name the media that are left out, which a task of several allows for all but one."""
    media = [spec.name for spec in signature.inputs if spec in _FORMATS]
    if len(media) <= 1:
        return []
    missing = [name for name in media if inputs.get(name) is None]
    if missing == media:
        raise InvalidInputError(
            f"neither {' nor '.join(media)} was given; give one of them, or both."
        )
    return missing
