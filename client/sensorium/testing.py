"""Test doubles for programs that use Sensorium: answers without a server."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from sensorium._codec import tensor_from_value, value_from_tensor
from sensorium._transports.base import AsyncTransport, Request, Response, Transport
from sensorium.contract import GENERATION, TASKS, bare_name
from sensorium.errors import SensoriumError, UnknownTaskError

Outputs = Mapping[str, object]
"""A task's outputs by their names: `str` or `bytes`, a number, or a sequence of one of these."""


@dataclass(frozen=True, slots=True)
class MockRequest:
    """A request as a `MockTransport` saw it: texts and media are bytes, settings are numbers.

    `model` is what Triton would call the task, with its bundle; `generation` holds
    what the call said about it.
    """

    task: str
    inputs: Mapping[str, Any]
    request_id: str
    timeout_s: float
    model: str = ""
    generation: Mapping[str, Any] = field(default_factory=dict)


class MockTransport(Transport, AsyncTransport):
    """Answers from a mapping or a function, for `Client` and `AsyncClient` alike.

    Usage:
        transport = MockTransport({"visual_question_answering": {"answer": "red", "score": 0.9}})
        with Client(transport=transport) as client:
            assert client.ask(b"any picture", "what color?").text == "red"
        assert transport.requests[0].inputs["question"] == b"what color?"

    Args:
        answers: For each task its outputs or the error to raise; or a function that takes the
            request and returns the outputs or raises. A task that is left out is unknown.
        ready: What `is_ready` tells.
    """

    address = "mock"

    def __init__(
        self,
        answers: Mapping[str, Outputs | SensoriumError] | Callable[[MockRequest], Outputs],
        *,
        ready: bool = True,
    ) -> None:
        self.requests: list[MockRequest] = []
        self.ready = ready
        self._answers = answers

    def infer(self, request: Request, timeout_s: float) -> Response:
        """Note the request and answer it."""
        task = bare_name(request.model)
        signature = TASKS[task]
        inputs = {
            spec.name: value_from_tensor(spec, tensor)
            for spec, tensor in zip(signature.inputs, request.inputs, strict=True)
        }
        wish = json.loads(request.parameters.get(GENERATION, "{}"))
        seen = MockRequest(task, inputs, request.request_id, timeout_s, request.model, wish)
        self.requests.append(seen)
        outputs = self._outputs(seen)
        return Response(
            request.model,
            tuple(tensor_from_value(spec, outputs[spec.name]) for spec in signature.outputs),
        )

    async def ainfer(self, request: Request, timeout_s: float) -> Response:
        """Note the request and answer it."""
        return self.infer(request, timeout_s)

    def is_ready(self, model: str | None, timeout_s: float) -> bool:  # noqa: ARG002 - the seam's
        """Tell what the test said."""
        return self.ready

    async def ais_ready(self, model: str | None, timeout_s: float) -> bool:
        """Tell what the test said."""
        return self.is_ready(model, timeout_s)

    def _outputs(self, request: MockRequest) -> Outputs:
        if callable(self._answers):
            return self._answers(request)
        if request.task not in self._answers:
            raise UnknownTaskError(f"this MockTransport has no answer for {request.task!r}.")
        answer = self._answers[request.task]
        if isinstance(answer, SensoriumError):
            raise answer
        return answer
