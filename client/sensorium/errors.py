"""Every error that Sensorium raises, on the client, on the server and in the command.

SensoriumError                  catch this one to catch them all
├── InvalidInputError           the caller can fix the input        400  INVALID_ARGUMENT
├── UnknownTaskError            the server does not offer the task  404  NOT_FOUND
├── ModelNotReadyError        ↻ it answered, but is not ready yet   503  UNAVAILABLE
├── ServerUnreachableError    ↻ nobody answered                     503  UNAVAILABLE
├── OverloadedError           ↻ too many requests; back off         429  RESOURCE_EXHAUSTED
├── DeadlineExceededError       it took longer than `timeout_s`     504  DEADLINE_EXCEEDED
├── ServerError                 our fault; the server's log knows   500  INTERNAL
└── ConfigurationError          settings, artefacts, credentials    500  FAILED_PRECONDITION

The client retries those marked ↻ within the deadline, because every task is safe to repeat.
"""

from typing import ClassVar


class SensoriumError(Exception):
    """The root of the tree; `request_id` finds the request in the server's log."""

    http_status: ClassVar[int] = 500
    grpc_code: ClassVar[str] = "INTERNAL"
    retryable: ClassVar[bool] = False

    def __init__(self, message: str, request_id: str | None = None) -> None:
        super().__init__(message, request_id)
        self.message = message
        self.request_id = request_id

    def __str__(self) -> str:
        return self.message


class InvalidInputError(SensoriumError):
    """The input is wrong, and the message says what is, by how much, and the way out."""

    http_status = 400
    grpc_code = "INVALID_ARGUMENT"


class UnknownTaskError(SensoriumError):
    """The task does not exist, or the bundle on this server cannot do it."""

    http_status = 404
    grpc_code = "NOT_FOUND"


class ModelNotReadyError(SensoriumError):
    """The server answered, but is starting, draining or reloading: wait and retry."""

    http_status = 503
    grpc_code = "UNAVAILABLE"
    retryable = True


class ServerUnreachableError(SensoriumError):
    """Nobody answered at the address, or the connection broke before the answer."""

    http_status = 503
    grpc_code = "UNAVAILABLE"
    retryable = True


class OverloadedError(SensoriumError):
    """The server's queue is full: back off and retry."""

    http_status = 429
    grpc_code = "RESOURCE_EXHAUSTED"
    retryable = True


class DeadlineExceededError(SensoriumError):
    """The answer did not come in time; the request was cancelled on the server too."""

    http_status = 504
    grpc_code = "DEADLINE_EXCEEDED"


class ServerError(SensoriumError):
    """The server failed through no fault of the caller; no details leak, its log has them."""

    http_status = 500
    grpc_code = "INTERNAL"


class ConfigurationError(SensoriumError):
    """A setting, artefact, credential or installed extra is wrong or missing."""

    http_status = 500
    grpc_code = "FAILED_PRECONDITION"
