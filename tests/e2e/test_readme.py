"""The README's code blocks, run as they stand against a real server with the default bundle."""

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from sensorium_server.launch import Endpoints

pytestmark = pytest.mark.triton

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"^```(bash|python|text)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Example:
    """A block of code, and the lines that its output must contain."""

    language: str
    code: str
    expected: tuple[str, ...]


def examples() -> list[Example]:
    """Read the README: a `text` block is what the block before it prints, or part of it."""
    found: list[Example] = []
    for language, body in BLOCK.findall((ROOT / "README.md").read_text()):
        if language == "text":
            last = found.pop()
            found.append(Example(last.language, last.code, tuple(body.strip().splitlines())))
        else:
            found.append(Example(language, body, ()))
    return found


@pytest.mark.parametrize("number", range(len(examples())))
def test_readme_block_runs(number: int, playroom: Endpoints, tmp_path: Path) -> None:
    """Each block succeeds and prints what the README says."""
    example = examples()[number]
    http = playroom.http.removeprefix("http://")
    code = example.code.replace("localhost:8000", http).replace("localhost:8001", playroom.grpc)
    program = ["bash", "-euo", "pipefail", "-c"] if example.language == "bash" else None
    code = code.replace(".venv/bin/sensorium", f"{Path(sys.executable).parent}/sensorium")
    (tmp_path / "docs").symlink_to(ROOT / "docs")  # what a block writes stays in its own place
    done = subprocess.run(
        [*(program or [sys.executable, "-c"]), code],
        cwd=tmp_path,
        capture_output=True,
        check=False,
        text=True,
        env={**os.environ, "SENSORIUM_URL": playroom.grpc},
    )

    assert done.returncode == 0, done.stderr
    assert [line for line in example.expected if line not in done.stdout] == []


def test_readme_has_the_three_ways_to_ask() -> None:
    """The command, plain tritonclient and curl are all among the tested blocks."""
    for way in ("sensorium ask", "tritonclient", "curl"):
        asking = [e for e in examples() if way in e.code and "large star" in e.code]

        assert any("orange" in line for e in asking for line in e.expected)
