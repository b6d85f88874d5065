"""Pictures as files of every kind, good and bad, for the tests on a real server."""

import io
import struct
import zlib

import numpy as np
from PIL import Image


def noise(
    seed: int = 0, size: tuple[int, int] = (48, 36), kind: str = "PNG", **options: object
) -> bytes:
    """Return a random picture's file."""
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return encoded(Image.fromarray(pixels), kind, **options)


def encoded(picture: Image.Image, kind: str, **options: object) -> bytes:
    """Return a picture's file."""
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def bomb(width: int = 30_000, height: int = 30_000) -> bytes:
    """Return a valid grey PNG of few kilobytes that would fill gigabytes when decoded."""
    packer = zlib.compressobj(9)
    row = bytes(1 + (width + 7) // 8)
    body = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")
    )


def drawing() -> Image.Image:
    """Return a picture that is different in each corner, with few colours."""
    made = Image.new("RGB", (32, 24), (200, 30, 40))
    made.paste((20, 180, 60), (16, 0, 32, 12))
    made.paste((30, 40, 210), (0, 12, 16, 24))
    return made
