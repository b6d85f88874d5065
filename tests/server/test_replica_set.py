import socket
import threading
from collections.abc import Callable, Collection
from pathlib import Path

import pytest

from sensorium.errors import ConfigurationError, ModelNotReadyError, ServerError
from sensorium_server import replica as replica_module
from sensorium_server import replica_set as module
from sensorium_server.balancer import Target
from sensorium_server.command import Ports
from sensorium_server.drain import Activity
from sensorium_server.launch import Endpoints
from sensorium_server.replica_set import ReplicaSet, replica_settings
from sensorium_server.settings import FREE_PORTS, Settings, load


class FakeTriton:
    """Stands in for a server; it runs until it is told to stop, or fails as it is told."""

    made = 0
    lock = threading.Lock()
    running: list["FakeTriton"]
    fails_to_start: set[int]

    def __init__(self, settings: Settings, log: Callable[[str], None], name: str) -> None:
        self.settings, self.log, self.name = settings, log, name
        self.end, self.stops = threading.Event(), 0
        self.death: Exception | None = None
        self.is_closed = False
        self.ports = Ports(0, 0, 0)
        self.endpoints = Endpoints("", "", "", "")
        self.pid = 0

    def start(self) -> None:
        """Take the next ports, or fail."""
        with FakeTriton.lock:
            FakeTriton.made += 1
            self.pid = FakeTriton.made
        if self.pid in self.fails_to_start:
            raise ModelNotReadyError("not ready")
        self.ports = Ports(http=100 + self.pid, grpc=200 + self.pid, metrics=300 + self.pid)
        self.running.append(self)

    def wait(self) -> None:
        """Wait for the end."""
        self.end.wait()
        self.running.remove(self)
        if self.death is not None:
            raise self.death

    def request_stop(self) -> None:
        """End."""
        self.stops += 1
        self.end.set()

    def stop(self) -> None:
        """Be gone."""
        self.is_closed = True

    def die(self) -> None:
        """End with an error, as one that died too often."""
        self.death = ServerError("died too often")
        self.end.set()


class FakeBalancer:
    """Stands in for Envoy, and notes over which gRPC ports it balances."""

    used: list[list[int]]
    refuses: bool

    def __init__(self, settings: Settings, ports: Ports, log: Callable[[str], None]) -> None:
        self.settings, self.ports, self.log = settings, ports, log
        self.pid = 1

    def start(self, targets: Collection[Target], on_failure: Callable[[Exception], None]) -> None:
        """Take targets."""
        self.on_failure = on_failure
        self.use(targets)

    def use(self, targets: Collection[Target], *, healthy: bool = True) -> None:
        """Take targets, or refuse them."""
        if self.refuses and healthy:
            raise ModelNotReadyError("not taken over")
        self.used.append(sorted(target.grpc_port - 200 for target in targets))

    def stop_waiting(self) -> None:
        """Do nothing."""

    def stop(self) -> None:
        """Note it."""
        self.used.append([])


