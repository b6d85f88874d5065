"""One `tritonserver`: started as a plain process, awaited, drained, and never left behind.

    with Server(load()) as server:      # checked, started, ready
        print(server.endpoints.grpc)
                                        # drained and gone, with its Python processes

Before the start it checks the digests of all artefacts and that the ports are free. The process
dies with the thread that started it, so start it from one that lives on.
"""

import contextlib
import ctypes
import http.client
import itertools
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from sensorium import contract
from sensorium.errors import ConfigurationError, ModelNotReadyError, ServerError
from sensorium_server import manifest
from sensorium_server.command import Ports, command, environment, reachable_host, reserve_ports
from sensorium_server.runtime import runtime
from sensorium_server.settings import Settings

_POLL_S = 0.02
_KILL_AFTER_S = 5.0
_KEPT_LINES = 200
_PR_SET_PDEATHSIG = 1
_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - where Triton keeps its regions
_HARMLESS = re.compile(
    r"CUDA driver version is insufficient|CudaDriverHelper|CUDA memory pool disabled"
)
"""What Triton reports on a machine without a GPU, where nothing is wrong."""

_FAILED_MODEL = re.compile(r"failed to load '([^']+)' version \d+: (.*?)(?:\\n|\"?$)")
_ENSEMBLE = re.compile(r"^\s*platform:\s*\"ensemble\"", re.MULTILINE)
_LIBC = ctypes.CDLL(None)
_serial = itertools.count()


@dataclass(frozen=True, slots=True)
class Endpoints:
    """Where a running server is reached."""

    grpc: str
    http: str
    metrics: str


