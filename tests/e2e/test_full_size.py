"""Checkpoints of real size with random weights: `make test ARGS="-m full_size"`, minutes each."""

import json
from pathlib import Path

import pytest
from tests import families
from typer.testing import CliRunner

from sensorium.cli import main

pytestmark = [pytest.mark.triton, pytest.mark.slow, pytest.mark.full_size]


@pytest.mark.parametrize("name", ["clip_vit_b32", "blip_vqa_base"])
def test_full_size_is_exported_and_proven(tmp_path: Path, name: str) -> None:
    """By two commands, a checkpoint of real size becomes a bundle that answers as the library."""
    directory = getattr(families, name)(tmp_path / name)
    repository = tmp_path / "models"

    exported = CliRunner().invoke(main, ["export", str(directory), "--repository", str(repository)])
    assert exported.exit_code == 0, exported.output
    options = ["--repository", str(repository), "--count", "4", "--json"]
    verified = CliRunner().invoke(main, ["verify", str(directory), *options])

    assert verified.exit_code == 0, verified.output
    assert json.loads(verified.stdout)["passed"]
