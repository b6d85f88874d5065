"""What both clients share: everything between the caller's words and the transport, and back."""

import difflib
import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from sensorium._codec import result_from_tensors, tensors_from_inputs
from sensorium._config import DEFAULT_TIMEOUT_S, Limits, Retry
from sensorium._generation import Generation
from sensorium._input import inputs_read
from sensorium._retry import Attempts
from sensorium._trace_context import trace_headers
from sensorium._transports.base import Request, Response
from sensorium.contract import (
    ANSWER,
    CAPTION,
    GENERATION,
    TASKS,
    Signature,
    checked_bundle,
    model_name,
)
from sensorium.errors import (
    ConfigurationError,
    InvalidInputError,
    ModelNotReadyError,
    UnknownTaskError,
)
from sensorium.results import Result, Timings

R = TypeVar("R", bound=Result)

PROBE_TIMEOUT_S = 5.0

_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_HEADER_VALUE = re.compile(r"[ -~]*")


@dataclass(frozen=True, slots=True)
class Call(Generic[R]):
    """One call under way: what to send, what comes of it, and its clock."""

    request: Request
    signature: Signature
    result_type: type[R]
    attempts: Attempts

    def result(self, response: Response) -> R:
        """Make the typed result of the response.

        Raises:
            DeadlineExceededError: the response came too late.
        """
        self.attempts.end(self.request.request_id)
        timings = Timings(self.attempts.elapsed_s(), self.attempts.attempt_s(), self.attempts.count)
        request_id = self.request.request_id
        return result_from_tensors(self.result_type, self.signature, response, request_id, timings)


class BaseClient:
    """Options and request building; `Client` and `AsyncClient` add the waiting."""

    def __init__(
        self,
        *,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        retry: Retry | None = None,
        limits: Limits | None = None,
        bundle: str = "",
    ) -> None:
        self._bundle = checked_bundle(bundle)
        self._timeout_s = timeout_s
        self._retry = retry or Retry()
        self._limits = limits or Limits()
        self._address = ""
        self._closed = False
        Attempts(self._retry, timeout_s)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._address}{', closed' if self._closed else ''}>"

    def _check_open(self) -> None:
        if self._closed:
            raise RuntimeError(f"{self!r} was closed; make a new one.")

    def _attempts(self, timeout_s: float | None) -> Attempts:
        self._check_open()
        return Attempts(self._retry, self._timeout_s if timeout_s is None else timeout_s)

    def _call(
        self,
        task: str,
        inputs: Mapping[str, object],
        result_type: type[R],
        attempts: Attempts,
        request_id: str | None,
        *,
        generation: Generation | None,
    ) -> Call[R]:
        """Read and check the inputs and pack them; nothing goes to the network yet.

        Raises:
            InvalidInputError: an input is none, or words are to be generated where there are none.
        """
        signature = signature_of_task(task)
        if generation is not None and not {ANSWER, CAPTION} & set(signature.outputs):
            raise InvalidInputError(f"generation = {generation!r}: {task} generates no words.")
        request = Request(
            model=model_name(task, self._bundle),
            inputs=tensors_from_inputs(signature, inputs_read(signature, inputs, self._limits)),
            outputs=tuple(spec.name for spec in signature.outputs),
            request_id=request_id or uuid.uuid4().hex,
            parameters={} if generation is None else {GENERATION: generation.written()},
            headers=trace_headers(),
        )
        return Call(request, signature, result_type, attempts)

    def _model(self, task: str | None) -> str | None:
        """Return what Triton calls a task, and None for the whole server.

        Raises:
            UnknownTaskError: there is no such task.
        """
        check_task(task)
        return task and model_name(task, self._bundle)


def signature_of_task(task: str) -> Signature:
    """Return a task's signature.

    Raises:
        UnknownTaskError: there is no such task; the message lists those there are.
    """
    if task in TASKS:
        return TASKS[task]
    close = difflib.get_close_matches(task, TASKS, n=1, cutoff=0.5)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    raise UnknownTaskError(f"there is no task {task!r}.{hint} The tasks are {', '.join(TASKS)}.")


def check_task(task: str | None) -> None:
    """Let pass a task of the contract, or None for the whole server.

    Raises:
        UnknownTaskError: there is no such task.
    """
    if task is not None:
        signature_of_task(task)


def checked_headers(headers: Mapping[str, str] | None) -> dict[str, str]:
    """Return headers that both protocols can carry; a message never shows a value.

    Raises:
        ConfigurationError: a name or a value has characters that headers cannot have.
    """
    for name, value in (headers or {}).items():
        if not _HEADER_NAME.fullmatch(name):
            raise ConfigurationError(f"the header name {name!r} has characters it cannot have.")
        if not _HEADER_VALUE.fullmatch(value):
            raise ConfigurationError(f"the value of the header {name!r} is not printable ASCII.")
    return dict(headers or {})


def not_ready(address: str, task: str | None) -> ModelNotReadyError:
    """Make the error of a server that answers, but is not ready."""
    what = f"the task {task!r}" if task else "the server"
    return ModelNotReadyError(f"{what} at {address} is not ready; see the server's log.")


def pair_of(item: object) -> tuple[object, object]:
    """Take an (image, question) pair apart.

    Raises:
        InvalidInputError: it is not a pair.
    """
    if not isinstance(item, tuple | list) or len(item) != 2:  # noqa: PLR2004 - a pair
        raise InvalidInputError(f"{type(item).__name__} is not an (image, question) pair.")
    return item[0], item[1]
