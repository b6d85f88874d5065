import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Self

import pytest
import typer
from typer.testing import CliRunner

from sensorium_server import cli
from sensorium_server.launch import Endpoints
from sensorium_server.placement import Placement
from sensorium_server.settings import Settings, flag_name

runner = CliRunner()


class FakeServer:
    """Stands in for a server that starts at once and ends at once."""

    ready_s = 1.25
    pid = 7
    placements = (Placement("text_encoder", "ONNX Runtime on CUDA"),)
    endpoints = Endpoints(
        "127.0.0.1:1",
        "http://127.0.0.1:2",
        "http://127.0.0.1:3/metrics",
        "http://127.0.0.1:4/metrics",
    )
    settings: Settings

    def __init__(self, settings: Settings) -> None:
        type(self).settings = settings

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None: ...

    def wait(self) -> None:
        """End at once."""

    def request_stop(self) -> None:
        """Do nothing."""


class FakeReplicaSet(FakeServer):
    """Stands in for one replica behind a balancer."""

    replicas = (SimpleNamespace(name="replica 0", endpoints=FakeServer.endpoints, pid=8),)

    def __init__(self, settings: Settings, check: Callable[[], None]) -> None:
        super().__init__(settings)
        check()

    def request_restart(self) -> None:
        """Do nothing."""


@pytest.fixture
def app(monkeypatch: pytest.MonkeyPatch, toy_repository: Path) -> typer.Typer:
    """Return the verb over a server that is none, in a directory with a repository."""
    monkeypatch.setattr(cli, "Server", FakeServer)
    monkeypatch.setattr(cli, "ReplicaSet", FakeReplicaSet)
    numbers = {"SIGTERM": 1, "SIGINT": 2, "SIGHUP": 3}
    monkeypatch.setattr(cli, "signal", SimpleNamespace(signal=lambda *_: None, **numbers))
    monkeypatch.chdir(toy_repository.parent)
    monkeypatch.setenv("SENSORIUM_REPOSITORY", str(toy_repository))
    made = typer.Typer()
    made.command(epilog=getattr(cli.serve, "epilog", None))(cli.serve)
    return made


def test_ready_line(app: typer.Typer) -> None:
    """The one line on stdout says how fast, where and what."""
    result = runner.invoke(app, [])

    assert result.exit_code == 0
    assert result.stdout == (
        "ready in 1.2 s · gRPC 127.0.0.1:1 · HTTP http://127.0.0.1:2 · metrics "
        "http://127.0.0.1:3/metrics and http://127.0.0.1:4/metrics · tasks: "
        "visual_question_answering, image_captioning, text_embedding, image_embedding\n"
    )


def test_ready_line_as_json(app: typer.Typer) -> None:
    """`--json` gives the same facts to programs, with the process id."""
    facts: dict[str, Any] = json.loads(runner.invoke(app, ["--json"]).stdout)

    assert facts["grpc"] == "127.0.0.1:1"
    assert facts["pid"] == 7
    assert facts["ready_s"] == 1.25
    assert "image_captioning" in facts["tasks"]
    assert facts["engines"] == {"text_encoder": "ONNX Runtime on CUDA"}


def test_log_as_json(app: typer.Typer) -> None:
    """With `--log-format json` whatever is on stderr is JSON, line by line."""
    lines = runner.invoke(app, ["--log-format", "json"]).stderr.splitlines()

    assert [json.loads(line)["source"] for line in lines] == ["launcher", "launcher"]
    assert json.loads(lines[-1])["message"] == "drained and stopped"


def test_flags_reach_the_settings(app: typer.Typer) -> None:
    """A flag on the command line is the setting of the same name."""
    runner.invoke(app, ["--grpc-port", "9001", "--max-image-bytes", "77"])

    assert FakeServer.settings.grpc_port == 9001
    assert FakeServer.settings.max_image_bytes == 77


def test_ready_line_of_replicas(app: typer.Typer) -> None:
    """Behind a balancer each replica is told too, by its metrics or by all its endpoints."""
    flags = ["--balancer", "envoy", "--replicas", "1"]
    text = runner.invoke(app, flags).stdout
    facts = json.loads(runner.invoke(app, [*flags, "--json"]).stdout)

    assert (
        " · replica 0 metrics http://127.0.0.1:3/metrics and http://127.0.0.1:4/metrics · " in text
    )
    assert facts["replicas"][0]["grpc"] == "127.0.0.1:1"
    assert facts["replicas"][0]["pid"] == 8


def test_replicas_need_a_balancer(app: typer.Typer) -> None:
    """Several replicas without a balancer are refused with the way out."""
    result = runner.invoke(app, ["--replicas", "3"])

    assert result.exit_code == 2
    assert "replicas = 3 needs something that spreads" in result.stderr
    assert "--balancer envoy" in result.stderr


def test_misuse_is_told(app: typer.Typer) -> None:
    """A bad value ends with code 2 and a message that names the flag."""
    result = runner.invoke(app, ["--http-port", "eight"])

    assert result.exit_code == 2
    assert '--http-port = "eight" is not an integer' in result.stderr


def test_help_has_every_setting_and_an_example(app: typer.Typer) -> None:
    """`--help` lists a flag for each setting, with its default, and ends with an example."""
    text = runner.invoke(app, ["--help"], env={"COLUMNS": "200", "TERM": "dumb"}).stdout

    assert [name for name in Settings.model_fields if flag_name(name) not in text] == []
    assert "Default: 8001." in text
    assert "Example: sensorium serve" in text
