"""What the launcher keeps beside Triton: the log, the metrics' endpoint, and the spans' way.

    Triton's output ─▶ log ◀─ failures ─┐
    Triton's spans  ─▶ finished requests ┴▶ histograms, request log, the collector at `trace_url`
    stages' files   ─▶ /metrics at `service_metrics_port`

It outlives a Triton that crashes, so that counters of the launcher go on.
"""

import json
import re
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prometheus_client import start_http_server

from sensorium.errors import ConfigurationError
from sensorium_server import metrics
from sensorium_server.gate import CARD_SUFFIX, problem_of
from sensorium_server.log_record import Log
from sensorium_server.manifest import SUFFIX, digest
from sensorium_server.metrics import Exposition, Meter, StageFiles
from sensorium_server.request_log import RequestLog
from sensorium_server.settings import Settings, flag_name
from sensorium_server.span_receiver import SpanReceiver
from sensorium_server.spans import FinishedRequest, SpanTrees, spans_of
from sensorium_server.trace_export import TraceExport

_TICK_S = 0.25
_ENSEMBLE = re.compile(r"^\s*platform:\s*\"ensemble\"", re.MULTILINE)
_DECODER = re.compile(r'^\s*backend:\s*"decoder"', re.MULTILINE)
_STEP = re.compile(r'\bmodel_name:\s*"([^"]+)"')
_PRECISION = re.compile(r'key:\s*"precision"\s*value\s*:?\s*\{\s*string_value:\s*"(\w+)"')
_DIGITS = 12


@dataclass(frozen=True, slots=True)
class Bundle:
    """What the metrics tell about a served bundle."""

    name: str
    manifest: str
    precision: str
    passed: bool
    inputs: int


class Telemetry:
    """Starts with the server and ends after it."""

    def __init__(self, settings: Settings, write: Callable[[str], None], name: str = "") -> None:
        self.log = Log(write, settings.log_format, settings.log_level, name)
        self._settings = settings
        self._requests = RequestLog(self.log)
        self._meter = Meter("launcher")
        self._files: StageFiles | None = None
        self._trees = SpanTrees()
        self._steps: Mapping[str, Sequence[str]] = {}
        self._decoders: Collection[str] = ()
        self._closing: list[Callable[[], None]] = []
        self._stopped = threading.Event()
        self._export: TraceExport | None = None
        self.spans_url = ""

    def start(self, port: int) -> None:
        """Open the metrics' endpoint on a port, and the receiver of spans where one is needed.

        Raises:
            ConfigurationError: the port was taken meanwhile.
        """
        settings = self._settings
        self._steps = steps_of(settings.repository)
        self._decoders = decoders_of(settings.repository)
        self._files = StageFiles()
        self._closing.append(self._files.remove)
        self._describe_bundles()
        host = settings.metrics_address or settings.host
        try:
            exposition = Exposition(self._meter, self._files.path)
            server, thread = start_http_server(port, host, exposition)
        except OSError as error:
            self.close()
            raise ConfigurationError(
                f"port {port} for service metrics at {host} cannot be used: "
                f"{error.strerror}. Choose another with {flag_name('service_metrics_port')}."
            ) from None
        self._closing += [thread.join, server.server_close, server.shutdown]
        if settings.request_metrics or settings.trace_url:
            self._receive_spans()

    def _receive_spans(self) -> None:
        settings = self._settings
        if settings.trace_url:
            self._export = TraceExport(settings.trace_url, settings.trace_rate, self.log.say)
            self._closing.append(self._export.close)
        receiver = SpanReceiver(lambda document: self._trees.add(spans_of(document)))
        ticker = threading.Thread(target=self._finish_requests, name="telemetry", daemon=True)
        ticker.start()
        self._closing += [ticker.join, self._stopped.set, receiver.close]
        self.spans_url = receiver.url

    def close(self) -> None:
        """Account for what came last, and close everything."""
        while self._closing:
            self._closing.pop()()
        self._requests.write_unjoined(at_once=True)

    @property
    def stage_files(self) -> Path:
        """Where the stages write what they observe."""
        if self._files is None:
            raise RuntimeError("telemetry was not started")
        return self._files.path

    def take_line(self, line: str) -> None:
        """Take a line of Triton's output."""
        if not self._requests.take(line):
            self.log.triton_line(line)

    def triton_restarts(self) -> None:
        """Count a Triton that is started again; the dead one's stages begin at 0."""
        self._meter.count(metrics.SERVER_RESTARTS, {})
        if self._files is not None:
            self._files.clear()

    def _describe_bundles(self) -> None:
        for bundle in bundles_of(self._settings.repository):
            named = {"bundle": bundle.name}
            info = {**named, "manifest": bundle.manifest, "precision": bundle.precision}
            self._meter.set(metrics.BUNDLE_INFO, info, 1)
            self._meter.set(metrics.PARITY_PASSED, named, int(bundle.passed))
            self._meter.set(metrics.PARITY_INPUTS, named, bundle.inputs)

    def _finish_requests(self) -> None:
        while not self._stopped.wait(_TICK_S):
            self._finish()
            self._requests.write_unjoined()
        self._finish(at_once=True)

    def _finish(self, *, at_once: bool = False) -> None:
        for request in self._trees.finished(at_once=at_once):
            steps = self._steps.get(request.model)
            failure = self._requests.failure_of(request, steps)
            if self._settings.request_metrics:
                self._observe(request, "error" if failure else "ok", is_task=steps is not None)
            self._requests.write(request, failure, is_task=steps is not None)
            if self._export is not None:
                self._export.offer(request, failure.reason if failure else None)

    def _observe(self, request: FinishedRequest, outcome: str, *, is_task: bool) -> None:
        if is_task:
            labels = {"task": request.model, "outcome": outcome}
            self._meter.observe(metrics.REQUEST_SECONDS, labels, request.seconds)
        # A decoder takes all that comes, and knows itself how long a text waits for a slot.
        for each in request.stages:
            if each.queue_s is not None and each.stage not in self._decoders:
                labels = {"stage": each.stage}
                self._meter.observe(metrics.STAGE_QUEUE_SECONDS, labels, each.queue_s)


