"""Stages in int8 and bf16 through the real Triton: what holds its budget is served, no other."""

import json
from pathlib import Path

import pytest
from tests import families
from tests.export.test_precision import needs_bf16
from typer.testing import CliRunner, Result

from sensorium.cli import main

pytestmark = pytest.mark.triton

COUNT = 20


def run(*arguments: object) -> Result:
    """Run the `sensorium` command."""
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def test_int8_that_keeps_its_budget_is_proven(tmp_path: Path) -> None:
    """The card has shares of agreement for a bundle of which a stage drifts a little."""
    directory, models = families.clip(tmp_path / "clip"), tmp_path / "models"
    exported = run("export", directory, "--repository", models, "--precision", "text_encoder=int8")
    assert exported.exit_code == 0, exported.output

    verified = run("verify", directory, "--repository", models, "--count", COUNT, "--json")

    card = json.loads(verified.stdout)
    assert verified.exit_code == 0, verified.output
    assert card["lowered"].keys() == {"text_encoder"}
    assert card["tasks"]["text_embedding"]["gRPC"]["agreement"]["rank"] > 0.8
    assert card["stages"]["text_encoder"]["alone"]["min_stage_cosine"] < 1
    assert card["stages"]["image_encoder"]["alone"]["min_stage_cosine"] is None


@needs_bf16
def test_bf16_that_changes_answers_is_refused(tmp_path: Path) -> None:
    """A network whose answers hang on small differences fails by its stage's name, unserved."""
    directory = families.vit(tmp_path / "vit", spread=1.0)
    models = tmp_path / "models"
    exported = run("export", directory, "--repository", models, "--precision", "bf16")
    assert exported.exit_code == 0, exported.output

    verified = run("verify", directory, "--repository", models, "--count", COUNT)
    served = run("serve", "--repository", models)

    assert verified.exit_code == 1
    assert "image_encoder/" in verified.stderr
    assert "cosine" in verified.stderr
    assert served.exit_code != 0
    assert "differs from PyTorch" in served.output
