from pathlib import Path

import pytest
from tests.server import toy

from sensorium.errors import ConfigurationError, ModelNotReadyError
from sensorium_server import launch
from sensorium_server.launch import Server, check_repository, tasks_of
from sensorium_server.settings import FREE_PORTS, load


def test_tasks_are_the_ensembles(toy_repository: Path) -> None:
    """The tasks of a repository are its ensembles, in the contract's order, its own last."""
    assert tasks_of(toy_repository) == list(toy.ENSEMBLES)


def test_own_ensembles_come_last(tmp_path: Path) -> None:
    """An ensemble that the contract does not know is a task too."""
    for name in ("zebra", "image_captioning"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.pbtxt").write_text('platform: "ensemble"\n')

    assert tasks_of(tmp_path) == ["image_captioning", "zebra"]


def test_empty_repository_is_refused(tmp_path: Path) -> None:
    """A directory without models is refused with both ways out."""
    with pytest.raises(ConfigurationError, match=r"holds no Triton model .*sensorium export"):
        check_repository(tmp_path, print)


def test_repository_without_manifest_is_said(tmp_path: Path) -> None:
    """Artefacts that no manifest vouches for are served, and that is said."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "config.pbtxt").touch()
    log: list[str] = []

    check_repository(tmp_path, log.append)

    assert log == [f"{tmp_path} has no manifest: its artefacts are served unchecked."]


def test_endpoints_of_ipv6(tmp_path: Path) -> None:
    """An IPv6 address stands in brackets."""
    assert Server(load({"host": "::", "repository": tmp_path})).endpoints.grpc == "[::1]:0"


def test_stopping_what_never_started_is_nothing(tmp_path: Path) -> None:
    """A server that was never started can be stopped, and has no process id."""
    server = Server(load({"repository": tmp_path}))
    server.request_stop()
    server.stop()

    with pytest.raises(RuntimeError, match="not started"):
        _ = server.pid


def test_stop_before_the_launch_is_heeded(
    toy_repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Told to stop while it still checks files, a server does not launch Triton any more."""
    monkeypatch.setattr(launch, "runtime", lambda *_: None)
    server = Server(load({"repository": toy_repository, **FREE_PORTS}))
    server.request_stop()

    with pytest.raises(ModelNotReadyError, match="told to stop"):
        server.start()


def test_metrics_may_have_an_address_of_their_own(tmp_path: Path) -> None:
    """Metrics are reached at `metrics_address`, requests at `host`."""
    settings = load({"metrics_address": "0.0.0.0", "host": "::1", "repository": tmp_path})
    endpoints = Server(settings).endpoints

    assert endpoints.grpc == "[::1]:0"
    assert endpoints.metrics == "http://127.0.0.1:0/metrics"
