"""From settings to the command line and the environment of `tritonserver`."""

import os
import socket
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from sensorium.errors import ConfigurationError
from sensorium_server.metrics import DIRECTORY_VARIABLE
from sensorium_server.process import REGIONS
from sensorium_server.runtime import OWN_BACKENDS, Runtime
from sensorium_server.settings import Settings, environment_of, flag_name

_LEVELS = {"error": 0, "warning": 1, "info": 2, "debug": 3}
_SPANS_EVERY_MS = 500
_SPANS_AT_ONCE = 2048
_MAX_SPANS = 65_536
_NO_PROXY = ("NO_PROXY", "no_proxy")
_ANY_HOST = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - compared, not bound


@dataclass(frozen=True, slots=True)
class Ports:
    """The ports that a server listens on; a balancer has no service metrics."""

    http: int
    grpc: int
    metrics: int
    service_metrics: int = 0


def command(
    settings: Settings,
    runtime: Runtime,
    ports: Ports,
    spans_url: str = "",
    more: Sequence[str] = (),
) -> list[str]:
    """Return the command line, `more` flags last; `spans_url` is where Triton sends its spans."""
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
    if settings.grpc_max_connection_age_s:
        options["grpc-max-connection-age"] = round(settings.grpc_max_connection_age_s * 1000)
    if settings.model_config_name:
        options["model-config-name"] = settings.model_config_name
    flags = [f"--{name}={value}" for name, value in options.items()]
    return [
        str(runtime.binary),
        *flags,
        "--disable-auto-complete-config",
        *_tls_flags(settings),
        *_trace_flags(settings, spans_url),
        *_backend_flags(settings),
        *more,
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


def _trace_flags(settings: Settings, spans_url: str) -> Iterator[str]:
    """Yield the flags of tracing; requests with a trace context are traced at any rate."""
    if not spans_url:
        return
    share = 1 if settings.request_metrics else settings.trace_rate
    one_in = round(1 / share) if share else 0
    yield "--trace-config=mode=opentelemetry"
    yield "--trace-config=level=TIMESTAMPS"
    yield f"--trace-config=rate={one_in}"
    yield f"--trace-config=opentelemetry,url={spans_url}"
    yield f"--trace-config=opentelemetry,bsp_schedule_delay={_SPANS_EVERY_MS}"
    yield f"--trace-config=opentelemetry,bsp_max_queue_size={_MAX_SPANS}"
    yield f"--trace-config=opentelemetry,bsp_max_export_batch_size={_SPANS_AT_ONCE}"


def _backend_flags(settings: Settings) -> Iterator[str]:
    for backend in ("python", *OWN_BACKENDS):
        yield f"--backend-config={backend},shm-region-prefix-name={REGIONS}"
        yield f"--backend-config={backend},shm-default-byte-size={settings.shared_memory_bytes}"


def environment(
    settings: Settings, runtime: Runtime, stage_files: Path | None = None
) -> dict[str, str]:
    """Return the environment: the settings, our Python first, and no needless threads.

    `stage_files` is the directory to which stages write their metrics.
    """
    inherited = dict(os.environ)
    return {
        "OMP_NUM_THREADS": "1",
        # ONNX Runtime 1.32 keeps an identity of the machine in the home directory and has a sender.
        "ORT_DISABLE_TELEMETRY": "1",
        "TOKENIZERS_PARALLELISM": "false",
        **inherited,
        **environment_of(settings),
        **({DIRECTORY_VARIABLE: str(stage_files)} if stage_files else {}),
        # Spans go to this machine, whatever proxy there is.
        **{name: _joined(",", inherited.get(name), "127.0.0.1") for name in _NO_PROXY},
        "LD_LIBRARY_PATH": _joined(
            os.pathsep, runtime.library_path, inherited.get("LD_LIBRARY_PATH")
        ),
        # The stub's interpreter finds its environment through the first `python3` on the path.
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), inherited.get("PATH", "")]),
    }


def _joined(separator: str, *parts: str | None) -> str:
    return separator.join(filter(None, parts))


def reachable_host(host: str) -> str:
    """Return the address by which this machine reaches a server that listens on `host`."""
    return _ANY_HOST.get(host, host)


def reserve_ports(settings: Settings, *, for_balancer: bool = False) -> Ports:
    """Return the ports of a Triton to listen on, or of a balancer, with a free one for each 0.

    Raises:
        ConfigurationError: ports are taken or equal; the message lists all.
    """
    wanted = {"http": "http_port", "grpc": "grpc_port"}
    if for_balancer:
        wanted |= {"metrics": "balancer_metrics_port"}
    else:
        wanted |= {"metrics": "metrics_port", "service_metrics": "service_metrics_port"}
    problems, sockets, ports = [], [], {}
    for name, setting in wanted.items():
        port = int(getattr(settings, setting))
        host = (settings.metrics_address if "metrics" in name else "") or settings.host
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        held = socket.socket(family, socket.SOCK_STREAM)
        sockets.append(held)
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            held.bind((host, port))
            ports[name] = int(held.getsockname()[1])
        except OSError as error:
            problems.append(
                f"port {port} for {name.replace('_', ' ')} at {host} cannot be used: "
                f"{error.strerror}. Stop what uses it, or choose another with "
                f"{flag_name(setting)}; 0 finds one."
            )
    for held in sockets:
        held.close()
    if problems:
        raise ConfigurationError("\n".join(problems))
    return Ports(**ports)
