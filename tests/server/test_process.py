import os
import signal
import sys
import time
from pathlib import Path

import psutil
import pytest

from sensorium_server import process as module
from sensorium_server.process import REGIONS, TritonProcess, clear_dead_regions, region_prefix


@pytest.fixture
def shared_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let the shared memory be a directory of the test's own."""
    monkeypatch.setattr(module, "SHARED_MEMORY", tmp_path)
    return tmp_path


def run(code: str, *arguments: str) -> tuple[TritonProcess, list[str]]:
    """Start a Python process in Triton's place; return it and its log."""
    log: list[str] = []
    return TritonProcess([sys.executable, "-c", code, *arguments], os.environ, log.append), log


def test_log_is_passed_on_and_kept(shared_memory: Path) -> None:
    """Lines go to the log, but those that only alarm."""
    process, log = run("print('CUDA driver version is insufficient'); print('model x failed')")

    assert process.wait() == 0
    assert log == list(process.lines) == ["model x failed"]
    assert process.last_lines() == "\nIts last lines:\n  model x failed"
    assert list(shared_memory.iterdir()) == []


def test_children_and_memory_go_with_it(shared_memory: Path) -> None:
    """When it is killed, its children are ended and its shared memory is freed."""
    code = (
        "import subprocess, sys, pathlib, time\n"
        f"pathlib.Path({str(shared_memory)!r}, sys.argv[1] + 'x').touch()\n"
        "print(subprocess.Popen(['sleep', '60']).pid, flush=True)\n"
        "time.sleep(60)"
    )
    process, log = run(code, REGIONS)
    while not log:
        time.sleep(0.01)
    child = psutil.Process(int(log[0]))
    process.signal(signal.SIGKILL)

    assert process.wait() == -signal.SIGKILL
    psutil.wait_procs([child], timeout=5)
    assert not child.is_running() or child.status() == "zombie"
    assert list(shared_memory.iterdir()) == []
    assert process.wait() == -signal.SIGKILL


def test_one_that_does_not_end_is_killed(shared_memory: Path) -> None:
    """After the timeout a process that ignores SIGTERM is killed."""
    assert shared_memory.is_dir()
    code = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
        "print(1, flush=True); time.sleep(60)"
    )
    process, log = run(code)
    while not log:
        time.sleep(0.01)
    process.signal(signal.SIGTERM)

    assert process.wait(0.2) == -signal.SIGKILL


def test_memory_of_the_dead_is_cleared(shared_memory: Path) -> None:
    """Shared memory of a launcher that is gone is removed, that of a living one stays."""
    mine = shared_memory / (region_prefix() + "x")
    dead = shared_memory / mine.name.replace(f"_{os.getpid()}_", "_99999999_")
    stranger = shared_memory / "sensorium_1_99999999_0_x"
    for region in (mine, dead, stranger):
        region.touch()
    folder = dead.with_name(dead.name + "_folder")
    folder.mkdir()

    clear_dead_regions()

    assert sorted(shared_memory.iterdir()) == sorted([mine, stranger])
