"""The examples, run as their pages say against a real server with the default bundle."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import sensorium
from sensorium_server.launch import Endpoints

ROOT = Path(__file__).parents[2]
PROGRAMS = sorted((ROOT / "examples").glob("*.py"))
RUN = re.compile(
    r"^```bash\n\.venv/bin/python ([^\n]*)\n```\n\n```text\n(.*?)^```$", re.MULTILINE | re.DOTALL
)
SIMILARITY = re.compile(r"-?\d\.\d{3}")
MAX_LINES = 120


def runs() -> list[tuple[str, str]]:
    """Read the pages: a command, and all that it prints."""
    pages = sorted((ROOT / "docs/examples").glob("*.md"))
    return [found for page in pages for found in RUN.findall(page.read_text())]


def run(command: str, url: str, answers: str = "") -> str:
    """Run an example from the root of the project; return what it prints."""
    done = subprocess.run(
        [sys.executable, *command.split(), "--url", url],
        cwd=ROOT,
        input=answers,
        capture_output=True,
        check=False,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.triton
@pytest.mark.parametrize("protocol", ["grpc", "http"])
@pytest.mark.parametrize(("command", "printed"), runs())
def test_example_prints_what_its_page_says(
    playroom: Endpoints, protocol: str, command: str, printed: str
) -> None:
    """Each example succeeds over both protocols and prints its page's lines, similarities aside."""
    output = run(command, getattr(playroom, protocol))

    assert SIMILARITY.sub("#", output) == SIMILARITY.sub("#", printed)


@pytest.mark.triton
def test_pupils_answer_for_themselves(playroom: Endpoints) -> None:
    """Without --demo the answers come from the terminal, in any case, and are checked."""
    command = "examples/education.py --lesson picture"
    output = run(command, playroom.grpc, "Red\nthree\nyes\nright\n")

    assert "wrong, it is 2" in output
    assert output.endswith("3 of 4 correct\n")


def test_every_example_has_a_page() -> None:
    """Each program is run by the page of its name, and the index leads there."""
    index = (ROOT / "docs/examples/README.md").read_text()
    for program in PROGRAMS:
        page = ROOT / "docs/examples" / f"{program.stem}.md"
        assert f".venv/bin/python examples/{program.name}" in page.read_text()
        assert f"({page.name})" in index


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda path: path.stem)
def test_examples_use_the_public_client_alone(program: Path) -> None:
    """An example imports only what the package exports, and is short enough to read at once."""
    text = program.read_text()
    imported = {
        (node.module, alias.name)
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("sensorium")
        for alias in node.names
    }

    assert imported
    assert imported <= {("sensorium", name) for name in sensorium.__all__}
    assert "import sensorium" not in text
    assert len(text.splitlines()) <= MAX_LINES


def test_the_toy_says_that_it_is_one() -> None:
    """The triage says in code, output and page that it is no medical device."""
    program = (ROOT / "examples/triage.py").read_text()

    assert "THIS IS A TOY, NOT A MEDICAL DEVICE" in program
    assert "print(WARNING)" in program
    assert (
        "**This is a toy, not a medical device.**" in (ROOT / "docs/examples/triage.md").read_text()
    )
