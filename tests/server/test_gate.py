"""The gate: which bundles are proven, and what is said of those that are not."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from sensorium.cli import main
from sensorium.errors import ConfigurationError
from sensorium_server.gate import Verdict, check_verified, write_verdict

PASSED = Verdict(passed=True, inputs=9, failures=())
FAILED = Verdict(passed=False, inputs=9, failures=("fusion/fused_tokens (alone): wrong",))


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository with the manifest of one bundle."""
    (tmp_path / "mine.manifest.json").write_text(json.dumps({"files": {}}))
    return tmp_path


def test_proven_bundle_is_let_through(repository: Path) -> None:
    """A card that passed and is of this manifest opens the gate."""
    write_verdict(repository, "mine", PASSED)

    check_verified(repository)


def test_repository_without_bundles_is_let_through(tmp_path: Path) -> None:
    """Models that somebody wrote by hand have nothing to be proven against."""
    check_verified(tmp_path)


def test_card_needs_a_manifest(tmp_path: Path) -> None:
    """Nothing is written of a bundle that was not exported."""
    write_verdict(tmp_path, "mine", PASSED)

    assert not list(tmp_path.iterdir())


def exported_anew(repository: Path) -> None:
    """Change what is published after it was proven."""
    write_verdict(repository, "mine", PASSED)
    (repository / "mine.manifest.json").write_text(json.dumps({"files": {"a": "b"}}))


UNPROVEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "no card": (lambda _path: None, "mine has not been verified: mine.card.json is missing"),
    "no JSON": (lambda path: (path / "mine.card.json").write_text("{"), "cannot be read"),
    "of another export": (exported_anew, "exported anew since it was verified"),
    "failed": (
        lambda path: write_verdict(path, "mine", FAILED),
        "differs from PyTorch:\n  fusion/fused_tokens",
    ),
}


@pytest.mark.parametrize("case", UNPROVEN)
def test_unproven_bundle_is_refused(repository: Path, case: str) -> None:
    """Whatever the reason, it is told with the bundle's name and the way out."""
    spoil, message = UNPROVEN[case]
    spoil(repository)

    with pytest.raises(ConfigurationError, match=message) as caught:
        check_verified(repository)

    assert "sensorium verify" in str(caught.value)
    assert "--allow-unverified" in str(caught.value)


def test_serve_refuses_and_can_be_told_otherwise(repository: Path) -> None:
    """`sensorium serve` exits with 2; with `--allow-unverified` it warns, and goes on."""
    refused = CliRunner().invoke(main, ["serve", "--repository", str(repository)])
    allowed = CliRunner().invoke(
        main, ["serve", "--repository", str(repository), "--allow-unverified"]
    )

    assert refused.exit_code == 2
    assert "mine has not been verified" in refused.stderr
    assert "warning: the bundle mine has not been verified" in allowed.stderr
    assert "holds no Triton model" in allowed.stderr
