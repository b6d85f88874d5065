"""A measurement in a process of its own, so that it shares nothing but the cores.

A worker reads its job as JSON, gets ready and warm, says so, waits for the word, measures, and
writes what it found as JSON. Several can be told to go at the same moment.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

READY = "ready"
GO = "go"
_ROOT = Path(__file__).parents[1]


class WorkerError(Exception):
    """A worker ended without a result."""


@dataclass(frozen=True, slots=True)
class LoadJob:
    """Requests to a server, `concurrency` of them under way at any time."""

    address: str
    task: str
    inputs: str
    concurrency: int
    warm_s: float
    seconds: float
    least_calls: int
    server_pid: int
    """Whose processor time to note at both ends of the window."""

    bundle: str = ""


@dataclass(frozen=True, slots=True)
class RawJob:
    """The graphs of a task, batch after batch, without a server.

    `threads` are those of one run; `with_preprocessing` starts from file bytes, otherwise from
    tensors that are made before.
    """

    repository: str
    task: str
    inputs: str
    batch: int
    threads: int
    with_preprocessing: bool
    warm_s: float
    seconds: float
    least_calls: int


@dataclass(frozen=True, slots=True)
class LibraryJob:
    """A checkpoint's task by transformers itself, from file bytes, one after the other."""

    checkpoint: str
    task: str
    inputs: str
    threads: int
    seconds: float
    least_calls: int


Job = LoadJob | RawJob | LibraryJob
_MODULES: dict[type[Job], str] = {
    LoadJob: "harness.load",
    RawJob: "harness.raw",
    LibraryJob: "harness.library",
}


def run(jobs: Sequence[Job]) -> list[dict[str, Any]]:
    """Run jobs in worker processes, all measuring at the same time.

    Raises:
        WorkerError: a worker failed; its traceback is on stderr.
    """
    workers = [_start(job) for job in jobs]
    try:
        for worker in workers:
            _expect_ready(worker)
        for worker in workers:
            _write(worker, GO)
        return [json.loads(_line(worker)) for worker in workers]
    finally:
        for worker in workers:
            worker.communicate()


def _start(job: Job) -> "subprocess.Popen[str]":
    worker = subprocess.Popen(
        [sys.executable, "-m", _MODULES[type(job)]],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(_ROOT), "OMP_NUM_THREADS": "1"},
    )
    _write(worker, json.dumps(asdict(job)))
    return worker


def _write(worker: "subprocess.Popen[str]", line: str) -> None:
    if worker.stdin is not None:
        worker.stdin.write(line + "\n")
        worker.stdin.flush()


def _line(worker: "subprocess.Popen[str]") -> str:
    line = worker.stdout.readline() if worker.stdout is not None else ""
    if not line:
        raise WorkerError(f"{worker.args!r} ended without a result; its error is above")
    return line


def _expect_ready(worker: "subprocess.Popen[str]") -> None:
    if (line := _line(worker).strip()) != READY:
        raise WorkerError(f"{worker.args!r} said {line!r}, not {READY!r}")


def serve(measure: Callable[[dict[str, Any], Callable[[], None]], dict[str, Any]]) -> None:
    """Be the worker: read a job, call `measure(job, ready)` and write what it returns.

    `ready` is called when warm; it returns when the measurement shall begin.
    """

    def ready() -> None:
        print(READY, flush=True)
        sys.stdin.readline()

    print(json.dumps(measure(json.loads(sys.stdin.readline()), ready)), flush=True)
