"""One small checkpoint with random weights, exported once for all tests of this folder."""

from pathlib import Path

import pytest

from sensorium_export.bundle import ExportedBundle, export_bundle
from sensorium_export.checkpoint import Checkpoint
from sensorium_export.recipe import Recipe, recipe_from_checkpoint
from sensorium_export.testing import toy_checkpoint


@pytest.fixture(scope="session")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    """A checkpoint with random weights."""
    return toy_checkpoint(tmp_path_factory.mktemp("checkpoints") / "toy")


@pytest.fixture(scope="session")
def recipe(toy: Checkpoint) -> Recipe:
    """What that checkpoint says about serving it."""
    return recipe_from_checkpoint(toy)


@pytest.fixture(scope="session")
def exported(toy: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> ExportedBundle:
    """That checkpoint, exported; do not write into its repository."""
    return export_bundle(toy.path, tmp_path_factory.mktemp("exported") / "repository")


@pytest.fixture(scope="session")
def repository(exported: ExportedBundle) -> Path:
    """The exported repository; do not write into it."""
    return exported.repository