def steps_of(repository: Path) -> dict[str, list[str]]:
    """Return the stages of each ensemble of a repository, in order."""
    return {
        name: _STEP.findall(text) for name, text in _configs(repository) if _ENSEMBLE.search(text)
    }


def decoders_of(repository: Path) -> set[str]:
    """Return the stages of a repository that generate text."""
    return {name for name, text in _configs(repository) if _DECODER.search(text)}


def _configs(repository: Path) -> Iterator[tuple[str, str]]:
    for path in repository.glob("*/config.pbtxt"):
        yield path.parent.name, _text(path)


def bundles_of(repository: Path) -> Iterator[Bundle]:
    """Yield the bundles of a repository."""
    for manifest in sorted(repository.glob(f"*{SUFFIX}")):
        name = manifest.name.removesuffix(SUFFIX)
        yield Bundle(
            name=name,
            manifest=digest(manifest).partition(":")[2][:_DIGITS],
            precision=_precision(repository, _json(manifest)),
            passed=problem_of(manifest) is None,
            inputs=int(_json(manifest.with_name(name + CARD_SUFFIX)).get("inputs", 0)),
        )


def _precision(repository: Path, manifest: Mapping[str, Any]) -> str:
    """Return the precisions of a bundle's graphs: `fp32`, or the lower ones with `+` between."""
    models = {str(name).partition("/")[0] for name in manifest.get("files", ())}
    configs = (repository / model / "config.pbtxt" for model in models)
    found = {
        precision
        for config in configs
        if config.is_file()
        for precision in _PRECISION.findall(_text(config))
    }
    return "+".join(sorted(found - {"fp32"})) or "fp32"


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def _json(path: Path) -> Mapping[str, Any]:
    """Return a file's object; an empty one where it is missing or broken, which the gate tells."""
    try:
        values = json.loads(_text(path))
    except (OSError, ValueError):
        return {}
    return values if isinstance(values, dict) else {}
