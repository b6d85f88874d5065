"""What does it cost to measure every request? Two servers side by side, with and without.

Both serve the same repository on the same machine. In alternating rounds each is asked the same
questions, and the CPU time of all its processes, its launcher's too, is divided by the requests:
on a machine that others use as well, CPU time is steadier than latency, which is shown beside it.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import psutil

from harness import machine
from sensorium import Client
from sensorium_server.settings import FREE_PORTS, flag_name

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results/telemetry_overhead.json"
TASKS = ("visual_question_answering", "text_embedding")
QUESTION = "what color is the star?"
CONCURRENCY = 4
TIMEOUT_S = 120.0
SPANS_S = 2.0
_RECORDS = 20_000
_RECORDER = f"""
import time
from sensorium_server.recorder import Recorder
recorder = Recorder("stage")
begin = time.perf_counter()
for _ in range({_RECORDS}):
    recorder.ran(4, 0.001)
print((time.perf_counter() - begin) / {_RECORDS} * 1e6)
"""


@dataclass(frozen=True, slots=True)
class Round:
    """What a request cost in one round: CPU of the server, and time until the answer."""

    cpu_ms: float
    latency_ms: float


@contextmanager
def served(repository: Path, cache: Path, *flags: str) -> Iterator[tuple[Client, psutil.Process]]:
    """Run `sensorium serve` as a process of its own; yield a client and the process."""
    free = [word for name in FREE_PORTS for word in (flag_name(name), "0")]
    sensorium = str(Path(sys.executable).with_name("sensorium"))
    command = [sensorium, "serve", "--json", *free, *flags]
    place = ["--repository", str(repository), "--cache-dir", str(cache)]
    with subprocess.Popen([*command, *place], stdout=subprocess.PIPE, text=True) as process:
        try:
            line = process.stdout.readline() if process.stdout else ""
            if not line:
                raise SystemExit("the server did not start; see its lines above")
            with Client(json.loads(line)["grpc"], timeout_s=TIMEOUT_S) as client:
                yield client, psutil.Process(process.pid)
        finally:
            process.terminate()


def cpu_s(process: psutil.Process) -> float:
    """Return the CPU time of a process and all below it, seconds."""
    times = [each.cpu_times() for each in (process, *process.children(recursive=True))]
    return float(sum(each.user + each.system for each in times))


def measure(
    client: Client, process: psutil.Process, task: str, picture: bytes, requests: int
) -> Round:
    """Send requests, a few at a time, and wait until their spans are counted too."""

    def once(_: int) -> float:
        begin = time.perf_counter()
        if task == "text_embedding":
            client.embed_text(QUESTION)
        else:
            client.ask(picture, QUESTION)
        return time.perf_counter() - begin

    before = cpu_s(process)
    with ThreadPoolExecutor(CONCURRENCY) as pool:
        latencies = list(pool.map(once, range(requests)))
    time.sleep(SPANS_S)
    return Round((cpu_s(process) - before) / requests * 1e3, median(latencies) * 1e3)


def compare(repository: Path, picture: bytes, rounds: int, requests: int) -> dict[str, Any]:
    """Measure both servers in alternating rounds; every second round in the opposite order."""
    figures: dict[str, dict[str, list[Round]]] = {
        task: {"with": [], "without": []} for task in TASKS
    }
    with ExitStack() as stack:
        cache = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        servers = {
            "with": stack.enter_context(served(repository, cache, "--request-metrics")),
            "without": stack.enter_context(served(repository, cache)),
        }
        for task in TASKS:
            for client, process in servers.values():
                measure(client, process, task, picture, CONCURRENCY)
            for number in range(rounds):
                for name in sorted(servers, reverse=bool(number % 2)):
                    print(f"{task}: round {number + 1} of {rounds}, {name}", file=sys.stderr)
                    figures[task][name].append(measure(*servers[name], task, picture, requests))
    return {task: summary(found["with"], found["without"]) for task, found in figures.items()}


def summary(measured: Sequence[Round], bare: Sequence[Round]) -> dict[str, Any]:
    """Return medians over the rounds, and the ratio of CPU within each round."""
    ratios = [one.cpu_ms / other.cpu_ms for one, other in zip(measured, bare, strict=True)]
    return {
        "cpu_ms_with": round(median(each.cpu_ms for each in measured), 3),
        "cpu_ms_without": round(median(each.cpu_ms for each in bare), 3),
        "cpu_ratio": round(median(ratios), 3),
        "cpu_ratio_range": [round(min(ratios), 3), round(max(ratios), 3)],
        "latency_p50_ms_with": round(median(each.latency_ms for each in measured), 2),
        "latency_p50_ms_without": round(median(each.latency_ms for each in bare), 2),
    }


def recorded_run_us() -> float:
    """Return what a stage pays to record one run, microseconds, with files as in the server."""
    with tempfile.TemporaryDirectory() as files:
        ran = subprocess.run(
            [sys.executable, "-c", _RECORDER],
            env={**os.environ, "PROMETHEUS_MULTIPROC_DIR": files},
            capture_output=True,
            check=True,
            text=True,
        )
    return round(float(ran.stdout), 2)


def main(arguments: Sequence[str] | None = None) -> Mapping[str, Any]:
    """Measure, print the figures as JSON, and write them to a file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repository", type=Path, default=ROOT / "model_repository")
    parser.add_argument("--picture", type=Path, default=ROOT / "docs/images/playroom-127.jpg")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--requests", type=int, default=400)
    parser.add_argument("--output", type=Path, default=RESULTS)
    options = parser.parse_args(arguments)
    picture = options.picture.read_bytes()
    found = {
        "command": machine.command(),
        "machine": machine.machine(),
        "versions": machine.versions("2.51.0", "prometheus-client"),
        "commit": machine.commit(),
        "concurrency": CONCURRENCY,
        "recorded_run_us": recorded_run_us(),
        "tasks": compare(options.repository, picture, options.rounds, options.requests),
    }
    text = json.dumps(found, indent=2)
    options.output.write_text(text + "\n", encoding="utf-8")
    print(text)
    return found


if __name__ == "__main__":
    main()
