"""Engines swapped into a real Triton under load, and taken back; ONNX fp32 → optimised ONNX."""

import http.client
import json
import os
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import tritonclient.grpc
from tests.e2e import picture
from tests.e2e.conftest import TIMEOUT_S, bytes_tensor
from tests.server import toy, toy_builder
from tritonclient.utils import InferenceServerException
from typer.testing import CliRunner, Result

from sensorium import Client
from sensorium._config import address_from_url
from sensorium._transports.base import Request, Tensor, transport_for
from sensorium.cli import main
from sensorium.contract import TASKS
from sensorium.errors import SensoriumError, ServerError
from sensorium_server.launch import Server
from sensorium_server.manifest import digest
from sensorium_server.settings import FREE_PORTS, load
from sensorium_server.swap.rollout import Rollout

pytestmark = pytest.mark.triton

PATIENCE_S = 120.0
SOUND = ["image_encoder", "text_decoder", "text_encoder"]
PICTURE = picture.noise()
INPUTS: dict[str, tuple[Tensor, ...]] = {
    "visual_question_answering": (
        bytes_tensor("image", PICTURE),
        bytes_tensor("question", b"what color is the large star"),
    ),
    "image_captioning": (bytes_tensor("image", PICTURE),),
    "text_embedding": (bytes_tensor("text", b"a small square"),),
}


@dataclass
class Load:
    """What a steady load saw."""

    served: Counter[str] = field(default_factory=Counter)
    failed: list[str] = field(default_factory=list)
    answers: dict[str, set[tuple[bytes, ...]]] = field(default_factory=dict)
    unready: int = 0


@contextmanager
def steady_load(server: Server) -> Iterator[Load]:
    """Ask every task over both protocols, and whether the server is ready, until the end."""
    load, stop = Load(), threading.Event()

    def ask(url: str, task: str) -> None:
        transport = transport_for(address_from_url(url), None, {})
        names = tuple(spec.name for spec in TASKS[task].outputs)
        while not stop.is_set():
            try:
                answer = transport.infer(Request(task, INPUTS[task], names, "load"), TIMEOUT_S)
                texts = [one.data for one in answer.outputs if one.dtype == "BYTES"]
                load.answers.setdefault(task, set()).add(tuple(texts))
                load.served[task] += 1
            except SensoriumError as error:
                load.failed.append(f"{task}: {error}")
        transport.close()

    def probe() -> None:
        while not stop.wait(0.05):
            load.unready += status(server, "GET", "/v2/health/ready") != http.client.OK

    where = server.endpoints
    threads = [
        threading.Thread(target=ask, args=[url, task])
        for url in (where.grpc, where.http)
        for task in INPUTS
    ]
    threads.append(threading.Thread(target=probe))
    for thread in threads:
        thread.start()
    try:
        yield load
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def status(server: Server, method: str, path: str) -> int:
    """Return the status of a plain HTTP request."""
    address = server.endpoints.http.removeprefix("http://")
    connection = http.client.HTTPConnection(address, timeout=TIMEOUT_S)
    try:
        connection.request(method, path)
        return connection.getresponse().status
    finally:
        connection.close()


