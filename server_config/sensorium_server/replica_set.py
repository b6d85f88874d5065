"""Several Tritons behind one Envoy: started together, kept up, restarted one after the other.

    with ReplicaSet(settings) as replicas:     # all are ready, and balanced over
        replicas.request_restart()             # each in turn; no request is lost
        replicas.wait()
                                               # drained and gone

A restart takes a replica out of the balancer, lets it answer what it has, ends it, starts it anew
and puts it back before the next one's turn. Orders, which signals and failing threads give, wait in
a queue; `wait` carries them out, one at a time.
"""

import time
from collections.abc import Callable
from concurrent.futures import wait as wait_for
from queue import SimpleQueue
from types import TracebackType
from typing import Self

from sensorium.errors import ConfigurationError, ModelNotReadyError, SensoriumError, ServerError
from sensorium_server.balancer import Balancer, Target
from sensorium_server.command import reserve_ports
from sensorium_server.drain import Activity, activity_of, await_quiet
from sensorium_server.launch import Endpoints, check_repository, endpoints_of, to_stderr
from sensorium_server.log_record import Log
from sensorium_server.replica import Replica
from sensorium_server.settings import Settings

METRICS_PORT_STEP = 10
"""How far the metrics ports of two replicas lie apart, which leaves room for other ports."""

_METRICS_PORTS = ("metrics_port", "service_metrics_port")
_LOOPBACK = "127.0.0.1"


class ReplicaSet:
    """Replicas of one model repository behind a balancer; use it as a context."""

    def __init__(
        self,
        settings: Settings,
        log: Callable[[str], None] | None = None,
        check: Callable[[], None] | None = None,
    ) -> None:
        """`check` is asked before a restart and may refuse it with a `ConfigurationError`."""
        self._settings = settings
        write = log or to_stderr
        self._log = Log(write, settings.log_format, settings.log_level).say
        self._check = check or (lambda: None)
        self._ports = reserve_ports(settings, for_balancer=True)
        self.replicas = [
            Replica(f"replica {index}", replica_settings(settings, index), write)
            for index in range(settings.replicas)
        ]
        self._balancer = Balancer(settings, self._ports, self._log)
        self._orders: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._is_up = False
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
        """Where the balancer is reached from this machine; `metrics` are the balancer's own."""
        return endpoints_of(self._settings, self._ports)

    @property
    def pid(self) -> int:
        """The process id of the balancer."""
        return self._balancer.pid

    def start(self) -> None:
        """Start all replicas at once, then the balancer, and return when it takes requests.

        Raises:
            ConfigurationError: the repository, a port or the installation is wrong.
            ModelNotReadyError: something is not ready in time.
            ServerError: a Triton crashed at every attempt.
        """
        begin = time.monotonic()
        try:
            ready = [replica.start(self._on_failure) for replica in self.replicas]
            wait_for(ready)
            for each in ready:
                each.result()
            self._balancer.start(self._targets(), self._give_up)
        except BaseException:
            self._end()
            raise
        self._is_up = True
        self.ready_s = time.monotonic() - begin

    def wait(self) -> None:
        """Carry out orders until one is to stop.

        Raises:
            ServerError: no replica is left, or the balancer cannot be kept up.
        """
        while not self._stop_wanted:
            self._orders.get()()

    def request_restart(self) -> None:
        """Let every replica be restarted, one after the other; do not wait for it."""
        self._orders.put(self._restart)

    def request_stop(self) -> None:
        """Let all answer what they have, then end; do not wait. Asked again, end at once."""
        again, self._stop_wanted = self._stop_wanted, True
        self._orders.put(lambda: None)
        self._balancer.stop_waiting()
        if again or not self._is_up:
            for replica in self.replicas:
                replica.request_stop()
                if again:
                    replica.request_stop()

    def stop(self) -> None:
        """Wait until nothing is under way, then end the balancer and the replicas."""
        await_quiet(self._activity, self._settings.drain_timeout_s)
        self._end()

    def _end(self) -> None:
        self._balancer.stop()
        for replica in self.replicas:
            replica.request_stop()
        for replica in self.replicas:
            replica.join()

    def _targets(self, without: Replica | None = None) -> list[Target]:
        return [each.target for each in self.replicas if each.is_up and each is not without]

    def _activity(self) -> Activity | None:
        """Sum up what the replicas do; None when none of them answers."""
        measured = [
            activity_of(each.pid, each.endpoints.metrics) for each in self.replicas if each.is_up
        ]
        known = [each for each in measured if each is not None]
        if not known:
            return None
        return Activity(
            answered=sum(each.answered for each in known),
            waiting=sum(each.waiting for each in known),
            cpu_s=sum(each.cpu_s for each in known),
        )

    def _restart(self) -> None:
        """Restart one replica after the other, up to the first that fails."""
        begin = time.monotonic()
        try:
            check_repository(self._settings.repository, self._log)
            self._check()
        except ConfigurationError as error:
            self._log(f"nothing was restarted, all serve on as before: {error}")
            return
        for replica in self.replicas:
            if self._stop_wanted:
                return
            try:
                self._restart_one(replica)
            except SensoriumError as error:
                if self._stop_wanted:
                    return
                self._log(f"the restart ends at {replica.name}: {error}")
                self._leave_out_the_lost()
                return
        self._log(
            f"all {len(self.replicas)} replicas restarted in {time.monotonic() - begin:.1f} s"
        )

    def _restart_one(self, replica: Replica) -> None:
        self._balancer.use(self._targets())  # one that has just crashed is waited for
        self._balancer.use(self._targets(without=replica), healthy=False)
        replica.stop()
        replica.start(self._on_failure).result()
        self._balancer.use(self._targets())
        self._log(f"{replica.name} restarted")

    def _on_failure(self, replica: Replica, error: Exception) -> None:
        """Hear, in the replica's thread, that it died too often."""
        self._log(f"{replica.name} is given up: {error}")
        self._orders.put(self._leave_out_the_lost)

    def _leave_out_the_lost(self) -> None:
        """Balance over what is left; a restart gives the others another chance."""
        targets = self._targets()
        if not targets:
            raise ServerError(f"none of the {len(self.replicas)} replicas is left.")
        self._log(f"{len(targets)} of {len(self.replicas)} replicas serve on")
        try:
            self._balancer.use(targets, healthy=False)
        except ModelNotReadyError as error:
            self._log(str(error))

    def _give_up(self, error: Exception) -> None:
        """Hear, in the balancer's thread, that it died too often: `wait` raises it."""

        def fail() -> None:
            raise error

        self._orders.put(fail)


def replica_settings(settings: Settings, index: int) -> Settings:
    """Return the settings of one replica: reached by the balancer alone, but for its metrics."""
    metrics = {
        name: port + METRICS_PORT_STEP * index
        for name in _METRICS_PORTS
        if (port := getattr(settings, name))
    }
    own = {
        "host": _LOOPBACK,
        "metrics_address": settings.metrics_address or settings.host,
        "grpc_port": 0,
        "http_port": 0,
        "grpc_tls_cert": None,
        "grpc_tls_key": None,
        "grpc_tls_client_ca": None,
        "replicas": 1,
        "balancer": None,
    }
    return settings.model_copy(update={**own, **metrics})
