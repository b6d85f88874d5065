"""The adapter between Triton's Python backend and plain functions.

    bytes on the wire ─ Triton ─▶ requests ─ here ─▶ arrays by name ─ a stage ─▶ arrays by name

- A request fails alone: its mistake, or ours, never touches the others of its batch.
- `InvalidInputError` and its kin reach the client with their bare message; anything else is
  logged with its traceback and answered without details.

`triton_python_backend_utils` exists only inside Triton's stub, so it is imported where it is used.
"""

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from sensorium.errors import (
    DeadlineExceededError,
    InvalidInputError,
    ModelNotReadyError,
    OverloadedError,
    SensoriumError,
)
from sensorium_server.recorder import Recorder, items_of
from sensorium_server.settings import load
from sensorium_server.stages import Stage, StageConfig, StageFactory, Tensors

Request = Any
"""A `triton_python_backend_utils.InferenceRequest`; the module has no types."""

Response = Any
"""A `triton_python_backend_utils.InferenceResponse`."""

Warn = Callable[[str], None]
"""Told what the operator should know."""

_CODES: Mapping[type[SensoriumError], str] = {
    InvalidInputError: "INVALID_ARG",
    OverloadedError: "UNAVAILABLE",
    ModelNotReadyError: "UNAVAILABLE",
    DeadlineExceededError: "CANCELLED",
}
"""Which errors a caller may read, and the code by which Triton passes them on."""


@dataclass(frozen=True, slots=True)
class Instance:
    """One instance of a model, as Triton describes it to `initialize`.

    `gpu` is the number of the GPU that it shall run on, None for the processor; `accelerators` are
    the config's `gpu_execution_accelerator`, by name.
    """

    config: StageConfig
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    default_filename: str
    max_batch_size: int
    gpu: int | None
    accelerators: tuple[str, ...]

    @property
    def version(self) -> int:
        """The version of the model that it is an instance of."""
        return int(self.config.directory.name)

    @classmethod
    def from_args(cls, args: Mapping[str, str]) -> "Instance":
        """Read the dictionary that Triton hands to `initialize`."""
        model = json.loads(args["model_config"])
        parameters = {
            key: value["string_value"] for key, value in model.get("parameters", {}).items()
        }
        directory = Path(args["model_repository"]) / args["model_version"]
        accelerators = model.get("optimization", {}).get("execution_accelerators", {})
        is_on_gpu = args["model_instance_kind"] == "GPU"
        return cls(
            config=StageConfig(args["model_name"], directory, parameters),
            inputs=tuple(tensor["name"] for tensor in model["input"]),
            outputs=tuple(tensor["name"] for tensor in model["output"]),
            default_filename=model.get("default_model_filename", ""),
            max_batch_size=int(model.get("max_batch_size", 0)),
            gpu=int(args["model_instance_device_id"]) if is_on_gpu else None,
            accelerators=tuple(
                one["name"] for one in accelerators.get("gpu_execution_accelerator", ())
            ),
        )


def silent(_message: str) -> None:
    """Tell nobody; for graphs that are loaded outside of Triton."""


def warn(message: str) -> None:
    """Write a warning into Triton's log."""
    import triton_python_backend_utils as pb  # noqa: PLC0415 - see above

    pb.Logger.log_warn(message)


class TritonModel:
    """What every model has that Triton calls."""

    _inputs: tuple[str, ...]
    _recorder: Recorder

    def _begin(self, args: Mapping[str, str]) -> Instance:
        """Remember what requests bring, and record under the model's name."""
        instance = Instance.from_args(args)
        self._inputs = instance.inputs
        self._recorder = Recorder(instance.config.name, instance.version)
        return instance


class BackendModel(TritonModel):
    """A model of one of our backends, which Triton asks to complete configs."""

    @staticmethod
    def auto_complete_config(auto_complete_model_config: Any) -> Any:  # noqa: ANN401 - Triton's own
        """Leave the config as it is written."""
        return auto_complete_model_config


class StageModel(TritonModel):
    """A Triton model that answers each request by a stage; `as_model` names the factory."""

    factory: ClassVar[StageFactory]
    _stage: Stage

    def initialize(self, args: Mapping[str, str]) -> None:
        """Build the stage once."""
        instance = self._begin(args)
        self._stage = type(self).factory(instance.config, load())

    def execute(self, requests: Sequence[Request]) -> list[Response]:
        """Answer every request of the batch, each on its own."""
        begin = time.perf_counter()
        tensors: list[Tensors] = []
        answers = [self._answer(request, tensors) for request in requests]
        self._recorder.ran(sum(map(items_of, tensors)), time.perf_counter() - begin)
        return answers

    def _answer(self, request: Request, seen: list[Tensors]) -> Response:
        begin = time.monotonic()
        tensors: Tensors = {}
        try:
            tensors = tensors_of(request, self._inputs)
            seen.append(tensors)
            self._recorder.received(tensors)
            return response(self._stage(tensors), request)
        except Exception as error:  # noqa: BLE001 - nothing may reach Triton raw: it leaks paths
            self._recorder.undecoded(tensors, error)
            return failure(error, request, self._recorder, begin)


def as_model(factory: StageFactory) -> type[StageModel]:
    """Return the class that Triton looks for in a `model.py`."""
    return type("TritonPythonModel", (StageModel,), {"factory": staticmethod(factory)})


def tensors_of(request: Request, names: Sequence[str]) -> Tensors:
    """Return a request's inputs as views of shared memory, gone when `execute` returns.

    An optional input that was not sent is left out.
    """
    import triton_python_backend_utils as pb  # noqa: PLC0415

    found = ((name, pb.get_input_tensor_by_name(request, name)) for name in names)
    return {name: tensor.as_numpy() for name, tensor in found if tensor is not None}


def response(outputs: Tensors, request: Request) -> Response:
    """Return the answer with those outputs that somebody wants."""
    import triton_python_backend_utils as pb  # noqa: PLC0415

    wanted = request.requested_output_names()
    return pb.InferenceResponse(
        [pb.Tensor(name, array) for name, array in outputs.items() if name in wanted]
    )


def failure(error: Exception, request: Request, recorder: Recorder, begin: float) -> Response:
    """Return the answer to a request that failed, and record what the client is not told.

    `begin` is when the stage took the request, by `time.monotonic`.
    """
    import triton_python_backend_utils as pb  # noqa: PLC0415

    code = next((code for kind, code in _CODES.items() if isinstance(error, kind)), None)
    recorder.failed(request, error, time.monotonic() - begin, expected=code is not None)
    if code is not None:
        message = str(error)
    else:
        request_id = request.request_id()
        named = f" (request {request_id})" if request_id else ""
        message = f"internal error, see the server's log{named}"
        code = "INTERNAL"
    return pb.InferenceResponse(error=pb.TritonError(message, getattr(pb.TritonError, code)))


def cancelled_check(request: Request) -> Callable[[], bool]:
    """Tell when nobody waits for the answer any more.

    Triton does not pass a cancellation on to the stages of an ensemble, but it does pass the
    request's `timeout`, in microseconds, 0 for none.
    """
    timeout_s = request.timeout() / 1e6
    deadline = time.monotonic() + timeout_s if timeout_s else math.inf
    return lambda: time.monotonic() > deadline or request.is_cancelled()
