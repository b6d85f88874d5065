"""Traces on their way to a collector: which ones go, and their posting as OTLP in JSON.

Chosen are all requests that came with a trace context, and of the others the share `trace_rate`, by
the trace id, as OpenTelemetry's `TraceIdRatioBased` chooses. A collector that is slow or away costs
traces, never requests.
"""

import json
import queue
import threading
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any

from sensorium_server.spans import ROOT, FinishedRequest, Span

_TIMEOUT_S = 5.0
_MAX_WAITING = 1000
_MAX_BATCH = 100
_ERROR = 2
_CHOICES = 2**64


class TraceExport:
    """Posts the traces of finished requests from a thread of its own."""

    def __init__(self, url: str, rate: float, complain: Callable[[str], None]) -> None:
        self._url = url
        self._bound = rate * _CHOICES
        self._complain = complain
        self._is_failing = False
        self._waiting: queue.Queue[list[Span] | None] = queue.Queue(_MAX_WAITING)
        self._thread = threading.Thread(target=self._post_all, name="trace-export", daemon=True)
        self._thread.start()

    def offer(self, request: FinishedRequest, reason: str | None) -> None:
        """Send a request's spans if it is chosen; `reason` tells why it failed."""
        if not request.has_parent and int(request.trace_id[16:], 16) >= self._bound:
            return
        spans = [_judged(span, reason) if span["name"] == ROOT else span for span in request.spans]
        try:
            self._waiting.put_nowait(spans)
        except queue.Full:
            self._fail("more traces wait than it takes")

    def close(self) -> None:
        """Send what waits, and end; a collector that does not answer is not waited for long."""
        self._waiting.put(None)
        self._thread.join(2 * _TIMEOUT_S)

    def _post_all(self) -> None:
        while (spans := self._waiting.get()) is not None:
            batch, ended = list(spans), False
            while not ended and len(batch) < _MAX_BATCH and not self._waiting.empty():
                more = self._waiting.get()
                ended = more is None
                batch += more or []
            self._post(batch)
            if ended:
                return

    def _post(self, spans: list[Span]) -> None:
        message = urllib.request.Request(  # noqa: S310 - the setting allows http and https alone
            self._url,
            json.dumps(document_of(spans)).encode(),
            {"Content-Type": "application/json"},
        )
        try:
            urllib.request.urlopen(message, timeout=_TIMEOUT_S).close()  # noqa: S310 - as above
        except urllib.error.HTTPError as error:
            error.close()
            self._fail(f"it answered {error.code}")
        except OSError as error:
            self._fail(str(error))
        else:
            self._is_failing = False

    def _fail(self, reason: str) -> None:
        """Complain once, until it works again."""
        if not self._is_failing:
            self._complain(f"traces are lost: {self._url} (trace_url) does not take them: {reason}")
        self._is_failing = True


def document_of(spans: list[Span]) -> dict[str, Any]:
    """Return spans as an OTLP document of the service `sensorium`."""
    service = {"key": "service.name", "value": {"stringValue": "sensorium"}}
    return {
        "resourceSpans": [
            {
                "resource": {"attributes": [service]},
                "scopeSpans": [{"scope": {"name": "triton-server"}, "spans": spans}],
            }
        ]
    }


def _judged(span: Span, reason: str | None) -> Span:
    return span if reason is None else {**span, "status": {"code": _ERROR, "message": reason}}
