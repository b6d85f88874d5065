"""A tree of files, made again of links: little is copied, and the original is not written to."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

_SMALL_BYTES = 65_536
"""What is copied: configs, records and code, which somebody may write to in place."""


def link_tree(source: Path, target: Path, *, without: Callable[[Path], bool]) -> None:
    """Make a tree again, with links for large files, all but those that are to be left out.

    Args:
        source: The original; symbolic links in it are followed.
        target: Is made; must not exist.
        without: Told a path in the original, whether to leave it out.
    """
    target.mkdir(parents=True)
    for entry in sorted(source.iterdir()):
        if without(entry):
            continue
        if entry.is_dir():
            link_tree(entry, target / entry.name, without=without)
        elif entry.stat().st_size <= _SMALL_BYTES:
            shutil.copyfile(entry, target / entry.name)
        else:
            link(entry, target / entry.name)


def link(source: Path, target: Path) -> None:
    """Link one file: hard, which outlives a new export of the original, else symbolically."""
    original = source.resolve()
    try:
        os.link(original, target)
    except OSError:
        # Another file system, or a file that belongs to somebody else.
        target.symlink_to(original)


def remove_tree(path: Path) -> None:
    """Remove a tree, as far as it is there."""
    shutil.rmtree(path, ignore_errors=True)
