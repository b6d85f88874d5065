"""A decoder that hangs, crashes or swallows memory costs one request."""

import gc
import operator
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sensorium.errors import InvalidInputError, ServerError
from sensorium_server.isolation import IsolatedWorker
from sensorium_server.settings import load
from sensorium_server.stages.audio import samples_of


@pytest.fixture
def worker() -> Iterator[IsolatedWorker]:
    """Return a patient worker."""
    made = IsolatedWorker(60.0)
    yield made
    made.close()


@pytest.fixture
def hasty() -> Iterator[IsolatedWorker]:
    """Return a worker with two seconds' patience."""
    made = IsolatedWorker(2.0)
    yield made
    made.close()


def is_alive(pid: int) -> bool:
    """Tell whether a process is there and not a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_for_end(pid: int, seconds: float = 20.0) -> bool:
    """Wait until a process has ended; tell whether it did."""
    until = time.monotonic() + seconds
    while is_alive(pid) and time.monotonic() < until:
        time.sleep(0.05)
    return not is_alive(pid)


def test_value_comes_back(worker: IsolatedWorker) -> None:
    """A function runs in another process and its value comes back."""
    child = worker.call("audio", os.getpid)

    assert child == worker.pid != os.getpid()
    assert worker.call("audio", int, "ff", base=16) == 255


def test_module_is_loaded_early(worker: IsolatedWorker) -> None:
    """`load` imports a function's module in the child, as its name is all that is sent."""
    worker.load(samples_of)

    assert "soundfile" in worker.call("audio", eval, "sorted(__import__('sys').modules)")


def test_large_items_pass(worker: IsolatedWorker) -> None:
    """Megabytes go both ways."""
    data = os.urandom(30_000_000)

    assert worker.call("video", bytes.upper, data) == data.upper()


def test_hang_is_ended(hasty: IsolatedWorker) -> None:
    """A function that never returns is given up, with the limit told, and the next one runs."""
    with pytest.raises(InvalidInputError, match=r"^audio took longer than 2 s .*decode_timeout_s"):
        hasty.call("audio", time.sleep, 10_000)

    assert hasty.call("audio", abs, -3) == 3


def test_hang_in_native_code_is_ended(hasty: IsolatedWorker) -> None:
    """Code that never comes back to Python is given up too."""
    with pytest.raises(InvalidInputError, match="took longer"):
        hasty.call("video", pow, 7, 10**9)


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGABRT, signal.SIGKILL])
def test_crash_costs_one_request(worker: IsolatedWorker, number: signal.Signals) -> None:
    """A decoder that dies fails its own request, and the next one runs in a new process."""
    first = worker.pid

    with pytest.raises(InvalidInputError, match=r"^video crashed the decoder"):
        worker.call("video", signal.raise_signal, number)

    assert worker.call("video", os.getpid) == worker.pid != first


def test_memory_is_limited(worker: IsolatedWorker) -> None:
    """Asking for more memory than the limit fails the request, not the machine."""
    with pytest.raises(InvalidInputError, match=r"^audio takes more than 4 GiB"):
        worker.call("audio", bytearray, 5 * 1024**3)

    assert worker.call("audio", len, b"abc") == 3


def test_own_complaints_pass(worker: IsolatedWorker) -> None:
    """`InvalidInputError` comes through with its message."""
    with pytest.raises(InvalidInputError, match=r"^audio is empty \(0 bytes\)"):
        worker.call("audio", samples_of, b"", load(), 16_000)


def test_other_errors_are_the_servers(worker: IsolatedWorker) -> None:
    """Any other exception is our fault: a `ServerError` with the traceback for the log."""
    with pytest.raises(ServerError, match="ZeroDivisionError"):
        worker.call("audio", operator.truediv, 1, 0)


def test_early_exit_is_the_servers(worker: IsolatedWorker) -> None:
    """A child that ends by itself is our fault, and is replaced."""
    with pytest.raises(ServerError, match="exit code 3"):
        worker.call("audio", os._exit, 3)

    assert worker.call("audio", abs, -1) == 1


def test_prints_do_not_meddle(worker: IsolatedWorker) -> None:
    """What native code writes to stdout does not reach the answers."""
    assert worker.call("audio", os.write, 1, b"noise\n") == 6
    assert worker.call("audio", abs, -2) == 2


def test_dead_child_is_noticed(worker: IsolatedWorker) -> None:
    """A child killed between two requests costs the next one at most."""
    os.kill(worker.pid, signal.SIGKILL)
    wait_for_end(worker.pid)

    with pytest.raises(InvalidInputError, match="crashed"):
        worker.call("audio", abs, -2)

    assert worker.call("audio", abs, -2) == 2


def test_child_ends_with_its_object() -> None:
    """Nothing is left when the worker is forgotten."""
    worker = IsolatedWorker(1.0)
    pid = worker.pid
    del worker
    gc.collect()

    assert wait_for_end(pid)


@pytest.mark.parametrize("call", ["os.getpid", "time.sleep, 1000"], ids=["idle", "busy"])
def test_child_ends_with_a_killed_parent(call: str) -> None:
    """When the server's process is killed, its child does not live on: at most its time limit."""
    code = (
        "import os, threading, time; from sensorium_server.isolation import IsolatedWorker; "
        "worker = IsolatedWorker(2.0); print(worker.pid, flush=True); "
        f"threading.Timer(1, os.kill, (os.getpid(), 9)).start(); worker.call('audio', {call}); "
        "time.sleep(1000)"
    )
    parent = subprocess.run(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, check=False, text=True
    )

    assert parent.returncode == -signal.SIGKILL
    assert wait_for_end(int(parent.stdout))