class Server:
    """A Triton server over one model repository; use it as a context."""

    def __init__(self, settings: Settings, log: Callable[[str], None] | None = None) -> None:
        self._settings = settings
        self._log = log or _to_stderr
        self._lines: deque[str] = deque(maxlen=_KEPT_LINES)
        self._process: subprocess.Popen[str] | None = None
        self._pump: threading.Thread | None = None
        self._ports = Ports(0, 0, 0)
        self._shm_prefix = f"sensorium_{os.getpid()}_{next(_serial)}_"
        self._stop_wanted = False
        self.ready_s = 0.0

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def endpoints(self) -> Endpoints:
        """Where the server is reached from this machine."""
        host = reachable_host(self._settings.host)
        host = f"[{host}]" if ":" in host else host
        return Endpoints(
            grpc=f"{host}:{self._ports.grpc}",
            http=f"http://{host}:{self._ports.http}",
            metrics=f"http://{host}:{self._ports.metrics}/metrics",
        )

    @property
    def pid(self) -> int:
        """The process id of `tritonserver`."""
        return self._started().pid

    def start(self) -> None:
        """Check the repository, start Triton and wait until every model answers.

        Raises:
            ConfigurationError: the repository, a port or the installation is wrong.
            ModelNotReadyError: it is not ready in time.
        """
        begin = time.monotonic()
        check_repository(self._settings.repository, self._log)
        found = runtime(self._settings.cache_dir)
        self._ports = reserve_ports(self._settings)
        self._process = subprocess.Popen(  # noqa: S603 - our own command
            command(self._settings, found, self._ports, self._shm_prefix),
            env=environment(self._settings, found),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
            preexec_fn=_die_with_parent,  # noqa: PLW1509 - one system call, no lock
        )
        self._pump = threading.Thread(target=self._read_log, args=[self._process], daemon=True)
        self._pump.start()
        try:
            self._await_ready(begin)
        except BaseException:
            self.stop()
            raise
        self.ready_s = time.monotonic() - begin

    def wait(self) -> None:
        """Wait until the server has ended because it was told to.

        Raises:
            ServerError: it ended by itself.
        """
        code = self._started().wait()
        self._clean_up()
        if not self._stop_wanted:
            raise ServerError(f"Triton ended by itself with code {code}.{self._last_lines()}")

    def request_stop(self) -> None:
        """Tell the server to answer what is running, refuse what comes, and end; do not wait.

        Asked again, it ends at once.
        """
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGKILL if self._stop_wanted else signal.SIGTERM)
        self._stop_wanted = True

    def stop(self) -> None:
        """Drain the server and wait until it is gone."""
        if self._process is None:
            return
        if not self._stop_wanted:
            self.request_stop()
        try:
            self._process.wait(self._settings.drain_timeout_s + _KILL_AFTER_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._clean_up()

    def _started(self) -> "subprocess.Popen[str]":
        if self._process is None:
            raise RuntimeError("the server was not started")
        return self._process

    def _await_ready(self, begin: float) -> None:
        process = self._started()
        while not self._is_ready():
            if process.poll() is not None:
                raise self._failure_to_start()
            waited_s = time.monotonic() - begin
            if waited_s > self._settings.startup_timeout_s:
                raise ModelNotReadyError(
                    f"Triton was not ready after {waited_s:.0f} s (startup_timeout_s). Give it "
                    f"more time, or see why with --log-level info.{self._last_lines()}"
                )
            time.sleep(_POLL_S)

    def _is_ready(self) -> bool:
        host = reachable_host(self._settings.host)
        connection = http.client.HTTPConnection(host, self._ports.http, timeout=1)
        try:
            connection.request("GET", "/v2/health/ready")
            if connection.getresponse().status != http.client.OK:
                return False
            # The metrics port opens last.
            socket.create_connection((host, self._ports.metrics), timeout=1).close()
        except OSError:
            return False
        finally:
            connection.close()
        return True

    def _failure_to_start(self) -> Exception:
        if self._pump is not None:
            self._pump.join(_KILL_AFTER_S)
        if self._stop_wanted:
            return ModelNotReadyError("Triton was told to stop before it was ready.")
        failed: dict[str, str] = {
            match[1]: match[2] for line in self._lines if (match := _FAILED_MODEL.search(line))
        }
        if not failed:
            return ConfigurationError(f"Triton did not start.{self._last_lines()}")
        reasons = "\n".join(f"model {name}: {reason}" for name, reason in failed.items())
        return ConfigurationError(f"Triton could not load every model.\n{reasons}")

    def _last_lines(self) -> str:
        lines = list(self._lines)[-10:]
        return "".join(["\nIts last lines:", *(f"\n  {line}" for line in lines)]) if lines else ""

    def _read_log(self, process: "subprocess.Popen[str]") -> None:
        for line in process.stdout or ():
            text = line.rstrip()
            if text and not _HARMLESS.search(text):
                self._lines.append(text)
                self._log(text)

    def _clean_up(self) -> None:
        """End the Python processes that an untimely death left behind, and free their memory."""
        process = self._started()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        if self._pump is not None:
            self._pump.join(_KILL_AFTER_S)
        if process.stdout is not None:
            process.stdout.close()
        for region in _SHARED_MEMORY.glob(self._shm_prefix + "*"):
            region.unlink(missing_ok=True)


def check_repository(repository: Path, log: Callable[[str], None]) -> None:
    """Check that a repository has models, and that they are those of its manifests.

    Raises:
        ConfigurationError: it is empty or missing, or an artefact is corrupt.
    """
    if not any(repository.glob("*/config.pbtxt")):
        raise ConfigurationError(
            f"{repository} holds no Triton model (*/config.pbtxt). Name another directory with "
            f"--repository, or make one with: sensorium export CHECKPOINT --repository DIR"
        )
    if not manifest.check(repository):
        log(f"{repository} has no manifest: its artefacts are served unchecked.")


def tasks_of(repository: Path) -> list[str]:
    """Return the ensembles of a repository, the contract's tasks first and in its order."""
    ensembles = {
        config.parent.name
        for config in repository.glob("*/config.pbtxt")
        if _ENSEMBLE.search(config.read_text(encoding="utf-8"))
    }
    known = [task for task in contract.TASKS if task in ensembles]
    return known + sorted(ensembles - set(known))


def _to_stderr(line: str) -> None:
    sys.stderr.write(line + "\n")


def _die_with_parent() -> None:
    """Let the kernel end this process when its parent dies, however that happens."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
