"""One Triton of several, in a thread that starts it and, when it dies, starts it again.

A Triton dies with the thread that started it (see `process.py`), so each has its own.
"""

import threading
from collections.abc import Callable
from concurrent.futures import Future

from sensorium_server.balancer import Target
from sensorium_server.launch import Endpoints, Server
from sensorium_server.settings import Settings

_KILL_AFTER_S = 5.0


class Replica:
    """A Triton that can be stopped and started again; `name` stands before its log."""

    def __init__(self, name: str, settings: Settings, log: Callable[[str], None]) -> None:
        self.name = name
        self._settings = settings
        self._log = log
        self._server = self._made()
        self._thread: threading.Thread | None = None
        self._is_up = False

    @property
    def is_up(self) -> bool:
        """Whether it was ready and has neither been stopped nor given up."""
        return self._is_up

    @property
    def endpoints(self) -> Endpoints:
        """Where it is reached from this machine."""
        return self._server.endpoints

    @property
    def target(self) -> Target:
        """Where the balancer reaches it."""
        ports = self._server.ports
        return Target(grpc_port=ports.grpc, http_port=ports.http, host=self._settings.host)

    @property
    def pid(self) -> int:
        """The process id of its `tritonserver`."""
        return self._server.pid

    def start(self, on_failure: Callable[["Replica", Exception], None]) -> Future[None]:
        """Start it; the future tells when it is ready, or why it will not be.

        `on_failure` hears, from its thread, when it dies too often later.
        """
        self._server = self._made()
        ready: Future[None] = Future()
        self._thread = threading.Thread(
            target=self._run, args=[self._server, ready, on_failure], name=self.name
        )
        self._thread.start()
        return ready

    def request_stop(self) -> None:
        """Tell it to answer what it has, then to end; asked again, it ends at once."""
        self._is_up = False
        self._server.request_stop()

    def stop(self) -> None:
        """Drain it and wait until it is gone; one that does not end is killed."""
        self.request_stop()
        if self._thread is not None:
            self._thread.join(2 * self._settings.drain_timeout_s + _KILL_AFTER_S)
            if self._thread.is_alive():
                self._server.request_stop()
        self.join()

    def join(self) -> None:
        """Wait until it is gone."""
        if self._thread is not None:
            self._thread.join()

    def _made(self) -> Server:
        return Server(self._settings, self._log, self.name)

    def _run(
        self,
        server: Server,
        ready: Future[None],
        on_failure: Callable[["Replica", Exception], None],
    ) -> None:
        try:
            server.start()
        except Exception as error:  # noqa: BLE001 - whoever waits for the future raises it
            ready.set_exception(error)
            return
        self._is_up = True
        ready.set_result(None)
        try:
            server.wait()
        except Exception as error:  # noqa: BLE001 - told, not lost
            self._is_up = False
            on_failure(self, error)
        finally:
            server.stop()
