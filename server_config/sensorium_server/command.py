"""From settings to the command line and the environment of `tritonserver`."""

import os
import socket
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sensorium.errors import ConfigurationError
from sensorium_server.process import REGIONS
from sensorium_server.runtime import OWN_BACKENDS, Runtime
from sensorium_server.settings import Settings, environment_of, flag_name

_LEVELS = {"error": 0, "warning": 1, "info": 2, "debug": 3}
_ANY_HOST = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - compared, not bound


@dataclass(frozen=True, slots=True)
class Ports:
    """The ports that a server listens on."""

    http: int
    grpc: int
    metrics: int


def command(settings: Settings, runtime: Runtime, ports: Ports) -> list[str]:
    """Return the command line."""
    level = _LEVELS[settings.log_level]
    options = {
        "model-repository": settings.repository.absolute(),
        "backend-directory": runtime.backends,
        "cache-directory": runtime.caches,
        "http-address": settings.host,
        "http-port": ports.http,
        "http-thread-count": settings.http_threads,
        "grpc-address": settings.host,
        "grpc-port": ports.grpc,
        "metrics-address": settings.metrics_address or settings.host,
        "metrics-port": ports.metrics,
        "allow-gpu-metrics": _bool(settings.gpu_metrics),
        "metrics-config": "summary_latencies=false",
        "model-load-thread-count": settings.load_threads,
        "exit-timeout-secs": settings.drain_timeout_s,
        "log-warning": _bool(level >= _LEVELS["warning"]),
        "log-info": _bool(level >= _LEVELS["info"]),
        "log-verbose": int(level >= _LEVELS["debug"]),
    }
    if settings.model_config_name:
        options["model-config-name"] = settings.model_config_name
    flags = [f"--{name}={value}" for name, value in options.items()]
    return [
        str(runtime.binary),
        *flags,
        "--disable-auto-complete-config",
        *_tls_flags(settings),
        *_backend_flags(settings),
    ]


def _bool(value: bool) -> str:  # noqa: FBT001 - it is what this is about
    return "true" if value else "false"


def tls_files(settings: Settings) -> dict[str, Path]:
    """Return the files of an encrypted gRPC port by the names of their settings, none without TLS.

    Raises:
        ConfigurationError: a file is missing, or certificate and key do not come together.
    """
    files = {
        "grpc_tls_cert": settings.grpc_tls_cert,
        "grpc_tls_key": settings.grpc_tls_key,
        "grpc_tls_client_ca": settings.grpc_tls_client_ca,
    }
    given = {name: path for name, path in files.items() if path is not None}
    if given and not {"grpc_tls_cert", "grpc_tls_key"} <= set(given):
        raise ConfigurationError(
            f"{', '.join(given)} is set; TLS needs grpc_tls_cert and grpc_tls_key together."
        )
    for name, path in given.items():
        if not path.is_file():
            raise ConfigurationError(f"{name} = {path} is not a file.")
    return given


def _tls_flags(settings: Settings) -> Iterator[str]:
    given = tls_files(settings)
    if not given:
        return
    mutual = "grpc_tls_client_ca" in given
    yield f"--grpc-use-ssl{'-mutual' if mutual else ''}=true"
    yield f"--grpc-server-cert={settings.grpc_tls_cert}"
    yield f"--grpc-server-key={settings.grpc_tls_key}"
    if mutual:
        yield f"--grpc-root-cert={settings.grpc_tls_client_ca}"


def _backend_flags(settings: Settings) -> Iterator[str]:
    for backend in ("python", *OWN_BACKENDS):
        yield f"--backend-config={backend},shm-region-prefix-name={REGIONS}"
        yield f"--backend-config={backend},shm-default-byte-size={settings.shared_memory_bytes}"


def environment(settings: Settings, runtime: Runtime) -> dict[str, str]:
    """Return the environment: the settings, our Python first, and no needless threads."""
    inherited = dict(os.environ)
    libraries = [runtime.library_path, inherited.get("LD_LIBRARY_PATH", "")]
    return {
        "OMP_NUM_THREADS": "1",
        "TOKENIZERS_PARALLELISM": "false",
        **inherited,
        **environment_of(settings),
        "LD_LIBRARY_PATH": os.pathsep.join(filter(None, libraries)),
        # The stub's interpreter finds its environment through the first `python3` on the path.
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), inherited.get("PATH", "")]),
    }


def reachable_host(host: str) -> str:
    """Return the address by which this machine reaches a server that listens on `host`."""
    return _ANY_HOST.get(host, host)


def reserve_ports(settings: Settings, metrics: str = "metrics_port") -> Ports:
    """Return the ports to listen on, with a free one for each 0; `metrics` names a setting.

    Raises:
        ConfigurationError: ports are taken or equal; the message lists all.
    """
    wanted = {"http": "http_port", "grpc": "grpc_port", "metrics": metrics}
    problems, sockets, ports = [], [], {}
    for name, setting in wanted.items():
        port = int(getattr(settings, setting))
        host = (settings.metrics_address if name == "metrics" else "") or settings.host
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        held = socket.socket(family, socket.SOCK_STREAM)
        sockets.append(held)
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            held.bind((host, port))
            ports[name] = int(held.getsockname()[1])
        except OSError as error:
            problems.append(
                f"port {port} for {name} at {host} cannot be used: {error.strerror}. Stop "
                f"what uses it, or choose another with {flag_name(setting)}; 0 finds one."
            )
    for held in sockets:
        held.close()
    if problems:
        raise ConfigurationError("\n".join(problems))
    return Ports(**ports)
