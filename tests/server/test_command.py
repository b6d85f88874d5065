import socket
import sys
from pathlib import Path

import pytest

from sensorium.errors import ConfigurationError
from sensorium_server.command import Ports, command, environment, reachable_host, reserve_ports
from sensorium_server.runtime import Runtime
from sensorium_server.settings import FREE_PORTS, Settings, load

RUNTIME = Runtime(Path("/t/tritonserver"), Path("/t/backends"), Path("/t/caches"), "/t/libs")
PORTS = Ports(http=1, grpc=2, metrics=3, service_metrics=4)


def flags(settings: Settings) -> list[str]:
    """Return the command line of some settings."""
    return command(settings, RUNTIME, PORTS)


def test_settings_become_flags(tmp_path: Path) -> None:
    """Ports, host, repository and log level reach Triton."""
    line = flags(load({"host": "0.0.0.0", "repository": tmp_path, "log_level": "error"}))

    assert line[0] == "/t/tritonserver"
    assert {
        f"--model-repository={tmp_path}",
        "--http-port=1",
        "--grpc-port=2",
        "--metrics-port=3",
        "--grpc-address=0.0.0.0",
        "--log-warning=false",
        "--backend-directory=/t/backends",
    } <= set(line)


def test_config_name_only_when_asked_for() -> None:
    """Another config than config.pbtxt is used only when one is named."""
    assert not [flag for flag in flags(load()) if "model-config-name" in flag]
    assert "--model-config-name=gpu" in flags(load({"model_config_name": "gpu"}))


def test_connections_live_for_ever_unless_told() -> None:
    """An age of connections reaches Triton in milliseconds, and only when there is one."""
    assert not [flag for flag in flags(load()) if "connection-age" in flag]
    assert "--grpc-max-connection-age=1500" in flags(load({"grpc_max_connection_age_s": 1.5}))


def test_tls(tmp_path: Path) -> None:
    """Certificate and key make gRPC speak TLS; an authority makes clients show theirs."""
    cert, key, authority = (tmp_path / name for name in ("cert", "key", "ca"))
    for path in (cert, key, authority):
        path.touch()
    pair = {"grpc_tls_cert": cert, "grpc_tls_key": key}

    plain = flags(load(pair))
    mutual = flags(load({**pair, "grpc_tls_client_ca": authority}))

    assert {"--grpc-use-ssl=true", f"--grpc-server-cert={cert}", f"--grpc-server-key={key}"} <= set(
        plain
    )
    assert {"--grpc-use-ssl-mutual=true", f"--grpc-root-cert={authority}"} <= set(mutual)


def test_half_of_tls_is_refused(tmp_path: Path) -> None:
    """A certificate without its key, or a missing file, stops the start."""
    (tmp_path / "cert").touch()

    with pytest.raises(ConfigurationError, match="grpc_tls_cert is set; TLS needs"):
        flags(load({"grpc_tls_cert": tmp_path / "cert"}))
    with pytest.raises(ConfigurationError, match=r"grpc_tls_key = .*key is not a file"):
        flags(load({"grpc_tls_cert": tmp_path / "cert", "grpc_tls_key": tmp_path / "key"}))


def test_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """The stubs find our Python, Triton its libraries, and both the settings."""
    monkeypatch.setenv("LD_LIBRARY_PATH", "/mine")
    monkeypatch.setenv("OMP_NUM_THREADS", "3")

    variables = environment(load({"max_text_chars": 7}), RUNTIME)

    assert variables["PATH"].split(":")[0] == str(Path(sys.executable).parent)
    assert variables["LD_LIBRARY_PATH"] == "/t/libs:/mine"
    assert variables["SENSORIUM_MAX_TEXT_CHARS"] == "7"
    assert variables["OMP_NUM_THREADS"] == "3"


def test_nothing_is_sent_to_the_makers_of_a_library() -> None:
    """ONNX Runtime's telemetry is off, unless somebody turns it on."""
    assert environment(load(), RUNTIME)["ORT_DISABLE_TELEMETRY"] == "1"


def test_environment_of_metrics(monkeypatch: pytest.MonkeyPatch) -> None:
    """The stubs find where to write metrics, and no proxy comes between Triton and the launcher."""
    monkeypatch.setenv("no_proxy", "internal")

    variables = environment(load(), RUNTIME, Path("/files"))

    assert variables["PROMETHEUS_MULTIPROC_DIR"] == "/files"
    assert variables["no_proxy"] == "internal,127.0.0.1"


@pytest.mark.parametrize(
    ("chosen", "rate"),
    [
        ({"request_metrics": True}, "1"),
        ({"trace_rate": 0.02}, "50"),
        ({"trace_rate": 0}, "0"),
    ],
)
def test_rate_of_spans(chosen: dict[str, object], rate: str) -> None:
    """To measure whole requests each is traced; else only what may be exported is."""
    line = command(load(chosen), RUNTIME, PORTS, "http://127.0.0.1:5/v1/traces")

    assert f"--trace-config=rate={rate}" in line
    assert "--trace-config=opentelemetry,url=http://127.0.0.1:5/v1/traces" in line


def test_no_spans() -> None:
    """Without somebody who takes them, Triton makes no spans."""
    assert [flag for flag in command(load(), RUNTIME, PORTS) if "trace" in flag] == []


def test_free_ports_are_found() -> None:
    """Port 0 becomes a free port, different for each protocol."""
    ports = reserve_ports(load(FREE_PORTS))
    found = {ports.http, ports.grpc, ports.metrics, ports.service_metrics}

    assert len(found) == 4
    assert min(found) > 0


def test_taken_ports_are_listed() -> None:
    """Every port that cannot be had is named with its flag, all in one message."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        settings = load({**FREE_PORTS, "http_port": port, "metrics_port": port})

        with pytest.raises(ConfigurationError) as caught:
            reserve_ports(settings)

    lines = str(caught.value).splitlines()
    assert [f"port {port} for http" in lines[0], "--metrics-port" in lines[1]] == [True, True]


@pytest.mark.parametrize(
    ("host", "reached"), [("0.0.0.0", "127.0.0.1"), ("::", "::1"), ("10.0.0.7", "10.0.0.7")]
)
def test_reachable_host(host: str, reached: str) -> None:
    """A server that listens everywhere is reached over loopback."""
    assert reachable_host(host) == reached
