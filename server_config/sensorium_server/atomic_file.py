"""Files that appear whole or not at all: written under another name beside, then renamed."""

import os
from pathlib import Path


def write_bytes(path: Path, data: bytes) -> None:
    """Put a file in place; whoever reads meanwhile finds the old one or the new one, whole."""
    staged = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        staged.write_bytes(data)
        staged.replace(path)
    finally:
        staged.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Do the same with a text, in UTF-8."""
    write_bytes(path, text.encode())
