"""The real Prometheus and Alertmanager on the project's own files, with time made shorter."""

import json
import re
import shutil
import socket
import subprocess
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, TypeVar

import pytest

T = TypeVar("T")
ROOT = Path(__file__).parents[3]
MONITORING = ROOT / "deploy/monitoring"
TEMPLATES = Path("/usr/share/prometheus/alertmanager")
SCRAPE_INTERVAL_S = 1
_FASTER = 60
PATIENCE_S = 120.0
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_DURATION = re.compile(r"(\[|for: |group_wait: |group_interval: )(\d+)([smhd])\b")
_INTERVAL = re.compile(r"(scrape_interval|evaluation_interval): \w+")


def program(*names: str) -> str:
    """Return where one of these programs is, from .cache/tools or the PATH, or skip the test."""
    for name in names:
        found = [*ROOT.glob(f".cache/tools/*/usr/bin/{name}"), shutil.which(name)]
        if found[0]:
            return str(found[0])
    pytest.skip(f"{names[0]} is not here; fetch it with: make tools")


def promtool() -> str:
    """Return where promtool is, or skip the test."""
    return program("promtool")


def amtool() -> str:
    """Return where amtool is, or skip the test."""
    return program("amtool")


def faster(text: str) -> str:
    """Make a minute of rules, Prometheus or Alertmanager last a second, and scrape every second."""

    def shorter(match: re.Match[str]) -> str:
        seconds = int(match[2]) * _SECONDS[match[3]] / _FASTER
        # A rate needs two scrapes, and a busy machine is late for some.
        return f"{match[1]}{max(5 if match[1] == '[' else 1, round(seconds))}s"

    return _INTERVAL.sub(rf"\1: {SCRAPE_INTERVAL_S}s", _DURATION.sub(shorter, text))


def free_port() -> int:
    """Return a port that was free just now."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@contextmanager
def prometheus(folder: Path, targets: Sequence[str], alertmanager: str = "") -> Iterator[str]:
    """Run Prometheus on a faster copy of its files; give its address.

    Args:
        folder: An empty directory for the copy and the data.
        targets: The `host:port` of each metrics port.
        alertmanager: The `host:port` of Alertmanager, if there is one.
    """
    found = program("prometheus")
    for path in (MONITORING / "prometheus.yml", *sorted((MONITORING / "rules").glob("*.yml"))):
        copy = folder / path.relative_to(MONITORING)
        copy.parent.mkdir(exist_ok=True)
        copy.write_text(faster(path.read_text()))
    (folder / "targets").mkdir()
    told = [alertmanager] if alertmanager else []
    for name, places in (("sensorium", targets), ("alertmanager", told)):
        (folder / f"targets/{name}.yml").write_text(json.dumps([{"targets": list(places)}]))
    port = free_port()
    options = (
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
    )
    with _running([found, *options], f"http://127.0.0.1:{port}/-/ready") as _:
        yield f"http://127.0.0.1:{port}"


@contextmanager
def alertmanager(folder: Path, webhook: str) -> Iterator[str]:
    """Run Alertmanager on a faster copy of its file; give its `host:port`."""
    found = program("alertmanager", "prometheus-alertmanager")
    if found.endswith("prometheus-alertmanager") and len([*TEMPLATES.glob("*.tmpl")]) < 2:
        pytest.skip(f"Debian's Alertmanager needs its templates in {TEMPLATES}: make tools")
    text = faster((MONITORING / "alertmanager.yml").read_text())
    (folder / "alertmanager.yml").write_text(text.replace("http://localhost:9094", webhook))
    port = free_port()
    options = (
        f"--config.file={folder / 'alertmanager.yml'}",
        f"--storage.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--cluster.listen-address=",
    )
    with _running([found, *options], f"http://127.0.0.1:{port}/-/ready") as _:
        yield f"127.0.0.1:{port}"


class Webhook:
    """A receiver of alerts."""

    def __init__(self) -> None:
        self.received: list[dict[str, Any]] = []

    def alerts(self, name: str) -> list[tuple[str, str]]:
        """Return the receiver and the status of each notice of an alert, the first one first."""
        return [
            (notice["receiver"], alert["status"])
            for notice in self.received
            for alert in notice["alerts"]
            if alert["labels"]["alertname"] == name
        ]


@contextmanager
def webhook() -> Iterator[tuple[Webhook, str]]:
    """Run a receiver of alerts; give it and its address."""
    made = Webhook()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            made.received.append(json.loads(body))
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002 - inherited
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=[0.05])
    thread.start()
    try:
        yield made, f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def eventually(look: Callable[[], T], what: str, patience_s: float = PATIENCE_S) -> T:
    """Look again and again until something is seen, and return it."""
    end = time.monotonic() + patience_s
    while not (seen := look()):
        assert time.monotonic() < end, f"{what}: not within {patience_s:g} s"
        time.sleep(0.2)
    return seen


@contextmanager
def _running(command: Sequence[str], ready: str) -> Iterator[None]:
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    log: list[str] = []
    pump = threading.Thread(target=lambda: log.extend(process.stdout or ()))
    pump.start()
    try:
        eventually(lambda: _answers(ready) or process.poll() is not None, command[0])
        assert process.poll() is None, "".join(log)
        yield
    finally:
        process.terminate()
        process.wait(30)
        pump.join()
        if process.stdout:
            process.stdout.close()


def _answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(address, timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False
