"""A Triton server over a model repository: checked, started, ready, kept up, drained.

    with Server(load()) as server:      # checked, started, ready
        print(server.endpoints.grpc)
                                        # drained and gone, with its Python processes

Before the start it checks the digests of all artefacts and that the ports are free. Triton can
crash (docs/decisions/0002-serving-on-the-packaged-triton.md): a crash while starting is tried
again, and `wait` starts a Triton that died by itself anew, on the same ports.
"""

import http.client
import re
import signal
import socket
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Self

from sensorium import contract
from sensorium.errors import ConfigurationError, ModelNotReadyError, ServerError
from sensorium_server import manifest
from sensorium_server.command import Ports, command, environment, reachable_host, reserve_ports
from sensorium_server.drain import activity_of, await_quiet
from sensorium_server.placement import Placement, placed
from sensorium_server.process import TritonProcess
from sensorium_server.runtime import runtime
from sensorium_server.settings import Settings
from sensorium_server.swap.rollout import OFF, Rollout
from sensorium_server.telemetry import Telemetry, steps_of

_POLL_S = 0.02
_KILL_AFTER_S = 5.0
_START_ATTEMPTS = 3
_RESTART_WINDOW_S = 600.0
_TAKEN = "already in use"
_PORT_PAUSE_S = 1.0
_FAILED_MODEL = re.compile(r"failed to load '([^']+)' version \d+: (.*?)(?:\\n|\"?$)")


@dataclass(frozen=True, slots=True)
class Endpoints:
    """Where a running server is reached; a balancer has no service metrics."""

    grpc: str
    http: str
    metrics: str
    service_metrics: str


def endpoints_of(settings: Settings, ports: Ports) -> Endpoints:
    """Return where a server that listens on `ports` is reached from this machine."""
    host, metrics_host = map(
        _host_in_url, (settings.host, settings.metrics_address or settings.host)
    )
    return Endpoints(
        grpc=f"{host}:{ports.grpc}",
        http=f"http://{host}:{ports.http}",
        metrics=f"http://{metrics_host}:{ports.metrics}/metrics",
        service_metrics=f"http://{metrics_host}:{ports.service_metrics}/metrics"
        if ports.service_metrics
        else "",
    )


def _host_in_url(host: str) -> str:
    reachable = reachable_host(host)
    return f"[{reachable}]" if ":" in reachable else reachable


class _PortTakenError(ServerError):
    """Somebody took a port after it was found free."""


