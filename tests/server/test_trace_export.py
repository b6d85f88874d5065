import socket
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from sensorium_server.span_receiver import SpanReceiver
from sensorium_server.spans import FinishedRequest, spans_of
from sensorium_server.trace_export import TraceExport


@dataclass
class Collector:
    """A collector of traces: what it was sent."""

    documents: list[Mapping[str, Any]] = field(default_factory=list)
    url: str = ""

    def names(self) -> list[str]:
        """Return the trace ids that came, in order."""
        return [span["traceId"] for document in self.documents for span in spans_of(document)]


@pytest.fixture
def collector() -> Iterator[Collector]:
    """Run a collector on a free port."""
    made = Collector()
    receiver = SpanReceiver(made.documents.append)
    made.url = receiver.url
    yield made
    receiver.close()


def request(low: int, *, has_parent: bool = False) -> FinishedRequest:
    """Return a request whose trace id has these low 8 bytes."""
    trace_id = f"{1:016x}{low:016x}"
    span = {"name": "InferRequest", "spanId": "s", "traceId": trace_id}
    return FinishedRequest("ask", "r-1", trace_id, has_parent, 0.5, [], [span])


def test_the_share_goes_by_the_trace_id(collector: Collector) -> None:
    """A quarter of all trace ids is the lowest quarter; what has a parent goes anyway."""
    complaints: list[str] = []
    export = TraceExport(collector.url, 0.25, complaints.append)
    chosen = [request(0), request(2**62 - 1), request(2**63, has_parent=True)]
    for each in (*chosen, request(2**62), request(2**64 - 1)):
        export.offer(each, None)
    export.close()

    assert collector.names() == [each.trace_id for each in chosen]
    assert complaints == []


def test_service_and_status(collector: Collector) -> None:
    """Spans are those of the service `sensorium`, and the root of a failed request says why."""
    export = TraceExport(collector.url, 1, print)
    export.offer(request(7), "overloaded")
    export.close()

    (document,) = collector.documents
    (resource,) = document["resourceSpans"]
    assert resource["resource"]["attributes"][0]["value"] == {"stringValue": "sensorium"}
    assert spans_of(document)[0]["status"] == {"code": 2, "message": "overloaded"}


def test_a_collector_that_is_away_is_told_once() -> None:
    """Traces that cannot be sent are lost with one complaint, which names the setting."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    complaints: list[str] = []
    export = TraceExport(f"http://127.0.0.1:{port}/v1/traces", 1, complaints.append)
    export.offer(request(1), None)
    export.offer(request(2), None)
    export.close()

    (complaint,) = complaints
    assert "trace_url" in complaint


def test_a_collector_that_refuses_is_told(collector: Collector) -> None:
    """An answer that is no success is a complaint too."""
    complaints: list[str] = []
    export = TraceExport(collector.url.replace("/v1", "/v2"), 1, complaints.append)
    export.offer(request(1), None)
    export.close()

    assert "it answered 404" in complaints[0]


def test_the_receiver_refuses_what_is_no_document(collector: Collector) -> None:
    """A body that is not JSON is refused, and the receiver goes on."""
    with pytest.raises(urllib.error.HTTPError, match="400") as caught:
        urllib.request.urlopen(collector.url, b"{", timeout=30)
    caught.value.close()
    urllib.request.urlopen(collector.url, b"{}", timeout=30).close()

    assert collector.documents == [{}]
