import json
import re
import shlex
from collections.abc import Callable
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
from tests.client.conftest import FakeServer, RefusalError, Seen, answer_all
from typer.testing import CliRunner, Result

from sensorium import _plugin
from sensorium.cli import main

OWN = ["ask", "caption", "embed", "search", "ready"]

Run = Callable[..., Result]


@pytest.fixture
def run(server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run the command against the server that SENSORIUM_URL names."""
    monkeypatch.setenv("SENSORIUM_URL", server.url)
    return lambda *arguments: CliRunner().invoke(main, [str(each) for each in arguments])


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    """Write something that the fake server takes for a picture."""
    path = tmp_path / "star.png"
    path.write_bytes(b"star")
    return path


def use_plugins(monkeypatch: pytest.MonkeyPatch, **points: str) -> None:
    """Replace the installed plugins."""
    found = {n: EntryPoint(n, value, _plugin.GROUP) for n, value in points.items()}
    monkeypatch.setattr(_plugin, "_plugins", lambda: found)


def plugin(count: int = 1) -> None:
    """Count to a number."""
    print(f"counted {count}")  # noqa: T201 - what the verb is for


def test_ask(run: Run, picture: Path) -> None:
    """`ask` prints the answer with its probability."""
    result = run("ask", picture, "what color?")

    assert (result.exit_code, result.stdout, result.stderr) == (0, "red  (50%)\n", "")


def test_ask_as_json(run: Run, picture: Path) -> None:
    """`--json` prints everything, timings included."""
    value = json.loads(run("ask", picture, "what color?", "--json").stdout)

    assert (value["text"], value["score"]) == ("red", 0.5)
    assert value["timings"]["attempts"] == 1


def test_caption(run: Run, picture: Path) -> None:
    """`caption` prints what is on the picture."""
    assert run("caption", picture).stdout == "a red star  (25%)\n"


def test_embed(run: Run, picture: Path) -> None:
    """`embed` prints the numbers of a text or of a picture."""
    assert run("embed", "a red star").stdout == "0.6 0.8 0\n"
    assert run("embed", "--image", picture).stdout == "0.8 0.6 0\n"
    assert len(json.loads(run("embed", "a red star", "--json").stdout)["vector"]) == 3


def test_search_ranks_a_folder(run: Run, server: FakeServer, tmp_path: Path) -> None:
    """`search` ranks deep, skips what is no picture with a note, and keeps to --top-k."""
    vectors = {b"best": [0.6, 0.8, 0.0], b"good": [0.8, 0.6, 0.0], b"poor": [0.0, 0.0, 1.0]}

    def answer(seen: Seen) -> dict[str, object]:
        if seen.model == "text_embedding":
            return {"embedding": [0.6, 0.8, 0.0]}
        if seen.inputs["image"] not in vectors:
            raise RefusalError("INVALID_ARGUMENT", 400, "this is not an image")
        return {"embedding": vectors[seen.inputs["image"]]}

    (tmp_path / "deep").mkdir()
    names = {"a.png": b"poor", "deep/b.JPG": b"best", "c.webp": b"good", "d.png": b"broken"}
    for name, data in {**names, "e.png": b"", "notes.txt": b"best", ".f.png": b"best"}.items():
        (tmp_path / name).write_bytes(data)
    server.answer = answer
    result = run("search", "a red star", tmp_path, "--top-k", 2)

    assert result.exit_code == 0
    assert result.stdout == f"1.000  {tmp_path}/deep/b.JPG\n0.960  {tmp_path}/c.webp\n"
    assert f"skipped {tmp_path}/d.png: this is not an image" in result.stderr
    assert f"skipped {tmp_path}/e.png: image is empty" in result.stderr
    hits = json.loads(run("search", "a red star", tmp_path, "--json").stdout)
    assert [Path(hit["path"]).name for hit in hits] == ["b.JPG", "c.webp", "a.png"]


def test_search_fails_when_the_server_does(run: Run, server: FakeServer, picture: Path) -> None:
    """A picture that failed through no fault of its own makes the exit code 1."""

    def answer(seen: Seen) -> dict[str, object]:
        if seen.model == "image_embedding":
            raise RefusalError("INTERNAL", 500, "internal error")
        return dict(answer_all(seen))

    server.answer = answer
    result = run("search", "a red star", picture.parent)

    assert result.exit_code == 1
    assert "internal error" in result.stderr


def test_search_in_an_empty_folder(run: Run, tmp_path: Path) -> None:
    """A folder without pictures is told, before the server is asked."""
    result = run("search", "a red star", tmp_path)

    assert result.exit_code == 1
    assert "has no pictures" in result.stderr


def test_ready(run: Run, server: FakeServer) -> None:
    """`ready` tells by its exit code whether the server would answer."""
    assert run("ready").exit_code == 0
    assert json.loads(run("ready", "--json").stdout) == {"ready": True, "url": server.url}
    assert run("ready", "--wait-s", 5, "--task", "text_embedding").exit_code == 0
    server.ready = lambda: False
    assert run("ready").exit_code == 1
    waited = run("ready", "--wait-s", 0.2, "--json")
    assert waited.exit_code == 1
    assert json.loads(waited.stdout)["ready"] is False
    assert "not ready" in waited.stderr


def test_errors_are_one_line_with_the_request(run: Run, server: FakeServer, picture: Path) -> None:
    """What fails is told on stderr with the request id, without a traceback, and exits 1."""

    def answer(_: Seen) -> dict[str, object]:
        raise RefusalError("INTERNAL", 500, "internal error")

    server.answer = answer
    result = run("ask", picture, "what color?")

    assert (result.exit_code, result.stdout) == (1, "")
    assert re.fullmatch(
        r"error: the server at \S+ failed: internal error\. \(request \w{32}\)\n", result.stderr
    )


@pytest.mark.parametrize(
    "arguments",
    [
        ["ask"],
        ["ask", "x.png", "what?", "--url", "nonsense"],
        ["ask", "x.png", "what?", "--timeout-s", "0"],
        ["embed"],
        ["embed", "text", "--image", "x.png"],
        ["search", "text", "no-such-folder"],
        ["search", "text", ".", "--top-k", "0"],
        ["nonsense"],
    ],
)
def test_misuse_exits_2(run: Run, arguments: list[str]) -> None:
    """What is typed wrong exits 2 and never reaches the server."""
    assert run(*arguments).exit_code == 2


@pytest.mark.parametrize("verb", OWN)
def test_help_ends_with_an_example_that_parses(run: Run, verb: str, tmp_path: Path) -> None:
    """The example in each verb's help is a call that the verb understands."""
    text = run(verb, "--help").stdout
    [example] = re.findall(rf"Example: sensorium ({verb} .*)", text)
    arguments = shlex.split(example.split(";")[0].strip())
    changed = [str(tmp_path) if each.endswith("/") else each for each in arguments]

    assert run(*changed).exit_code != 2
    assert text.strip().endswith(example.strip())


def test_plugins_are_verbs(monkeypatch: pytest.MonkeyPatch) -> None:
    """An entry point becomes a verb with its options and help."""
    use_plugins(monkeypatch, count=f"{__name__}:plugin")
    monkeypatch.setattr(EntryPoint, "load", lambda _: plugin)

    assert CliRunner().invoke(main, ["count", "--count", "3"]).stdout == "counted 3\n"
    assert re.search(r"count +Count to a number", CliRunner().invoke(main, ["--help"]).stdout)


def test_a_missing_extra_is_an_instruction(monkeypatch: pytest.MonkeyPatch) -> None:
    """A verb whose extra is not installed still shows, and says what to install."""
    use_plugins(monkeypatch, serve="sensorium_server.no_such_module:serve")
    help_text = " ".join(CliRunner().invoke(main, ["--help"]).stdout.replace("│", " ").split())
    result = CliRunner().invoke(main, ["serve", "--port", "1"])

    assert "pip install 'sensorium[server]'" in help_text
    assert result.exit_code == 1
    assert "Install it with: pip install 'sensorium[server]'" in result.stderr


def test_version() -> None:
    """`--version` prints the version."""
    assert re.fullmatch(
        r"sensorium \d+\.\d+\.\d+\n", CliRunner().invoke(main, ["--version"]).stdout
    )
