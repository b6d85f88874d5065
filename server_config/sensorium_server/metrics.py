"""Every metric of ours, written once: its name, labels, buckets, and who observes it.

Triton's own metrics stay on its metrics port. These are what it lacks; `sensorium serve` exposes
them on `service_metrics_port`. Stages observe in Triton's Python processes, by prometheus-client's
files in one directory (see `recorder.py`); the launcher observes what only it can know.

All histograms have fixed buckets, so that they can be added over replicas.
"""

import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics
from prometheus_client.metrics_core import Metric as MetricFamily
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from sensorium_server.process import SHARED_MEMORY, clear_dead_regions, region_prefix

DIRECTORY_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
"""Names the directory of prometheus-client's files to Triton's Python processes."""

# The time at which each series began would double their number.
disable_created_metrics()  # type: ignore[no-untyped-call]

_REQUEST_S = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 60)
_STAGE_S = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 20)
_QUEUE_S = (0.0001, 0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 20)
_ITEMS = (1, 2, 4, 8, 16, 32, 64, 128)


Observer = Literal["launcher", "stage"]


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric; `observers` are the processes that know it."""

    name: str
    kind: type[Counter] | type[Gauge] | type[Histogram]
    observers: tuple[Observer, ...]
    labels: tuple[str, ...]
    text: str
    buckets: tuple[float, ...] = ()


REQUEST_SECONDS = Metric(
    "sensorium_request_seconds",
    Histogram,
    ("launcher",),
    ("task", "outcome"),
    "Time from a task's request to its answer, as the server sees it; outcome is ok or error.",
    _REQUEST_S,
)
STAGE_QUEUE_SECONDS = Metric(
    "sensorium_stage_queue_seconds",
    Histogram,
    ("launcher", "stage"),
    ("stage",),
    "Time that a request waited for a stage: in Triton's queue, or for a slot of a decoder.",
    _QUEUE_S,
)
BUNDLE_INFO = Metric(
    "sensorium_bundle_info",
    Gauge,
    ("launcher",),
    ("bundle", "manifest", "precision"),
    "1 for each bundle that is served; manifest is the start of its digest.",
)
PARITY_PASSED = Metric(
    "sensorium_parity_passed",
    Gauge,
    ("launcher",),
    ("bundle",),
    "1 when the bundle's parity card has passed and is of these very files, else 0.",
)
PARITY_INPUTS = Metric(
    "sensorium_parity_inputs",
    Gauge,
    ("launcher",),
    ("bundle",),
    "Inputs on which the bundle was compared with PyTorch.",
)
SERVER_RESTARTS = Metric(
    "sensorium_server_restarts_total",
    Counter,
    ("launcher",),
    (),
    "Tritons that ended by themselves and were started again.",
)
STAGE_SECONDS = Metric(
    "sensorium_stage_seconds",
    Histogram,
    ("stage",),
    ("stage",),
    "Time of one batch's computation; of text_decoder, of one step of all texts.",
    _STAGE_S,
)
BATCH_SIZE = Metric(
    "sensorium_batch_size",
    Histogram,
    ("stage",),
    ("stage",),
    "Items in one run of a stage.",
    _ITEMS,
)
REJECTED = Metric(
    "sensorium_rejected_total",
    Counter,
    ("stage",),
    ("stage", "reason"),
    "Requests that a stage answered with an error; reason is the error's class.",
)
TOKENS_GENERATED = Metric(
    "sensorium_tokens_generated_total",
    Counter,
    ("stage",),
    ("stage",),
    "Tokens of the texts that were answered.",
)
MEDIA_BYTES = Metric(
    "sensorium_media_bytes_total",
    Counter,
    ("stage",),
    ("modality",),
    "Bytes of the files that came to be decoded.",
)
MEDIA_DECODE_ERRORS = Metric(
    "sensorium_media_decode_errors_total",
    Counter,
    ("stage",),
    ("modality", "reason"),
    "Requests whose file could not be decoded; reason is the error's class.",
)

METRICS: Sequence[Metric] = (
    REQUEST_SECONDS,
    STAGE_QUEUE_SECONDS,
    STAGE_SECONDS,
    BATCH_SIZE,
    REJECTED,
    TOKENS_GENERATED,
    MEDIA_BYTES,
    MEDIA_DECODE_ERRORS,
    BUNDLE_INFO,
    PARITY_PASSED,
    PARITY_INPUTS,
    SERVER_RESTARTS,
)


class Meter:
    """The metrics of one observer, in a registry of its own."""

    def __init__(self, observer: Observer) -> None:
        self.registry = CollectorRegistry()
        self._made = {
            metric.name: _made(metric, self.registry)
            for metric in METRICS
            if observer in metric.observers
        }

    def count(self, metric: Metric, labels: Mapping[str, str], amount: float = 1) -> None:
        """Add to a counter."""
        made = self._of(metric, labels)
        if not isinstance(made, Counter):
            raise TypeError(f"{metric.name} is not a counter")
        made.inc(amount)

    def observe(self, metric: Metric, labels: Mapping[str, str], value: float) -> None:
        """Put a value into a histogram."""
        made = self._of(metric, labels)
        if not isinstance(made, Histogram):
            raise TypeError(f"{metric.name} is not a histogram")
        made.observe(value)

    def set(self, metric: Metric, labels: Mapping[str, str], value: float) -> None:
        """Set a gauge."""
        made = self._of(metric, labels)
        if not isinstance(made, Gauge):
            raise TypeError(f"{metric.name} is not a gauge")
        made.set(value)

    def _of(self, metric: Metric, labels: Mapping[str, str]) -> Counter | Gauge | Histogram:
        made = self._made[metric.name]
        return made.labels(**labels) if metric.labels else made


def _made(metric: Metric, registry: CollectorRegistry) -> Counter | Gauge | Histogram:
    if metric.kind is Histogram:
        return Histogram(
            metric.name, metric.text, metric.labels, registry=registry, buckets=metric.buckets
        )
    return metric.kind(metric.name, metric.text, metric.labels, registry=registry)


class Exposition(Collector):
    """All metrics as one: those of the launcher, and the sums over the stages' files.

    A metric that both observe has one family, as the format demands; their labels differ.
    """

    def __init__(self, launcher: Meter, files: Path) -> None:
        self._launcher = launcher
        self._stages = CollectorRegistry()
        MultiProcessCollector(self._stages, str(files))  # type: ignore[no-untyped-call]

    def collect(self) -> Iterator[MetricFamily]:
        """Yield each family once."""
        families: dict[str, MetricFamily] = {}
        for family in (*self._launcher.registry.collect(), *self._stages.collect()):
            if family.name in families:
                families[family.name].samples.extend(family.samples)
            else:
                families[family.name] = family
        yield from families.values()


class StageFiles:
    """The directory to which the stages of one server write what they observe.

    It lies in memory, is named by its owner, and goes with it; what a killed one left is removed by
    the next.
    """

    def __init__(self) -> None:
        clear_dead_regions()
        self.path = SHARED_MEMORY / f"{region_prefix()}metrics"
        self.path.mkdir(mode=0o700)

    def clear(self) -> None:
        """Forget everything, before Triton starts anew: to Prometheus a reset of all counters."""
        for file in self.path.glob("*.db"):
            file.unlink(missing_ok=True)

    def remove(self) -> None:
        """Remove the directory."""
        shutil.rmtree(self.path, ignore_errors=True)
