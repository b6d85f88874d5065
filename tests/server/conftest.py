"""Fixtures for the serving code: clean settings, a toy repository, and a stand-in for the stub."""

import io
import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from tests.server import toy

from sensorium.contract import STAGES
from sensorium_server.settings import ENV_PREFIX, Settings, load


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no setting of the machine reach a test."""
    for name in [name for name in os.environ if name.startswith(ENV_PREFIX)]:
        monkeypatch.delenv(name)


@pytest.fixture
def settings() -> Settings:
    """Return the default settings."""
    return load()


@pytest.fixture(scope="session")
def toy_repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a whole toy repository; do not change it."""
    return toy.build(tmp_path_factory.mktemp("toy"))


@pytest.fixture
def picture() -> Callable[..., bytes]:
    """Return a maker of random pictures' files."""

    def make(
        size: tuple[int, int] = (12, 9), mode: str = "RGB", kind: str = "PNG", **options: object
    ) -> bytes:
        noise = np.random.default_rng(7).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
        file = io.BytesIO()
        Image.fromarray(noise).convert(mode).save(file, kind, **options)
        return file.getvalue()

    return make


@dataclass
class FakeTensor:
    """Stands in for `pb_utils.Tensor`."""

    name: str
    array: NDArray[Any]

    def as_numpy(self) -> NDArray[Any]:
        """Return the array."""
        return self.array

    def is_cpu(self) -> bool:
        """Tell whether it is on the host."""
        return isinstance(self.array, np.ndarray)

    def to_dlpack(self) -> Any:  # noqa: ANN401 - a capsule
        """Hand the array over."""
        return self.array.__dlpack__()

    @classmethod
    def from_dlpack(cls, name: str, array: Any) -> "FakeTensor":  # noqa: ANN401 - as in the stub
        """Take an array over."""
        return cls(name, array)


@dataclass
class FakeRequest:
    """Stands in for `pb_utils.InferenceRequest`; answers land in `sent`."""

    tensors: dict[str, NDArray[Any]]
    wanted: set[str]
    id: str = ""
    cancelled: bool = False
    timeout_us: int = 0
    wishes: str = ""
    context: str | None = None
    sent: list[Any] = field(default_factory=list)

    def requested_output_names(self) -> set[str]:
        """Return what the client asked for."""
        return self.wanted

    def request_id(self) -> str:
        """Return the client's id."""
        return self.id

    def is_cancelled(self) -> bool:
        """Tell whether the client gave up."""
        return self.cancelled

    def timeout(self) -> int:
        """Return the client's deadline in microseconds, 0 for none."""
        return self.timeout_us

    def trace(self) -> Any:  # noqa: ANN401 - as in the stub
        """Return the trace, whose context is JSON, or None when the request is not traced."""
        return SimpleNamespace(get_context=lambda: self.context)

    def parameters(self) -> str:
        """Return the request's own parameters as JSON."""
        return self.wishes

    def get_response_sender(self) -> Any:  # noqa: ANN401 - as in the stub
        """Return what sends the answer later."""
        return SimpleNamespace(send=lambda response, flags: self.sent.append((response, flags)))


class FakeTritonError(Exception):
    """Stands in for `pb_utils.TritonError`."""

    INVALID_ARG = "INVALID_ARG"
    UNAVAILABLE = "UNAVAILABLE"
    INTERNAL = "INTERNAL"
    CANCELLED = "CANCELLED"

    def __init__(self, message: str, code: str) -> None:
        super().__init__(message)
        self.message = message
        self.code = code


@dataclass
class FakeResponse:
    """Stands in for `pb_utils.InferenceResponse`."""

    output_tensors: list[FakeTensor] = field(default_factory=list)
    error: FakeTritonError | None = None

    @property
    def arrays(self) -> dict[str, NDArray[Any]]:
        """The answer's arrays by name."""
        return {tensor.name: tensor.array for tensor in self.output_tensors}


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Put a stand-in of `triton_python_backend_utils` into place."""
    logged: list[str] = []
    module = SimpleNamespace(
        Tensor=FakeTensor,
        InferenceResponse=FakeResponse,
        TritonError=FakeTritonError,
        TRITONSERVER_RESPONSE_COMPLETE_FINAL=1,
        Logger=SimpleNamespace(log_warn=logged.append),
        logged=logged,
        get_input_tensor_by_name=lambda request, name: FakeTensor(name, request.tensors[name]),
        Request=FakeRequest,
    )
    monkeypatch.setitem(sys.modules, "triton_python_backend_utils", module)
    return module


@pytest.fixture
def triton_args() -> Callable[..., dict[str, str]]:
    """Return a maker of the dictionary that Triton hands to `initialize`."""

    def make(repository: Path, model: str, gpu: int | None = None) -> dict[str, str]:
        config = {
            "input": [{"name": tensor.name} for tensor in STAGES[model].inputs],
            "output": [{"name": tensor.name} for tensor in STAGES[model].outputs],
            "default_model_filename": "",
            "parameters": {
                key: {"string_value": str(value)}
                for key, value in toy.PARAMETERS.get(model, {}).items()
            },
        }
        return {
            "model_config": json.dumps(config),
            "model_name": model,
            "model_repository": str(repository / model),
            "model_version": "1",
            "model_instance_kind": "CPU" if gpu is None else "GPU",
            "model_instance_device_id": str(gpu or 0),
        }

    return make
