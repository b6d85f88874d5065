"""Ranking files by a text: cosine similarity in the space that all modalities share."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType

from sensorium.results import Embedding

SUFFIXES: Mapping[str, frozenset[str]] = MappingProxyType(
    {
        "image": frozenset({".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff"}),
        "audio": frozenset({".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3"}),
        "video": frozenset({".mp4", ".m4v", ".mov", ".webm", ".mkv", ".avi"}),
    }
)
"""The modality that a file's name tells."""


def modality_of(path: Path) -> str | None:
    """Tell by its name whether a file is a picture, a sound or a clip; hidden files are none."""
    if path.name.startswith("."):
        return None
    suffix = path.suffix.lower()
    return next((name for name, suffixes in SUFFIXES.items() if suffix in suffixes), None)


def ranked(query: Embedding, found: Iterable[tuple[Path, Embedding]]) -> list[tuple[float, Path]]:
    """Sort files by their similarity to the query, best first; ties by path."""
    scored = [(query.similarity(embedding), path) for path, embedding in found]
    return sorted(scored, key=lambda hit: (-hit[0], hit[1]))
