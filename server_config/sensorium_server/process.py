"""One child process, `tritonserver` or another: its log, its end, and nothing left behind.

It dies when the thread that started it dies, however that happens, so start it from one that
lives on. Triton's Python processes and their shared memory go with it, even after a crash.
"""

import contextlib
import ctypes
import itertools
import os
import re
import shutil
import signal
import subprocess
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - where Triton keeps its regions
_KILL_AFTER_S = 5.0
_KEPT_LINES = 200
_SHOWN_LINES = 10
_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None)
_HARMLESS = re.compile(
    r"CUDA driver version is insufficient|CudaDriverHelper|CUDA memory pool disabled"
    r"|no pinned memory pool|^Signal \(15\) received|Non-graceful termination detected"
)
"""What Triton reports on a machine without a GPU, or at its end, where nothing is wrong."""

_serial = itertools.count()


class Process:
    """A running child process."""

    def __init__(
        self, command: Sequence[str], environment: Mapping[str, str], log: Callable[[str], None]
    ) -> None:
        self.lines: deque[str] = deque(maxlen=_KEPT_LINES)
        self._log = log
        self._process = subprocess.Popen(  # noqa: S603 - our own command
            list(command),
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
            preexec_fn=die_with_parent,  # noqa: PLW1509 - one system call, no lock
        )
        self._pump = threading.Thread(target=self._read_log, name="process-log", daemon=True)
        self._pump.start()
        self._cleaned = False

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether it has not ended."""
        return self._process.poll() is None

    def signal(self, number: signal.Signals) -> None:
        """Send a signal, if it is still there."""
        if self.is_running:
            self._process.send_signal(number)

    def wait(self, timeout_s: float | None = None) -> int:
        """Wait for the end, clean up, and return the exit code; after the timeout, kill it."""
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
        code = self._process.wait()
        if not self._cleaned:
            self._cleaned = True
            self._clean_up()
        return code

    def last_lines(self) -> str:
        """Return the end of its log, to be put behind a message."""
        lines = list(self.lines)[-_SHOWN_LINES:]
        return "".join(["\nIts last lines:", *(f"\n  {line}" for line in lines)]) if lines else ""

    def _read_log(self) -> None:
        for line in self._process.stdout or ():
            text = line.rstrip()
            if text and not _HARMLESS.search(text):
                self.lines.append(text)
                self._log(text)

    def _clean_up(self) -> None:
        # Python processes outlive a Triton that was killed; they are in its process group.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._pump.join(_KILL_AFTER_S)
        if self._process.stdout is not None:
            self._process.stdout.close()


class TritonProcess(Process):
    """A running `tritonserver`, whose shared memory goes with it."""

    def __init__(
        self, command: Sequence[str], environment: Mapping[str, str], log: Callable[[str], None]
    ) -> None:
        self._regions = region_prefix()
        clear_dead_regions()
        super().__init__(
            [part.replace(REGIONS, self._regions) for part in command], environment, log
        )

    def _clean_up(self) -> None:
        super()._clean_up()
        for region in SHARED_MEMORY.glob(self._regions + "*"):
            region.unlink(missing_ok=True)


REGIONS = "{regions}"
"""Stands in a command line for the prefix of the process's shared memory."""


def region_prefix() -> str:
    """Return a name for shared memory that tells the process that owns it."""
    return f"{_owner(os.getpid())}{next(_serial)}_"


def clear_dead_regions() -> None:
    """Remove shared memory whose owner, in this very PID namespace, was killed."""
    pattern = re.compile(re.escape(_owner(0)).replace("_0_", r"_(\d+)_"))
    for region in SHARED_MEMORY.glob("sensorium_*"):
        owner = pattern.match(region.name)
        if owner and not Path(f"/proc/{owner[1]}").exists():
            if region.is_dir():
                shutil.rmtree(region, ignore_errors=True)
            else:
                region.unlink(missing_ok=True)


def _owner(pid: int) -> str:
    namespace = Path("/proc/self/ns/pid").readlink().name.strip("pid:[]")
    return f"sensorium_{namespace}_{pid}_"


def die_with_parent() -> None:
    """Let the kernel end this process when its parent dies, however that happens."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
