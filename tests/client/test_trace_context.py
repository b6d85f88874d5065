"""Which trace context goes with a request."""

import pytest
from opentelemetry import trace
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags
from tests.client.conftest import Caller, FakeServer

from sensorium import Client, InvalidInputError, trace_context

TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
PARENT = f"00-{TRACE_ID}-b7ad6b7169203331-01"


def test_a_given_context_goes_with_the_request(server: FakeServer, call: Caller) -> None:
    """Both headers reach the server, over both protocols, from both clients; and no later one."""
    with trace_context(PARENT, "vendor=1"):
        call(server.url, "caption", b"picture")
    call(server.url, "caption", b"picture")

    inside, outside = (seen.headers for seen in server.seen)
    assert (inside["traceparent"], inside["tracestate"]) == (PARENT, "vendor=1")
    assert "traceparent" not in outside


def test_many_at_once_share_it(server: FakeServer) -> None:
    """The context is that of the caller, also in the threads of many calls at once."""
    with Client(server.url) as client, trace_context(PARENT):
        client.caption_many([b"one", b"two", b"three"], concurrency=2)

    assert [seen.headers.get("traceparent") for seen in server.seen] == [PARENT] * 3


def test_active_span_of_opentelemetry(server: FakeServer, call: Caller) -> None:
    """Without a given context the program's active span is the parent."""
    context = SpanContext(0xABC, 0xDEF, is_remote=False, trace_flags=TraceFlags(1))

    with trace.use_span(NonRecordingSpan(context)):
        call(server.url, "caption", b"picture")

    assert server.seen[0].headers["traceparent"] == f"00-{0xABC:032x}-{0xDEF:016x}-01"


@pytest.mark.parametrize(
    "parent",
    ["", PARENT.upper(), PARENT[:-1], PARENT.replace(TRACE_ID, "0" * 32)],
)
def test_malformed_context_is_refused(parent: str) -> None:
    """A traceparent that Triton would ignore is refused before anything is sent."""
    with pytest.raises(InvalidInputError, match="traceparent"), trace_context(parent):
        pass


def test_malformed_state_is_refused() -> None:
    """A tracestate that no header can carry is refused."""
    with pytest.raises(InvalidInputError, match="tracestate"), trace_context(PARENT, "a\nb"):
        pass
