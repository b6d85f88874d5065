"""Ranking pictures by a text: cosine similarity in the shared space."""

from collections.abc import Iterable
from pathlib import Path

from sensorium.results import Embedding

PICTURE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff"})


def is_picture_name(path: Path) -> bool:
    """Tell by its name whether a file is a picture; hidden files are not."""
    return path.suffix.lower() in PICTURE_SUFFIXES and not path.name.startswith(".")


def ranked(query: Embedding, found: Iterable[tuple[Path, Embedding]]) -> list[tuple[float, Path]]:
    """Sort pictures by their similarity to the query, best first; ties by path."""
    scored = [(query.similarity(embedding), path) for path, embedding in found]
    return sorted(scored, key=lambda hit: (-hit[0], hit[1]))
