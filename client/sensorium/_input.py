"""What the caller gives, turned into bytes and checked before the network."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import BinaryIO

from sensorium._config import Limits
from sensorium.contract import IMAGE, QUESTION, TEXT, Signature, TensorSpec
from sensorium.errors import InvalidInputError

ImageInput = bytes | bytearray | memoryview | str | os.PathLike[str] | BinaryIO
"""A picture: its encoded bytes (JPEG, PNG, WebP), a path, or a file opened in binary mode."""


def reads_file(inputs: Mapping[str, object]) -> bool:
    """Tell whether reading the inputs may wait for a disk."""
    names = [spec.name for spec, reader in _READERS.items() if reader is image_bytes]
    return any(
        name in names and not isinstance(value, bytes | bytearray | memoryview)
        for name, value in inputs.items()
    )


def image_bytes(image: object, name: str, limits: Limits) -> bytes:
    """Read a picture, at most as much of it as the limit allows.

    Raises:
        InvalidInputError: it cannot be read, is empty or is over the limit.
    """
    limit = limits.max_image_bytes
    size: int | None = None
    if isinstance(image, bytes | bytearray | memoryview):
        data = bytes(image)
    elif isinstance(image, str | os.PathLike):
        data, size = _file_bytes(Path(image), name, limit)
    elif hasattr(image, "read"):
        data = _stream_bytes(image.read, name, limit)
    else:
        raise InvalidInputError(
            f"{name} is a {type(image).__name__}; give bytes, a path or an open binary file."
        )
    if not data:
        raise InvalidInputError(f"{name} is empty: it has 0 bytes. Give an encoded picture.")
    size = max(size or 0, len(data))
    if size > limit:
        raise InvalidInputError(
            f"{name} is {size / 1e6:.1f} MB; the limit is {limit / 1e6:g} MB (max_image_bytes). "
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


def text_bytes(text: object, name: str, limits: Limits) -> bytes:
    """Encode a text.

    Raises:
        InvalidInputError: it is not a string, is blank, is over the limit or is not Unicode.
    """
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


_READERS: Mapping[TensorSpec, Callable[[object, str, Limits], bytes]] = {
    IMAGE: image_bytes,
    QUESTION: text_bytes,
    TEXT: text_bytes,
}


def inputs_read(
    signature: Signature, inputs: Mapping[str, object], limits: Limits
) -> dict[str, bytes]:
    """Read and check all inputs of a task by its signature.

    Raises:
        InvalidInputError: one is missing, unknown or wrong.
    """
    wanted = [spec.name for spec in signature.inputs]
    if set(inputs) != set(wanted):
        raise InvalidInputError(
            f"the inputs are {sorted(inputs)}; this task takes exactly {sorted(wanted)}."
        )
    return {
        spec.name: _READERS[spec](inputs[spec.name], spec.name, limits) for spec in signature.inputs
    }
