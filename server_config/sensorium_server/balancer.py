"""Envoy before several replicas: started, told which replicas there are, started again.

`use` writes the endpoints that Envoy watches and returns when it has taken them over: a replica
that was left out then gets no new request, and one that is new is healthy.
"""

import http.client
import json
import os
import secrets
import shutil
import signal
import socket
import string
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Collection
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from sensorium.errors import ConfigurationError, ModelNotReadyError, ServerError
from sensorium_server.command import Ports, tls_files
from sensorium_server.process import Process
from sensorium_server.settings import Settings

TEMPLATE = Path(__file__).parent / "envoy.yaml"
INSTALL = "Install it with: pip install 'sensorium[balancer]'"
PROTOCOLS = ("grpc", "http")
_POLL_S = 0.05
_SETTLE_S = 0.2
"""How long Envoy's threads may lag behind what its admin interface says."""

_RESTART_WINDOW_S = 600.0
_TYPE = "type.googleapis.com/envoy."


@dataclass(frozen=True, slots=True)
class Target:
    """Where one replica listens on this machine."""

    grpc_port: int
    http_port: int
    host: str = "127.0.0.1"


class Balancer:
    """One Envoy; it and its files are gone after `stop`."""

    def __init__(self, settings: Settings, ports: Ports, log: Callable[[str], None]) -> None:
        self._settings = settings
        self._ports = ports
        self._log = log
        self._binary = envoy_binary()
        self._directory = Path(tempfile.gettempdir()) / f"sensorium-envoy-{secrets.token_hex(6)}"
        self._admin = self._directory / "admin.sock"
        self._process: Process | None = None
        self._thread: threading.Thread | None = None
        self._stop_wanted = False
        self._given_up = threading.Event()
        self._starts: deque[float] = deque()
        self._lost: ServerError | None = None
        self._failure: Callable[[Exception], None] = lambda _: None

    @property
    def pid(self) -> int:
        """The process id of Envoy."""
        if self._process is None:
            raise RuntimeError("the balancer was not started")
        return self._process.pid

    def start(self, targets: Collection[Target], on_failure: Callable[[Exception], None]) -> None:
        """Start Envoy over the targets and return when it takes requests to all of them.

        `on_failure` hears of it, from another thread, when Envoy dies too often.

        Raises:
            ModelNotReadyError: it does not get ready in time.
            ServerError: it dies again and again, for instance because a port is taken.
        """
        self._failure = on_failure
        self._directory.mkdir(mode=0o700)
        config = self._directory / "envoy.yaml"
        tls = _tls_context(self._settings)
        config.write_text(bootstrap(self._settings, self._ports, self._directory, tls))
        self._write(targets)
        self._thread = threading.Thread(target=self._keep, args=[config], name="balancer")
        self._thread.start()
        self._await(targets)

    def use(self, targets: Collection[Target], *, healthy: bool = True) -> None:
        """Balance over these targets and no others from now on; wait until all are healthy.

        Raises:
            ModelNotReadyError: Envoy has not taken them over in time, or one is not healthy.
        """
        self._write(targets)
        self._await(targets, healthy=healthy)

    def stop_waiting(self) -> None:
        """Let `start` and `use` give up on replicas that are not healthy yet."""
        self._given_up.set()

    def stop(self) -> None:
        """End Envoy at once, with the connections that it has."""
        self._stop_wanted = True
        if self._process is not None:
            self._process.signal(signal.SIGTERM)
        if self._thread is not None:
            self._thread.join()
        shutil.rmtree(self._directory, ignore_errors=True)

    def _keep(self, config: Path) -> None:
        """Run Envoy, again whenever it dies; it dies with this thread."""
        while not self._stop_wanted:
            self._process = Process(
                [str(self._binary), "--config-path", str(config), *_FLAGS], os.environ, self._log
            )
            if self._stop_wanted:
                self._process.signal(signal.SIGTERM)
            code = self._process.wait()
            if self._stop_wanted:
                return
            reason = f"Envoy ended by itself with code {code}."
            if not self._may_restart():
                self._lost = ServerError(reason + self._process.last_lines())
                self._failure(self._lost)
                return
            self._log(f"{reason} Starting it again.")

    def _may_restart(self) -> bool:
        now = time.monotonic()
        self._starts.append(now)
        while now - self._starts[0] > _RESTART_WINDOW_S:
            self._starts.popleft()
        return len(self._starts) <= self._settings.restart_limit

    def _write(self, targets: Collection[Target]) -> None:
        for protocol in PROTOCOLS:
            text = json.dumps(assignment(protocol, targets), indent=1)
            new = self._directory / f"{protocol}.json.new"
            new.write_text(text)
            new.replace(self._directory / f"{protocol}.json")  # Envoy sees moves alone

    def _await(self, targets: Collection[Target], *, healthy: bool = True) -> None:
        patience_s = self._settings.startup_timeout_s
        deadline = time.monotonic() + patience_s
        wanted = {
            (protocol, *address) for protocol in PROTOCOLS for address in _of(protocol, targets)
        }
        while True:
            found = self._hosts()
            if (
                found is not None
                and found.keys() == wanted
                and (not healthy or all(found.values()))
            ):
                break
            if self._lost is not None:
                raise self._lost
            if time.monotonic() > deadline:
                raise ModelNotReadyError(_not_taken_over(wanted, found, patience_s))
            if self._given_up.wait(_POLL_S):
                raise ModelNotReadyError("Envoy was told to stop before its replicas were ready.")
        time.sleep(_SETTLE_S)

    def _hosts(self) -> dict[tuple[str, str, int], bool] | None:
        """Return whether each (protocol, host, port) is healthy; None when Envoy is not ready."""
        try:
            ready, _ = _get(self._admin, "/ready")
            status, text = _get(self._admin, "/clusters?format=json")
        except (OSError, http.client.HTTPException):
            return None
        if not ready == status == http.client.OK:
            return None
        return {
            (cluster["name"], address["address"], address["port_value"]): _is_healthy(host)
            for cluster in json.loads(text)["cluster_statuses"]
            if cluster["name"] in PROTOCOLS
            for host in cluster.get("host_statuses", [])
            for address in [host["address"]["socket_address"]]
        }