def eventually(condition: Callable[[], bool], what: str) -> None:
    """Wait for something that must come."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.1)


def rollout_of(server: Server) -> Rollout:
    """Return the engines of a server."""
    assert server._rollout is not None
    return server._rollout


def swapped(server: Server) -> list[str]:
    """Return the stages that engines serve."""
    return rollout_of(server)._exchange.swapped()


@dataclass
class Place:
    """A repository that nobody may write to, a cache, and how servers over them are started."""

    repository: Path
    cache_dir: Path
    published: Mapping[str, str]
    log: list[str] = field(default_factory=list)

    def server(self, mode: str, monkeypatch: pytest.MonkeyPatch) -> Server:
        """Return a server whose builder behaves in one of its modes."""

        def command(repository: Path, bundle: str, _profile: str) -> list[str]:
            return [sys.executable, str(toy_builder.__file__), mode, str(repository), bundle]

        monkeypatch.setattr(Rollout.__init__, "__defaults__", (command,))
        flags = {**FREE_PORTS, "engines": "auto"}
        paths = {"repository": self.repository, "cache_dir": self.cache_dir}
        return Server(load({**flags, **paths}), self.log.append)


def said(place: Place, words: str) -> bool:
    """Tell whether a line of the log holds these words."""
    return any(words in line for line in list(place.log))


def state_of(folder: Path) -> dict[str, str]:
    """Return all files below a folder with their digests."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): digest(path) for path in files}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """Return a toy repository without write permission, and a cache."""
    folder = tmp_path_factory.mktemp("swap")
    repository = toy.build(folder / "repository")
    folders = [repository, *(path for path in repository.rglob("*") if path.is_dir())]
    for path in folders:
        path.chmod(0o555)
    yield Place(repository, folder / "cache", state_of(repository))
    for path in folders:
        path.chmod(0o755)


@dataclass(frozen=True)
class ColdStart:
    """What was seen of a first start under load, which leaves its engines in the cache."""

    load: Load
    log: list[str]
    at_once: list[str]
    some: list[str]
    states: Sequence[Mapping[str, str]]
    broken: Mapping[str, str]
    taken_back: Result
    others_back: Result
    again: Result
    anybody: int


@pytest.fixture(scope="module")
def cold_start(place: Place) -> ColdStart:
    """Start with an empty cache; let engines come, and take them back."""
    run = CliRunner().invoke
    where = ["--cache-dir", str(place.cache_dir)]
    with pytest.MonkeyPatch.context() as patch, place.server("mixed", patch) as server:
        at_once = swapped(server)
        with steady_load(server) as load:
            eventually(lambda: "toy: 3 of 4 models have engines" in place.log, str(place.log))
            some = swapped(server)
            states = [rollout_of(server)._running().versions(stage) for stage in SOUND]
            broken = rollout_of(server)._running().versions("fusion")
            taken_back = run(main, ["rollback", "image_encoder", *where, "--json"])
            others_back = run(main, ["rollback", "toy", *where])
            again = run(main, ["rollback", "toy", *where])
        anybody = status(server, "POST", "/v2/repository/models/fusion/unload")
        with (
            tritonclient.grpc.InferenceServerClient(server.endpoints.grpc) as client,
            pytest.raises(InferenceServerException, match="restricted"),
        ):
            client.unload_model("fusion")
    return ColdStart(
        load,
        list(place.log),
        at_once,
        some,
        states,
        broken,
        taken_back,
        others_back,
        again,
        anybody,
    )


def test_engines_come_and_go_under_load(place: Place, cold_start: ColdStart) -> None:
    """A cold start is ready at once; engines come and are rolled back, and no request fails."""
    load = cold_start.load
    assert load.failed == []
    assert load.unready == 0
    assert set(load.served) == set(INPUTS)
    assert {task: len(texts) for task, texts in load.answers.items()} == dict.fromkeys(INPUTS, 1)
    assert cold_start.at_once == []
    assert cold_start.some == SOUND
    assert all(state["2"] == "READY" for state in cold_start.states)
    assert cold_start.broken["1"] == "READY"
    refusal = "fusion: the engine (fp32 by onnxruntime) cannot be loaded"
    assert any(refusal in line for line in cold_start.log)
    assert json.loads(cold_start.taken_back.stdout) == {"rolled_back": ["image_encoder"]}
    assert cold_start.others_back.stdout.split() == ["text_decoder", "text_encoder"]
    assert cold_start.again.exit_code == 1
    assert cold_start.anybody == http.client.FORBIDDEN
    assert state_of(place.repository) == place.published
    assert list((place.cache_dir / "serving").iterdir()) == []


@pytest.mark.usefixtures("cold_start")
def test_bad_engines_are_taken_back(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second start has the cache's engines at once, and does without those that fail in any way.

    One cannot be loaded, one puts out NaN for a certain text, and then Triton dies.
    """
    (place.cache_dir / "engines" / "refused.json").unlink()
    place.log.clear()
    with place.server("fail", monkeypatch) as server, Client(server.endpoints.grpc) as client:
        at_once = swapped(server)
        assert client.embed_text("a small square") is not None
        with pytest.raises(ServerError):
            client.embed_text("a red star")
        eventually(lambda: said(place, "text_encoder: rolled back"), str(place.log))
        mended = client.embed_text("a red star")
        some = swapped(server)
        waiting = threading.Thread(target=server.wait)
        waiting.start()
        os.kill(server.pid, signal.SIGKILL)
        eventually(lambda: said(place, "ready again"), str(place.log))
        with Client(server.endpoints.http) as another:  # a gRPC channel pauses before it reconnects
            after = another.embed_text("a red star")
        left = swapped(server)
        server.request_stop()
        waiting.join()

    assert at_once == SOUND
    assert some == ["image_encoder", "text_decoder"]
    assert mended.vector.tolist() == after.vector.tolist()
    assert left == []
    assert not said(place, "building")
    reasons = json.loads((place.cache_dir / "engines" / "refused.json").read_text()).values()
    assert sorted(reason.partition(":")[0] for reason in reasons) == sorted(
        ["fusion", "image_encoder", "text_decoder", "text_decoder", "text_encoder"]
    )