@pytest.fixture(autouse=True)
def _fakes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no real process start."""
    monkeypatch.setattr(replica_module, "Server", FakeTriton)
    monkeypatch.setattr(module, "Balancer", FakeBalancer)
    monkeypatch.setattr(module, "activity_of", lambda *_: Activity(1, 0, 0.0))
    FakeTriton.made, FakeTriton.running, FakeTriton.fails_to_start = 0, [], set()
    FakeBalancer.used, FakeBalancer.refuses = [], False


@pytest.fixture
def log() -> list[str]:
    """Return what is logged."""
    return []


@pytest.fixture
def replicas(toy_repository: Path, log: list[str]) -> ReplicaSet:
    """Return three replicas that are not started."""
    free = {**FREE_PORTS, "balancer_metrics_port": 0}
    settings = load({**free, "repository": toy_repository, "replicas": 3, "balancer": "envoy"})
    return ReplicaSet(settings, log.append)


def carry_out(replicas: ReplicaSet) -> None:
    """Carry out the orders that wait, and then to stop."""
    replicas._orders.put(replicas.request_stop)
    replicas.wait()


def test_each_is_out_while_it_restarts(replicas: ReplicaSet, log: list[str]) -> None:
    """A replica leaves the balancer before it ends, and the next one waits until it is back."""
    with replicas:
        _, b, c = (each.pid for each in replicas.replicas)
        replicas.request_restart()
        carry_out(replicas)
        assert [each.pid for each in FakeTriton.running] == [4, 5, 6]

    first, *steps, last = FakeBalancer.used
    assert first == [1, 2, 3]
    assert [step for step in steps if len(step) == 2] == [
        sorted(out) for out in ([b, c], [4, c], [4, 5])
    ]
    assert (steps[-1], last) == ([4, 5, 6], [])
    assert log[-1].startswith("all 3 replicas restarted in ")
    assert FakeTriton.running == []


def test_one_that_does_not_come_back_ends_the_restart(replicas: ReplicaSet, log: list[str]) -> None:
    """When a replica does not start again, the others are left alone and serve on."""
    FakeTriton.fails_to_start = {4}
    with replicas:
        replicas.request_restart()
        carry_out(replicas)
        left = sorted(each.pid for each in FakeTriton.running)

    assert len(left) == 2
    assert FakeBalancer.used[-2] == left
    assert log == ["the restart ends at replica 0: not ready", "2 of 3 replicas serve on"]


def test_balancer_that_does_not_follow_ends_the_restart(
    replicas: ReplicaSet, log: list[str]
) -> None:
    """No replica is stopped before the balancer has let go of it."""
    with replicas:
        FakeBalancer.refuses = True
        replicas.request_restart()
        carry_out(replicas)
        assert len(FakeTriton.running) == 3
        assert FakeTriton.made == 3

    assert log == ["the restart ends at replica 0: not taken over", "3 of 3 replicas serve on"]


def test_refused_restart_touches_nothing(toy_repository: Path, log: list[str]) -> None:
    """What the check refuses is told, and everything serves on."""

    def refuse() -> None:
        raise ConfigurationError("not proven")

    settings = load({"repository": toy_repository, "replicas": 2, "balancer": "envoy"})
    free = {**FREE_PORTS, "balancer_metrics_port": 0}
    with ReplicaSet(settings.model_copy(update=free), log.append, refuse) as replicas:
        replicas.request_restart()
        carry_out(replicas)

    assert FakeTriton.made == 2
    assert log == ["nothing was restarted, all serve on as before: not proven"]


def test_lost_replica_is_left_out_and_comes_back(replicas: ReplicaSet, log: list[str]) -> None:
    """One that died too often is left out; the next restart gives it another chance."""
    with replicas:
        lost = FakeTriton.running[0]
        lost.die()
        replicas._orders.get()()
        without = FakeBalancer.used[-1]
        replicas.request_restart()
        carry_out(replicas)
        assert len(FakeTriton.running) == 3

    assert len(without) == 2
    assert log[0].endswith("is given up: died too often")
    assert log[1] == "2 of 3 replicas serve on"
    assert log[-1].startswith("all 3 replicas restarted")


def test_last_one_lost_is_the_end(replicas: ReplicaSet) -> None:
    """When no replica is left, `wait` raises."""
    with replicas:
        for triton in list(FakeTriton.running):
            triton.die()
        with pytest.raises(ServerError, match="none of the 3 replicas is left"):
            replicas.wait()


def test_lost_balancer_is_the_end(replicas: ReplicaSet) -> None:
    """When the balancer cannot be kept up, `wait` raises its error."""
    with replicas:
        replicas._give_up(ServerError("Envoy died too often"))
        with pytest.raises(ServerError, match="Envoy died too often"):
            replicas.wait()


def test_failed_start_leaves_nothing(replicas: ReplicaSet) -> None:
    """When one replica does not start, the others are ended and the error is raised."""
    FakeTriton.fails_to_start = {2}

    with pytest.raises(ModelNotReadyError, match="not ready"):
        replicas.start()

    assert FakeTriton.running == []


def test_second_stop_ends_at_once(replicas: ReplicaSet) -> None:
    """Told to stop once, replicas go on until all is quiet; told again, they are killed."""
    with replicas:
        running = list(FakeTriton.running)
        replicas.request_stop()
        assert [each.stops for each in running] == [0, 0, 0]
        replicas.request_stop()
        assert [each.stops for each in running] == [2, 2, 2]


def test_taken_port_names_the_setting(toy_repository: Path) -> None:
    """A port that the balancer cannot have is named with the flag that chooses another."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        settings = load({"repository": toy_repository, "balancer_metrics_port": port})
        with pytest.raises(ConfigurationError, match=rf"port {port} .*--balancer-metrics-port"):
            ReplicaSet(settings)


def test_replicas_are_reached_through_the_balancer_alone() -> None:
    """A replica listens on loopback without TLS, and shows its metrics where the server would."""
    settings = load({"host": "::", "balancer": "envoy", "replicas": 2, "grpc_tls_key": "x.pem"})
    first, second = (replica_settings(settings, index) for index in (0, 1))

    assert (first.host, first.grpc_port, first.http_port) == ("127.0.0.1", 0, 0)
    assert (first.metrics_address, first.metrics_port) == ("::", 8002)
    assert second.metrics_port == 8012
    assert first.grpc_tls_key is None
    assert (first.replicas, first.balancer) == (1, None)
