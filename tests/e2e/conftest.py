"""One real Triton server for the whole session, over the toy repository, and ways to call it."""

import shutil
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path

import pytest
from tests.server import toy

from sensorium._config import address_from_url
from sensorium._transports.base import Request, Response, Tensor, Transport, transport_for
from sensorium.contract import TASKS
from sensorium_export.bundle import ExportedBundle
from sensorium_server.launch import Endpoints, Server
from sensorium_server.settings import FREE_PORTS, load

TIMEOUT_S = 20.0


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs Triton on a machine without the wheel that carries it."""
    if find_spec("pytriton") is None:
        missing = pytest.mark.skip(reason="nvidia-pytriton, which carries Triton, is not installed")
        for item in items:
            if item.get_closest_marker("triton"):
                item.add_marker(missing)


@pytest.fixture(scope="session")
def start_server(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Server]:
    """Return a maker of servers on free ports; use each as a context."""
    cache_dir = tmp_path_factory.mktemp("cache")

    def start(repository: Path, **flags: object) -> Server:
        settings = load({**FREE_PORTS, "repository": repository, "cache_dir": cache_dir, **flags})
        return Server(settings)

    return start


@pytest.fixture(scope="session")
def toy_repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a whole toy repository; do not change it."""
    return toy.build(tmp_path_factory.mktemp("toy"))


@pytest.fixture(scope="session")
def server(start_server: Callable[..., Server], toy_repository: Path) -> Iterator[Server]:
    """Return a running server over the toy repository."""
    with start_server(toy_repository) as running:
        yield running


@pytest.fixture(scope="session")
def endpoints(server: Server) -> Endpoints:
    """Return where the running server is reached."""
    return server.endpoints


@pytest.fixture(scope="session")
def playroom(start_server: Callable[..., Server]) -> Iterator[Endpoints]:
    """Serve the committed model repository."""
    with start_server(Path(__file__).parents[2] / "model_repository") as running:
        yield running.endpoints


@pytest.fixture(scope="session")
def checkpoint(toy_bundle: tuple[Path, ExportedBundle]) -> Path:
    """A checkpoint with random weights and every part."""
    return toy_bundle[0]


@pytest.fixture(scope="session")
def bundle(
    toy_bundle: tuple[Path, ExportedBundle], tmp_path_factory: pytest.TempPathFactory
) -> ExportedBundle:
    """That checkpoint, exported; its repository holds no more than cards that are written to it."""
    copy = tmp_path_factory.mktemp("exported") / "repository"
    shutil.copytree(toy_bundle[1].repository, copy)
    return replace(toy_bundle[1], repository=copy)


@dataclass(frozen=True)
class Caller:
    """Sends requests as they are, past the client's own checks; errors are those of the tree."""

    transport: Transport

    def infer(self, model: str, *tensors: Tensor, timeout_s: float = TIMEOUT_S) -> Response:
        """Send tensors to a model and ask for all its outputs."""
        outputs = tuple(spec.name for spec in TASKS[model].outputs) if model in TASKS else ()
        return self.transport.infer(Request(model, tensors, outputs, "test"), timeout_s)

    def ask(self, task: str, **inputs: bytes | Sequence[bytes]) -> dict[str, list[bytes]]:
        """Send BYTES inputs to a task; return each output's items as bytes."""
        tensors = [
            bytes_tensor(spec.name, *_listed(inputs[spec.name])) for spec in TASKS[task].inputs
        ]
        return {tensor.name: items_of(tensor) for tensor in self.infer(task, *tensors).outputs}


@pytest.fixture(scope="session", params=["grpc", "http"])
def caller(request: pytest.FixtureRequest, endpoints: Endpoints) -> Iterator[Caller]:
    """Return a caller in each of the two protocols."""
    url = endpoints.grpc if request.param == "grpc" else endpoints.http
    transport = transport_for(address_from_url(url), None, {})
    yield Caller(transport)
    transport.close()


def bytes_tensor(name: str, *items: bytes) -> Tensor:
    """Pack a [n,1] tensor of BYTES."""
    data = b"".join(struct.pack("<I", len(item)) + item for item in items)
    return Tensor(name, "BYTES", (len(items), 1), data)


def items_of(tensor: Tensor) -> list[bytes]:
    """Unpack the rows of a tensor: texts for BYTES, raw little-endian numbers else."""
    if tensor.dtype != "BYTES":
        size = len(tensor.data) // tensor.shape[0]
        return [tensor.data[index * size :][:size] for index in range(tensor.shape[0])]
    items, start = [], 0
    while start < len(tensor.data):
        (size,) = struct.unpack_from("<I", tensor.data, start)
        items.append(tensor.data[start + 4 : start + 4 + size])
        start += 4 + size
    return items


def _listed(value: bytes | Sequence[bytes]) -> Sequence[bytes]:
    return [value] if isinstance(value, bytes) else value
