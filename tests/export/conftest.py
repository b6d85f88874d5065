"""One small checkpoint with random weights, and what it was exported to."""

from pathlib import Path

import pytest

from sensorium_export.bundle import ExportedBundle
from sensorium_export.checkpoint import Checkpoint, load
from sensorium_export.recipe import Recipe, recipe_from_checkpoint


@pytest.fixture(scope="session")
def toy(toy_bundle: tuple[Path, ExportedBundle]) -> Checkpoint:
    """A checkpoint with random weights."""
    return load(toy_bundle[0])


@pytest.fixture(scope="session")
def recipe(toy: Checkpoint) -> Recipe:
    """What that checkpoint says about serving it."""
    return recipe_from_checkpoint(toy)


@pytest.fixture(scope="session")
def exported(toy_bundle: tuple[Path, ExportedBundle]) -> ExportedBundle:
    """That checkpoint, exported; do not write into its repository."""
    return toy_bundle[1]


@pytest.fixture(scope="session")
def repository(exported: ExportedBundle) -> Path:
    """The exported repository; do not write into it."""
    return exported.repository