def envoy_binary() -> Path:
    """Find the packaged Envoy.

    Raises:
        ConfigurationError: it is not installed.
    """
    spec = find_spec("envoy")
    for folder in (spec and spec.submodule_search_locations) or ():
        if (binary := Path(folder) / "_bin" / "envoy").is_file():
            return binary
    raise ConfigurationError(f"balancer = envoy, but Envoy is not installed. {INSTALL}")


_FLAGS = ("--disable-hot-restart", "--log-level", "error", "--log-format", "envoy: %v")


def bootstrap(settings: Settings, ports: Ports, directory: Path, tls: str = "") -> str:
    """Return Envoy's configuration, which reads its endpoints from a directory."""
    return string.Template(TEMPLATE.read_text(encoding="utf-8")).substitute(
        host=settings.host,
        grpc_port=ports.grpc,
        http_port=ports.http,
        metrics_host=settings.metrics_address or settings.host,
        metrics_port=ports.metrics,
        admin=directory / "admin.sock",
        endpoints=directory,
        grpc_tls=tls or "# gRPC without TLS; a transport_socket here would encrypt it",
    )


def assignment(protocol: str, targets: Collection[Target]) -> dict[str, Any]:
    """Return the endpoints of one protocol in the form that Envoy reads from a file."""
    hosts = [{"address": host, "port_value": port} for host, port in _of(protocol, targets)]
    endpoints = [{"endpoint": {"address": {"socket_address": host}}} for host in hosts]
    return {
        "resources": [
            {
                "@type": f"{_TYPE}config.endpoint.v3.ClusterLoadAssignment",
                "cluster_name": protocol,
                "endpoints": [{"lb_endpoints": endpoints}],
            }
        ]
    }


def _tls_context(settings: Settings) -> str:
    """Return the part that encrypts the gRPC port, as one line of JSON, which is YAML too."""
    files = tls_files(settings)
    if not files:
        return ""
    pair = {
        "certificate_chain": {"filename": str(files["grpc_tls_cert"].absolute())},
        "private_key": {"filename": str(files["grpc_tls_key"].absolute())},
    }
    common: dict[str, Any] = {"tls_certificates": [pair], "alpn_protocols": ["h2"]}
    authority = files.get("grpc_tls_client_ca")
    if authority is not None:
        common["validation_context"] = {"trusted_ca": {"filename": str(authority.absolute())}}
    context = {
        "@type": f"{_TYPE}extensions.transport_sockets.tls.v3.DownstreamTlsContext",
        "common_tls_context": common,
        "require_client_certificate": authority is not None,
    }
    socket_of = {"name": "envoy.transport_sockets.tls", "typed_config": context}
    return f"transport_socket: {json.dumps(socket_of)}"


def _of(protocol: str, targets: Collection[Target]) -> list[tuple[str, int]]:
    return [(target.host, getattr(target, f"{protocol}_port")) for target in targets]


def _is_healthy(host: dict[str, Any]) -> bool:
    return not host["health_status"].keys() - {"eds_health_status"}


def _not_taken_over(
    wanted: Collection[tuple[str, str, int]],
    found: dict[tuple[str, str, int], bool] | None,
    patience_s: float,
) -> str:
    if found is None:
        return f"Envoy was not ready after {patience_s:g} s (startup_timeout_s)."
    asked = [f"{host}:{port} ({protocol})" for protocol, host, port in wanted]
    sick = [f"{host}:{port} ({name})" for (name, host, port), well in found.items() if not well]
    return (
        f"Envoy did not balance over healthy {', '.join(sorted(asked)) or 'nothing'} after "
        f"{patience_s:g} s (startup_timeout_s); not healthy: {', '.join(sorted(sick)) or 'none'}."
    )


def _get(path: Path, url: str) -> tuple[int, bytes]:
    """Ask an HTTP server that listens at a socket file."""
    connection = http.client.HTTPConnection("envoy", timeout=5)
    connection.sock = socket.socket(socket.AF_UNIX)
    try:
        connection.sock.settimeout(5)
        connection.sock.connect(str(path))
        connection.request("GET", url)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()