class Server:
    """A Triton server over one model repository; use it as a context."""

    def __init__(
        self, settings: Settings, log: Callable[[str], None] | None = None, name: str = ""
    ) -> None:
        """`name` tells its log from that of other servers in this process."""
        self._settings = settings
        self._telemetry = Telemetry(settings, log or to_stderr, name)
        self._log = self._telemetry.log.say
        self._process: TritonProcess | None = None
        self._ports = Ports(0, 0, 0, 0)
        self._drain: threading.Thread | None = None
        self._is_up = False
        self._stop_wanted = False
        self._restarts: deque[float] = deque()
        self._rollout: Rollout | None = None
        self.ready_s = 0.0
        self.placements: tuple[Placement, ...] = ()
        """What runs each stage, where a GPU was wished for."""

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
        return endpoints_of(self._settings, self._ports)

    @property
    def ports(self) -> Ports:
        """The ports on which it listens."""
        return self._ports

    @property
    def pid(self) -> int:
        """The process id of `tritonserver`."""
        return self._started().pid

    def start(self) -> None:
        """Check the repository, start Triton and wait until every model answers.

        Raises:
            ConfigurationError: the repository, a port or the installation is wrong.
            ModelNotReadyError: it is not ready in time, or was told to stop.
            ServerError: Triton crashed at every attempt.
        """
        begin = time.monotonic()
        check_repository(self._settings.repository, self._log)
        chosen = placed(self._settings)
        self._settings, self.placements = chosen.settings, chosen.placements
        for line in chosen.lines:
            self._log(line)
        self._ports = reserve_ports(self._settings)
        self._telemetry.start(self._ports.service_metrics)
        try:
            if self._settings.engines != OFF:
                self._rollout = Rollout(self._settings, self._log)
                self._rollout.prepare()
            self._launch()
        except BaseException:
            self._telemetry.close()
            raise
        self.ready_s = time.monotonic() - begin

    def wait(self) -> None:
        """Wait until the server has ended because it was told to; restart it when it dies.

        Raises:
            ServerError: it died more often than `restart_limit` allows.
        """
        while True:
            process = self._started()
            code = process.wait()
            if self._stop_wanted:
                return
            reason = f"Triton ended by itself with code {code}."
            if not self._may_restart():
                raise ServerError(reason + process.last_lines())
            self._log(f"{reason} Starting it again.")
            self._telemetry.triton_restarts()
            if self._rollout is not None:
                self._rollout.survive_crash()
            begin = time.monotonic()
            self._launch()
            self._log(f"ready again in {time.monotonic() - begin:.1f} s", "info")

    def request_stop(self) -> None:
        """Tell the server to answer what it has, then to end; do not wait for it.

        Asked again, it ends at once.
        """
        process, again = self._process, self._stop_wanted
        self._stop_wanted = True
        if process is None:
            return
        if self._rollout is not None:
            self._rollout.cancel()
        if again:
            process.signal(signal.SIGKILL)
        elif not self._is_up:
            process.signal(signal.SIGTERM)
        else:
            self._drain = threading.Thread(target=self._drain_and_end, args=[process], name="drain")
            self._drain.start()

    def stop(self) -> None:
        """Drain the server and wait until it is gone."""
        if self._process is not None:
            if not self._stop_wanted:
                self.request_stop()
            if self._drain is not None:
                self._drain.join()
            self._process.wait(self._settings.drain_timeout_s + _KILL_AFTER_S)
            self._telemetry.close()
        if self._rollout is not None:
            self._rollout.stop()
            self._rollout = None

    def _drain_and_end(self, process: TritonProcess) -> None:
        metrics = self.endpoints.metrics
        await_quiet(lambda: activity_of(process.pid, metrics), self._settings.drain_timeout_s)
        process.signal(signal.SIGTERM)

    def _heed(self, line: str) -> None:
        """Pass a line of Triton's output on."""
        self._telemetry.take_line(line)
        if self._rollout is not None:
            self._rollout.heed(line)

    def _started(self) -> TritonProcess:
        if self._process is None:
            raise RuntimeError("the server was not started")
        return self._process

    def _launch(self) -> None:
        """Start Triton and wait until it is ready; without its engines when they prevent it."""
        while True:
            try:
                self._launch_once()
            except (ConfigurationError, ServerError) as error:
                if self._rollout is None or not self._rollout.recover(error.message):
                    self.stop()
                    raise
                self._log(error.message)
            except BaseException:
                self.stop()
                raise
            else:
                break
        if self._rollout is not None:
            self._rollout.begin(self.endpoints.http.removeprefix("http://"))

    def _launch_once(self) -> None:
        """Start Triton and wait until it is ready; try a crash again."""
        found = runtime(self._settings.cache_dir, self._settings.triton_dir)
        settings, flags = self._settings, self._rollout.flags if self._rollout else []
        if self._rollout is not None:
            served = {"repository": self._rollout.repository, "model_config_name": ""}
            settings = settings.model_copy(update=served)
        self._is_up = False
        for attempt in range(1, _START_ATTEMPTS + 1):
            if self._stop_wanted:
                raise _told_to_stop()
            self._process = TritonProcess(
                command(settings, found, self._ports, self._telemetry.spans_url, flags),
                environment(settings, found, self._telemetry.stage_files),
                self._heed,
            )
            try:
                self._await_ready(self._process)
            except ServerError as crash:
                if attempt == _START_ATTEMPTS:
                    raise
                self._log(f"{crash.message.splitlines()[0]} Starting it again.")
                self._telemetry.triton_restarts()
                if isinstance(crash, _PortTakenError):
                    self._reserve_anew()
            else:
                self._is_up = True
                return

    def _reserve_anew(self) -> None:
        """Choose other ports where any will do; that of the service metrics is open already.

        A server that was ready keeps its ports: a killed Triton's may take a moment to be free.
        """
        if self.ready_s:
            time.sleep(_PORT_PAUSE_S)
            return
        ports = reserve_ports(self._settings.model_copy(update={"service_metrics_port": 0}))
        self._ports = replace(ports, service_metrics=self._ports.service_metrics)

    def _await_ready(self, process: TritonProcess) -> None:
        deadline = time.monotonic() + self._settings.startup_timeout_s
        while not self._is_ready():
            if not process.is_running:
                raise self._failure_to_start(process, process.wait())
            if time.monotonic() > deadline:
                raise ModelNotReadyError(
                    f"Triton was not ready after {self._settings.startup_timeout_s:g} s "
                    f"(startup_timeout_s). Give it more time, or see what it does with "
                    f"--log-level info.{process.last_lines()}"
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
            metrics = reachable_host(self._settings.metrics_address or self._settings.host)
            socket.create_connection((metrics, self._ports.metrics), timeout=1).close()
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()
        return True

    def _failure_to_start(self, process: TritonProcess, code: int) -> Exception:
        if self._stop_wanted:
            return _told_to_stop()
        failed: dict[str, str] = {
            match[1]: match[2] for line in process.lines if (match := _FAILED_MODEL.search(line))
        }
        if failed:
            reasons = "\n".join(f"model {name}: {reason}" for name, reason in failed.items())
            return ConfigurationError(f"Triton could not load every model.\n{reasons}")
        if any(_TAKEN in line for line in process.lines):
            return _PortTakenError(f"A port was taken while Triton started.{process.last_lines()}")
        if code < 0:
            return ServerError(
                f"Triton crashed with code {code} while starting.{process.last_lines()}"
            )
        return ConfigurationError(f"Triton did not start.{process.last_lines()}")

    def _may_restart(self) -> bool:
        """Count a death; too many within the window are not to be cured by restarting."""
        now = time.monotonic()
        self._restarts.append(now)
        while now - self._restarts[0] > _RESTART_WINDOW_S:
            self._restarts.popleft()
        return len(self._restarts) <= self._settings.restart_limit


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
    ensembles = set(steps_of(repository))
    known = [task for task in contract.TASKS if task in ensembles]
    return known + sorted(ensembles - set(known))


def _told_to_stop() -> ModelNotReadyError:
    return ModelNotReadyError("Triton was told to stop before it was ready.")


def to_stderr(line: str) -> None:
    """Write a line of the log."""
    sys.stderr.write(line + "\n")
