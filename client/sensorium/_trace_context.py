"""The W3C trace context that goes with a request, so that the server's spans join the caller's."""

import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar

from sensorium.errors import InvalidInputError

_TRACEPARENT = re.compile(
    r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}"
)
_TRACESTATE = re.compile(r"[ -~]{0,512}")

_given: ContextVar[Mapping[str, str] | None] = ContextVar("sensorium_trace_context", default=None)


@contextmanager
def trace_context(traceparent: str, tracestate: str = "") -> Iterator[None]:
    """Send a W3C trace context with every request that is made inside.

    Without it OpenTelemetry's current context is sent, where the program has imported that library
    and a span is active.

    Usage:
        with trace_context("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"):
            client.ask("photo.jpg", "what color is the large star?")

    Args:
        traceparent: Version, trace id, parent span id and flags, as in the header of that name.
        tracestate: The header of that name, handed on as it is.

    Raises:
        InvalidInputError: one of them is malformed.
    """
    if not _TRACEPARENT.fullmatch(traceparent):
        raise InvalidInputError(
            f"traceparent = {traceparent!r} is not of the form 00-<32 hexadecimal digits>-<16>-<2>."
        )
    if not _TRACESTATE.fullmatch(tracestate):
        raise InvalidInputError(
            "tracestate is not printable ASCII of at most 512 characters. Leave it out."
        )
    headers = {"traceparent": traceparent}
    token = _given.set({**headers, "tracestate": tracestate} if tracestate else headers)
    try:
        yield
    finally:
        _given.reset(token)


def trace_headers() -> Mapping[str, str]:
    """Return the headers of the present trace context; none without one."""
    given = _given.get()
    if given is not None:
        return given
    # Whoever has an active span has imported the library; nobody else needs it.
    if "opentelemetry.trace" not in sys.modules:
        return {}
    from opentelemetry.trace.propagation import tracecontext  # noqa: PLC0415

    headers: dict[str, str] = {}
    tracecontext.TraceContextTextMapPropagator().inject(headers)
    return headers
