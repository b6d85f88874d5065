"""From a protocol's status and text to one class of the error tree, the same for both protocols.

Nothing of tritonclient, gRPC or aiohttp escapes: the transports raise what these functions make.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass

from sensorium.contract import TASKS
from sensorium.errors import (
    ConfigurationError,
    DeadlineExceededError,
    InvalidInputError,
    ModelNotReadyError,
    OverloadedError,
    SensoriumError,
    ServerError,
    ServerUnreachableError,
    UnknownTaskError,
)

GRPC_ERRORS: Mapping[str, type[SensoriumError]] = {
    "CANCELLED": ServerError,
    "UNKNOWN": ServerError,
    "INVALID_ARGUMENT": InvalidInputError,
    "DEADLINE_EXCEEDED": DeadlineExceededError,
    "NOT_FOUND": UnknownTaskError,
    "ALREADY_EXISTS": InvalidInputError,
    "PERMISSION_DENIED": ConfigurationError,
    "RESOURCE_EXHAUSTED": OverloadedError,
    "FAILED_PRECONDITION": InvalidInputError,
    "ABORTED": ServerError,
    "OUT_OF_RANGE": InvalidInputError,
    "UNIMPLEMENTED": ServerError,
    "INTERNAL": ServerError,
    "UNAVAILABLE": ModelNotReadyError,
    "DATA_LOSS": ServerError,
    "UNAUTHENTICATED": ConfigurationError,
}
"""Every status of gRPC but OK; the text refines some, see `_REFINEMENTS`."""

HTTP_ERRORS: Mapping[int, type[SensoriumError]] = {
    400: InvalidInputError,
    401: ConfigurationError,
    403: ConfigurationError,
    404: UnknownTaskError,
    408: DeadlineExceededError,
    409: InvalidInputError,
    413: InvalidInputError,
    422: InvalidInputError,
    429: OverloadedError,
    502: ServerUnreachableError,
    503: ModelNotReadyError,
    504: DeadlineExceededError,
}
"""The statuses that Triton and the proxies before it send; all others are a `ServerError`."""

_REFINEMENTS: tuple[tuple[type[SensoriumError], str, type[SensoriumError]], ...] = (
    (ModelNotReadyError, r"maximum queue size", OverloadedError),
    (ModelNotReadyError, r"request timeout expired", DeadlineExceededError),
    (ModelNotReadyError, r"unknown model: '[^']*' is not found", UnknownTaskError),
    (ModelNotReadyError, r"handshake|verif|wrong version number", ConfigurationError),
    (
        ModelNotReadyError,
        r"failed to connect|socket|connection|sendmsg|recvmsg|broken pipe|goaway|resolution|http2",
        ServerUnreachableError,
    ),
    (OverloadedError, r"message larger than max", InvalidInputError),
    (InvalidInputError, r"unknown model: '[^']*' is not found", UnknownTaskError),
)
"""(class by status, text, truer class): what a status alone does not tell."""

_LONGEST = 500
"""How many characters of a proxy's page to show."""

_PREFIX = re.compile(r"^(?:\[request id: [^\]]*\] |in ensemble '[^']*', )+")


@dataclass(frozen=True, slots=True)
class Exchange:
    """What was asked of whom: the facts that a good message needs."""

    address: str
    model: str
    timeout_s: float
    request_id: str | None = None


def error_from_grpc(code: str, details: str | None, exchange: Exchange) -> SensoriumError:
    """Make the error of a gRPC status."""
    return _error(GRPC_ERRORS.get(code, ServerError), details or code, exchange)


def error_from_http(status: int, body: bytes, exchange: Exchange) -> SensoriumError:
    """Make the error of an HTTP status; `body` is Triton's `{"error": …}`, or a proxy's page."""
    kind = HTTP_ERRORS.get(status, ServerError)
    text = body.decode(errors="replace").strip()[:_LONGEST]
    try:
        message = str(json.loads(body)["error"])
    except (ValueError, KeyError, TypeError):
        message = f"HTTP status {status} {text}".rstrip()
        if kind is UnknownTaskError:
            kind, message = ServerError, f"{message} (is this Triton's HTTP port?)"
    return _error(kind, message, exchange)


def unreachable(reason: object, exchange: Exchange) -> SensoriumError:
    """Make the error of a connection that failed or broke."""
    return _worded(ServerUnreachableError, str(reason) or type(reason).__name__, exchange)


def untrusted(reason: object, exchange: Exchange) -> SensoriumError:
    """Make the error of a TLS handshake that failed."""
    return _worded(ConfigurationError, str(reason), exchange)


def too_late(exchange: Exchange) -> SensoriumError:
    """Make the error of a deadline that passed."""
    return _worded(DeadlineExceededError, "", exchange)


def garbled(reason: object, exchange: Exchange) -> SensoriumError:
    """Make the error of an answer that is not KServe v2."""
    return _worded(ServerError, f"its answer is not KServe v2 ({reason})", exchange)


def _error(kind: type[SensoriumError], message: str, exchange: Exchange) -> SensoriumError:
    for coarse, pattern, fine in _REFINEMENTS:
        if kind is coarse and re.search(pattern, message, re.IGNORECASE):
            kind = fine
            break
    return _worded(kind, _PREFIX.sub("", message), exchange)


def _worded(kind: type[SensoriumError], message: str, exchange: Exchange) -> SensoriumError:
    at, reason = exchange.address, message.rstrip(".")
    wordings: dict[type[SensoriumError], str] = {
        InvalidInputError: message,
        UnknownTaskError: f"the server at {at} does not offer the task {exchange.model!r}; its "
        f"bundle cannot do it, or it is not loaded. Tasks of Sensorium: {', '.join(TASKS)}.",
        ModelNotReadyError: f"the server at {at} is not ready for {exchange.model!r}: {reason}. "
        "Wait for it with `sensorium ready --wait-s 60`.",
        ServerUnreachableError: f"no server answered at {at}: {reason}. Start one with "
        "`sensorium serve`, or check the address: localhost:8001 is gRPC, "
        "http://localhost:8000 is HTTP.",
        OverloadedError: f"the server at {at} is overloaded: {reason}. "
        "Send fewer requests at a time, or add replicas.",
        DeadlineExceededError: f"{exchange.model!r} at {at} did not answer within "
        f"{exchange.timeout_s:.3g} s and was cancelled. Give it more time: timeout_s.",
        ServerError: f"the server at {at} failed: {reason}.",
        ConfigurationError: f"the server at {at} and this client do not trust each other: "
        f"{reason}. Check the TLS options and the credentials in headers.",
    }
    return kind(wordings[kind], exchange.request_id)
