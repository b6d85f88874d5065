"""From Triton's spans to finished requests: which task, how long, which stages, what outcome.

    InferRequest ─▶ task ─▶ stage ─▶ compute        (one tree for each request)

Triton alone sees a whole ensemble, and its OpenTelemetry mode is the only way in which it tells
(docs/decisions/0017-requests-measured-by-spans.md). Spans come as OTLP in JSON, in batches,
children mostly but not always before their parents; so a request is finished a moment after its
root came.
"""

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Span = dict[str, Any]
"""A span of OTLP in JSON."""

ROOT = "InferRequest"
_COMPUTE = "compute"
_GRACE_S = 0.5
_FORGET_S = 600.0
_MAX_SPANS = 500_000


@dataclass(frozen=True, slots=True)
class StageTime:
    """How long one request waited for a stage and was in it, seconds; None when it never began."""

    stage: str
    queue_s: float | None
    total_s: float


@dataclass(frozen=True, slots=True)
class FinishedRequest:
    """One request, as its spans tell."""

    model: str
    request_id: str
    trace_id: str
    has_parent: bool
    seconds: float
    stages: Sequence[StageTime]
    spans: Sequence[Span]

    @property
    def span_ids(self) -> set[str]:
        """The ids of all its spans."""
        return {span["spanId"] for span in self.spans}

    def is_whole(self, steps: int) -> bool:
        """Tell whether so many stages ran: a queue may have refused one, or it failed before."""
        return len(self.stages) == steps and all(each.queue_s is not None for each in self.stages)


class SpanTrees:
    """Puts spans together; safe to use from many threads."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._children: dict[str, list[Span]] = defaultdict(list)
        self._arrivals: dict[str, float] = {}
        self._roots: list[tuple[float, Span]] = []

    def add(self, spans: Sequence[Span]) -> None:
        """Take spans."""
        now = self._clock()
        with self._lock:
            for span in spans:
                if span["name"] == ROOT:
                    self._roots.append((now, span))
                else:
                    self._children[span.get("parentSpanId", "")].append(span)
                    self._arrivals.setdefault(span.get("parentSpanId", ""), now)

    def finished(self, *, at_once: bool = False) -> list[FinishedRequest]:
        """Return, once, the requests whose root came a moment ago, or at any time."""
        due = self._clock() - (0 if at_once else _GRACE_S)
        with self._lock:
            ready = [root for arrival, root in self._roots if arrival <= due]
            self._roots = [(arrival, root) for arrival, root in self._roots if arrival > due]
            requests = [self._request(root) for root in ready]
            self._forget()
        return [request for request in requests if request is not None]

    def _request(self, root: Span) -> FinishedRequest | None:
        spans = [root, *self._below(root["spanId"])]
        tasks = [span for span in spans if span.get("parentSpanId") == root["spanId"]]
        if not tasks:
            return None
        task = tasks[0]
        # A stage that was called by itself is its own only one.
        stages = [
            span
            for span in spans
            if span.get("parentSpanId") == task["spanId"] and span["name"] != _COMPUTE
        ] or [task]
        facts = _attributes(task)
        return FinishedRequest(
            model=facts.get("triton.model_name", task["name"]),
            request_id=facts.get("triton.request_id", ""),
            trace_id=root["traceId"],
            has_parent=bool(root.get("parentSpanId")),
            seconds=_seconds(root),
            stages=[_stage_time(span, spans) for span in stages],
            spans=spans,
        )

    def _below(self, span_id: str) -> Iterator[Span]:
        """Yield the spans under one, and forget them."""
        self._arrivals.pop(span_id, None)
        for child in self._children.pop(span_id, ()):
            yield child
            yield from self._below(child["spanId"])

    def _forget(self) -> None:
        """Drop spans whose root never came, the oldest first."""
        oldest = self._clock() - _FORGET_S
        for parent, arrival in list(self._arrivals.items()):
            if arrival > oldest and len(self._arrivals) <= _MAX_SPANS:
                break
            del self._arrivals[parent]
            self._children.pop(parent, None)


def spans_of(document: Mapping[str, Any]) -> list[Span]:
    """Return all spans of an OTLP document."""
    return [
        span
        for resource in document.get("resourceSpans", ())
        for scope in resource.get("scopeSpans", ())
        for span in scope.get("spans", ())
    ]


def _stage_time(span: Span, spans: Sequence[Span]) -> StageTime:
    computes = [each for each in spans if each.get("parentSpanId") == span["spanId"]]
    queued = [int(e["timeUnixNano"]) for e in span.get("events", ()) if e["name"] == "QUEUE_START"]
    if not computes or not queued:
        return StageTime(span["name"], None, _seconds(span))
    begin = int(computes[0]["startTimeUnixNano"])
    return StageTime(span["name"], max(0, begin - queued[0]) / 1e9, _seconds(span))


def _seconds(span: Span) -> float:
    return (int(span["endTimeUnixNano"]) - int(span["startTimeUnixNano"])) / 1e9


def _attributes(span: Span) -> dict[str, str]:
    return {
        each["key"]: str(next(iter(each["value"].values()), ""))
        for each in span.get("attributes", ())
    }
