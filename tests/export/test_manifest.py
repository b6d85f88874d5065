"""What a published bundle is made of."""

import json
import shutil
from pathlib import Path

import pytest

from sensorium.errors import ConfigurationError
from sensorium_export.checkpoint import Checkpoint
from sensorium_export.manifest import check_origin, manifest_path, models_in


def test_bundle_belongs_to_its_checkpoint(toy: Checkpoint, repository: Path) -> None:
    """The checkpoint that a bundle was exported from is its own."""
    check_origin(repository, "toy", toy.path)


def test_other_weights_are_named_with_the_way_out(
    toy: Checkpoint, repository: Path, tmp_path: Path
) -> None:
    """A repository older than its checkpoint is found out, and the message says what to do."""
    newer = shutil.copytree(toy.path, tmp_path / "toy")
    (newer / "model.safetensors").write_bytes(b"trained further")

    with pytest.raises(ConfigurationError) as error:
        check_origin(repository, "toy", newer)

    assert str(error.value) == (
        f"repository was made of another model.safetensors than {newer} holds. "
        f"Export it again: sensorium export {newer} --repository {repository}"
    )


def test_repository_without_a_manifest_may_be_anyones(toy: Checkpoint, tmp_path: Path) -> None:
    """What was put together by hand has no origin to check, and owns no models."""
    check_origin(tmp_path, "toy", toy.path)

    assert models_in(tmp_path, "toy") == ()


def test_models_are_those_of_the_bundle(repository: Path) -> None:
    """A published bundle owns the models that its manifest lists."""
    written = json.loads(manifest_path(repository, "toy").read_text())

    assert models_in(repository, "toy") == tuple(written["models"])
    assert "fusion" in models_in(repository, "toy")
