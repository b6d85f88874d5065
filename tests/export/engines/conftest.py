"""The default bundle as it is committed: nothing is exported here."""

import os
import shutil
from pathlib import Path

import pytest

from sensorium_export.source import Source, open_source

CHECKPOINT = Path("checkpoints/playroom")


@pytest.fixture(scope="session")
def source() -> Source:
    """The default bundle's checkpoint."""
    return open_source(CHECKPOINT)


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """Its repository, to write into: files are replaced whole, so links will do."""
    return Path(shutil.copytree("model_repository", tmp_path / "models", copy_function=linked))


def linked(source: str, target: str) -> None:
    """Link a file, or copy it where the file system cannot."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
