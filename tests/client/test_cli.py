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

OWN = ["ask", "caption", "classify", "generate", "transcribe"]
OWN += ["listen", "watch", "draw", "embed", "search", "ready"]

EVENT_LINES = "  0.50 -  1.00 s  bell  (75%)\n  1.25 -  2.50 s  moves left  (50%)\n"

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


def test_ask_about_a_picture_and_a_sound(run: Run, server: FakeServer, picture: Path) -> None:
    """`ask --audio` sends the picture and the sound together."""
    assert run("ask", picture, "what?", "--audio", picture).stdout == "yes  (50%)\n"
    assert server.seen[0].inputs == {"image": b"star", "audio": b"star", "question": b"what?"}


def test_listen(run: Run, picture: Path) -> None:
    """`listen` prints likely sounds, an answer or the events, as it is asked."""
    assert run("listen", picture).stdout == "bell  (75%)\n"
    assert run("listen", picture, "-q", "what rings?").stdout == "a bell  (50%)\n"
    assert run("listen", picture, "--events").stdout == EVENT_LINES
    both = run("listen", picture, "--events", "--question", "what rings?")
    assert both.stdout == f"a bell  (50%)\n{EVENT_LINES}"


def test_watch(run: Run, picture: Path) -> None:
    """`watch` prints caption and actions, or what it is asked."""
    caption, action = "a red star moves left  (25%)\n", "moves left  (50%)\n"
    assert run("watch", picture).stdout == caption + action
    assert run("watch", picture, "--actions").stdout == action
    assert run("watch", picture, "--actions", "--events").stdout == action + EVENT_LINES
    assert run("watch", picture, "-q", "where?").stdout == "left  (50%)\n"


def test_what_other_bundles_do(run: Run, picture: Path) -> None:
    """`classify` prints classes with their scores, `generate` and `transcribe` a text."""
    assert run("classify", picture).stdout == "tabby, tabby cat  (75%)\ndog  (25%)\n"
    assert run("generate", "good morning").stdout == "guten Tag  (50%)\n"
    assert run("transcribe", picture).stdout == "good morning  (25%)\n"


def test_listen_and_watch_as_json(run: Run, server: FakeServer, picture: Path) -> None:
    """`--json` prints each thing asked for by its name; events need only the one file."""
    listened = json.loads(run("listen", picture, "--json").stdout)
    watched = json.loads(run("watch", picture, "--json").stdout)
    events = json.loads(run("watch", picture, "--events", "-q", "where?", "--json").stdout)

    assert listened["tags"]["tags"][1] == {"label": "bark", "score": 0.25}
    assert list(watched) == ["caption", "actions"]
    assert list(events) == ["answer", "events"]
    assert [event["label"] for event in events["events"]["events"]] == ["bell", "moves left"]
    assert server.seen[-1].inputs == {"video": b"star", "audio": b""}


def test_nothing_likely(run: Run, server: FakeServer, picture: Path) -> None:
    """Without a likely sound or any event the command says so."""
    numbers = {name: ("FP32", [1, 0], b"") for name in ("scores", "start_s", "end_s")}
    server.answer = lambda seen: (
        {"labels": ["bark", "bell"], "scores": [0.25, 0.125]}
        if seen.model == "audio_tagging"
        else {"labels": ("BYTES", [1, 0], b""), **numbers}
    )

    assert run("listen", picture).stdout == "nothing is likely; the best guess is bark\n"
    assert run("watch", picture, "--events").stdout == "no events\n"


@pytest.mark.parametrize("verb", ["listen", "watch"])
def test_plot(run: Run, verb: str, picture: Path, tmp_path: Path) -> None:
    """`--plot` draws the events that it prints; a wrong format still prints them."""
    pytest.importorskip("matplotlib")
    result = run(verb, picture, "--plot", tmp_path / "a.png")
    assert (result.exit_code, result.stdout) == (0, EVENT_LINES)
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")

    wrong = run(verb, picture, "--plot", tmp_path / "a.nonsense")
    assert (wrong.exit_code, wrong.stdout) == (1, EVENT_LINES)
    assert "error: cannot write" in wrong.stderr


