"""One log record for each failed request, and at `info` for each request.

What a stage says of a failure (`recorder.py`) comes at once, what Triton's spans say of the whole
request a moment later: together they are one record. Without spans the stage's word is the record.
"""

import json
import threading
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from sensorium_server.log_record import Level, Log
from sensorium_server.recorder import FAILED
from sensorium_server.spans import FinishedRequest

REFUSED = "queue_refused"
"""The outcome of a request that no stage has failed: Triton's queue was full, or it expired."""

_PATIENCE_S = 30.0
_INTERNAL = "server"


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a request failed, and in which stage."""

    reason: str
    facts: Mapping[str, object]


class RequestLog:
    """Joins what stages and spans say; safe to use from many threads."""

    def __init__(self, log: Log, clock: Callable[[], float] = time.monotonic) -> None:
        self._log = log
        self._clock = clock
        self._lock = threading.Lock()
        self._waiting: dict[str, tuple[float, dict[str, object]]] = {}

    def take(self, line: str) -> bool:
        """Take a stage's line from Triton's output; False when it is none."""
        if not line.startswith("{"):
            return False
        try:
            facts = json.loads(line)
        except ValueError:
            return False
        if facts.pop("event", None) != FAILED:
            return False
        span_id = facts.pop("span_id", None)
        if span_id is None:
            self._write(facts)
        else:
            with self._lock:
                self._waiting[span_id] = (self._clock(), facts)
        return True

    def failure_of(self, request: FinishedRequest, steps: Collection[str] | None) -> Failure | None:
        """Return why a finished request failed; None when it did not.

        `steps` are the stages of its task, and None when a stage was called by itself.
        """
        with self._lock:
            spans = request.span_ids & self._waiting.keys()
            said = [self._waiting.pop(span)[1] for span in spans]
        if said:
            return Failure(str(said[0]["outcome"]), said[0])
        if steps is None or request.is_whole(len(steps)):
            return None
        began = {each.stage for each in request.stages if each.queue_s is not None}
        stage = next((each for each in steps if each not in began), "")
        return Failure(REFUSED, {"stage": stage, "outcome": REFUSED})

    def write(self, request: FinishedRequest, failure: Failure | None, *, is_task: bool) -> None:
        """Write a finished request's record."""
        if failure is None and not self._log.is_shown("info"):
            return
        facts: dict[str, object] = {"request_id": request.request_id}
        if is_task:
            facts["task"] = request.model
        facts |= failure.facts if failure else {"outcome": "ok"}
        facts |= {
            "request_id": request.request_id,
            "duration_s": round(request.seconds, 6),
            "trace_id": request.trace_id,
        }
        self._write(facts)

    def write_unjoined(self, *, at_once: bool = False) -> None:
        """Write what stages said of requests whose spans do not come."""
        due = self._clock() - (0 if at_once else _PATIENCE_S)
        with self._lock:
            late = [span for span, (arrival, _) in self._waiting.items() if arrival <= due]
            said = [self._waiting.pop(span)[1] for span in late]
        for facts in said:
            self._write(facts)

    def _write(self, facts: Mapping[str, object]) -> None:
        outcome = facts["outcome"]
        if outcome == "ok":
            self._log.record("info", "request", facts)
        else:
            level: Level = "error" if outcome == _INTERNAL else "warning"
            self._log.record(level, "request failed", facts)
