"""The verbs `sensorium export` and `sensorium verify`."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from sensorium.cli import main
from sensorium.errors import ConfigurationError
from sensorium_export import bundle, verify
from sensorium_export.bundle import ExportedBundle
from sensorium_export.checkpoint import Checkpoint
from sensorium_export.ensembles import ENSEMBLES, stages_of
from sensorium_export.judgement import Failure, Figures
from sensorium_export.parity_card import STAGE_WAYS, TASK_WAYS, Card
from sensorium_export.tolerance import Tolerance, Tolerances

NATIVE = stages_of(ENSEMBLES.values())

TOLERANCE = Tolerance(stage=1e-5, score=1e-4, embedding=1e-5, cosine=0.999999, time_s=1e-3, level=2)


def run(*arguments: str | Path) -> Result:
    """Run the command as a shell would."""
    return CliRunner().invoke(main, [str(one) for one in arguments])


def card_of(figures: Figures) -> Card:
    """Return a card with one row of each kind."""
    return Card(
        "toy",
        Tolerances(TOLERANCE),
        tasks={"image_captioning": dict.fromkeys(TASK_WAYS, figures)},
        stages={"text_decoder": dict.fromkeys(STAGE_WAYS, figures)},
    )


PASSED = card_of(Figures(inputs=2, different=2, equal=2, max_score=1e-7))
FAILED = card_of(
    Figures(inputs=2, equal=1, failures=[Failure("fusion/fused_tokens", "alone", "7", "wrong")])
)


@pytest.fixture
def exporting(monkeypatch: pytest.MonkeyPatch, exported: ExportedBundle) -> list[Any]:
    """Let the export be done already; collect what it was asked for."""
    asked: list[Any] = []

    def pretend(
        checkpoint: Path,
        repository: Path,
        advance: Any,  # noqa: ANN401
        *,
        bundle: str,
        precision: Sequence[str],
    ) -> ExportedBundle:
        asked.append((checkpoint, repository, bundle, *precision))
        advance("published", 1)
        return exported

    monkeypatch.setattr(bundle, "export_bundle", pretend)
    return asked


@pytest.fixture
def verifying(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Let the next verification find the card that is put last."""
    cards: list[Any] = []

    def pretend(options: verify.Options, advance: Any) -> Card:  # noqa: ANN401
        advance("everything")
        card: Card = cards.pop()
        cards.append(options)
        return card

    monkeypatch.setattr(verify, "verify", pretend)
    return cards


def test_export_says_what_it_did(toy: Checkpoint, exporting: list[Any], tmp_path: Path) -> None:
    """Each graph's agreement with PyTorch is printed, and where the models are."""
    result = run("export", toy.path, "--repository", tmp_path, "--bundle", "toy_again")

    assert result.exit_code == 0
    assert exporting == [(toy.path, tmp_path, "toy_again")]
    assert "text_encoder: 20 outputs like PyTorch's, at most" in result.stdout
    assert f"toy: {len(NATIVE) + len(ENSEMBLES)} models in {tmp_path}" in result.stdout


@pytest.mark.usefixtures("exporting")
def test_export_prints_its_manifest_as_json(toy: Checkpoint) -> None:
    """A program gets the whole manifest, and nothing else, on stdout."""
    result = run("export", toy.path, "--json")

    assert json.loads(result.stdout)["bundle"] == "toy"


def test_failed_export_exits_with_1(toy: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    """What went wrong is said on stderr, without a traceback."""

    def refuse(*_: object, **__: object) -> None:
        raise ConfigurationError("fusion differs from PyTorch; nothing was published")

    monkeypatch.setattr(bundle, "export_bundle", refuse)

    result = run("export", toy.path)

    assert result.exit_code == 1
    assert "error: fusion differs from PyTorch" in result.stderr


def test_export_of_nothing_is_misuse(tmp_path: Path) -> None:
    """A checkpoint that is not there exits with 2."""
    assert run("export", tmp_path / "nowhere").exit_code == 2


def test_verify_prints_the_card(toy: Checkpoint, verifying: list[Any], tmp_path: Path) -> None:
    """A pass is a table, exit code 0, and the card as Markdown where it was asked for."""
    verifying.append(PASSED)

    result = run("verify", toy.path, "--count", "2", "--card", tmp_path / "card.md")

    assert result.exit_code == 0
    assert "image_captioning" in result.stdout
    assert (tmp_path / "card.md").read_text().startswith("**Every answer is PyTorch's.**")
    assert verifying[0].count == 2


def test_verify_fails_with_the_place(toy: Checkpoint, verifying: list[Any]) -> None:
    """A failure names stage, output and input, and exits with 1."""
    verifying.append(FAILED)

    result = run("verify", toy.path)

    assert result.exit_code == 1
    assert "fusion/fused_tokens (alone) for the input '7': wrong" in result.stderr


def test_verify_prints_json(toy: Checkpoint, verifying: list[Any]) -> None:
    """A program gets every figure."""
    verifying.append(PASSED)

    result = run("verify", toy.path, "--json")

    assert json.loads(result.stdout)["passed"] is True


def test_verify_needs_both_addresses(toy: Checkpoint) -> None:
    """Half a running server is misuse."""
    result = run("verify", toy.path, "--grpc", "localhost:8001")

    assert result.exit_code == 2
    assert "both --grpc and --http" in result.stderr


@pytest.mark.parametrize("verb", ["export", "verify"])
def test_help_ends_with_an_example(verb: str) -> None:
    """Whoever asks for help gets a line to copy."""
    result = run(verb, "--help")

    assert result.exit_code == 0
    assert f"Example: sensorium {verb} checkpoints/playroom" in result.stdout


def test_verify_takes_a_bundles_name(
    toy: Checkpoint,
    verifying: list[Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A name stands for the directory here, or among the checkpoints, that is called so."""
    (tmp_path / "checkpoints").mkdir()
    shutil.copytree(toy.path, tmp_path / "checkpoints" / "Toy-2")
    monkeypatch.chdir(tmp_path)
    verifying.append(PASSED)

    assert run("verify", "toy_2").exit_code == 0
    assert verifying[-1].checkpoint == Path("checkpoints/Toy-2")
    assert run("verify", "toy_3").exit_code == 2