def test_draw(run: Run, server: FakeServer, tmp_path: Path) -> None:
    """`draw` writes the picture, prints where, and passes its numbers on."""
    out = tmp_path / "drawing.png"
    options = ["--out", out, "--seed", 7, "--steps", 9, "--guidance-scale", 1.5]
    assert run("draw", "a red star", *options).stdout == f"{out}\n"
    assert out.read_bytes() == b"\x89PNG\xff\x00!"
    assert server.seen[0].inputs == {
        "text": b"a red star",
        "seed": 7,
        "steps": 9,
        "guidance_scale": 1.5,
    }
    assert json.loads(run("draw", "a red star", *options, "--json").stdout)["png"] == str(out)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--out", "no/such/folder/a.png"], "cannot write 'no/such/folder/a.png'"),
        (["--out", "a.png", "--steps", "0"], "steps is 0; it must lie between 1 and 100"),
        (["--out", "a.png", "--guidance-scale", "nan"], "guidance_scale is nan"),
    ],
)
def test_draw_fails_with_a_reason(run: Run, arguments: list[str], message: str) -> None:
    """What cannot be drawn or written exits 1 and says why."""
    result = run("draw", "a red star", *arguments)

    assert (result.exit_code, result.stdout) == (1, "")
    assert message in result.stderr


def test_embed(run: Run, picture: Path) -> None:
    """`embed` prints the numbers of a text, a picture, a sound or a clip."""
    assert run("embed", "a red star").stdout == "0.6 0.8 0\n"
    assert run("embed", "--image", picture).stdout == "0.8 0.6 0\n"
    assert run("embed", "--audio", picture).stdout == "0.8 0 0.6\n"
    assert run("embed", "--video", picture).stdout == "0 0.8 0.6\n"
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


def test_search_ranks_all_modalities_together(run: Run, tmp_path: Path) -> None:
    """Pictures, sounds and clips stand in one ranking, each embedded by its own task."""
    for name in ("a.mp4", "b.PNG", "c.wav", "d.txt"):
        (tmp_path / name).write_bytes(b"data")
    hits = json.loads(run("search", "a red star", tmp_path, "--json").stdout)

    found = [(Path(hit["path"]).name, round(hit["similarity"], 2)) for hit in hits]
    assert found == [("b.PNG", 0.96), ("a.mp4", 0.64), ("c.wav", 0.48)]


def test_search_skips_what_the_bundle_cannot_do(
    run: Run, server: FakeServer, tmp_path: Path
) -> None:
    """A bundle that cannot hear ranks the pictures all the same, and says what it skipped."""

    def answer(seen: Seen) -> dict[str, object]:
        if seen.model == "audio_embedding":
            raise RefusalError("NOT_FOUND", 404, "Request for unknown model: 'x' is not found")
        return dict(answer_all(seen))

    server.answer = answer
    (tmp_path / "a.wav").write_bytes(b"data")
    assert run("search", "a red star", tmp_path).exit_code == 1
    (tmp_path / "b.png").write_bytes(b"data")
    result = run("search", "a red star", tmp_path)

    assert (result.exit_code, result.stdout) == (0, f"0.960  {tmp_path}/b.png\n")
    assert f"skipped {tmp_path}/a.wav" in result.stderr


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
    """A folder without media is told, before the server is asked."""
    result = run("search", "a red star", tmp_path)

    assert result.exit_code == 1
    assert "has no pictures, sounds or clips" in result.stderr


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
        ["embed", "--audio", "x.wav", "--video", "x.mp4"],
        ["listen"],
        ["watch", "-q", "what?"],
        ["draw", "a star"],
        ["draw", "--out", "a.png"],
        ["draw", "a star", "--out", "a.png", "--seed", "one"],
        ["search", "text", "no-such-folder"],
        ["search", "text", ".", "--top-k", "0"],
        ["nonsense"],
    ],
)
def test_misuse_exits_2(run: Run, arguments: list[str]) -> None:
    """What is typed wrong exits 2 and never reaches the server."""
    assert run(*arguments).exit_code == 2


@pytest.mark.parametrize("verb", OWN)
def test_help_ends_with_an_example_that_parses(
    run: Run, verb: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The example in each verb's help is a call that the verb understands."""
    monkeypatch.chdir(tmp_path)
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
