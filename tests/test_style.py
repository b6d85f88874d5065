"""Style and types hold everywhere: the same targets that people run."""

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
@pytest.mark.parametrize("target", ["lint", "type"])
def test_make_target_passes(target: str) -> None:
    """`make lint` and `make type` find nothing."""
    done = subprocess.run(
        ["make", "--no-print-directory", target],
        cwd=ROOT,
        capture_output=True,
        check=False,
        text=True,
    )

    assert done.returncode == 0, done.stdout + done.stderr
