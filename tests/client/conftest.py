"""A small real KServe v2 server, on both protocols, whose answers each test decides."""

import asyncio
import json
import select
import socket
import struct
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent import futures
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import grpc
import pytest
from tritonclient.grpc import service_pb2, service_pb2_grpc

from sensorium import AsyncClient, Client

ANSWERS: Mapping[str, Mapping[str, object]] = {
    "visual_question_answering": {"answer": "red", "score": 0.5},
    "image_captioning": {"caption": "a red star", "score": 0.25},
    "audio_question_answering": {"answer": "a bell", "score": 0.5},
    "audio_tagging": {"labels": ["bell", "bark"], "scores": [0.75, 0.25]},
    "audio_visual_question_answering": {"answer": "yes", "score": 0.5},
    "video_question_answering": {"answer": "left", "score": 0.5},
    "video_captioning": {"caption": "a red star moves left", "score": 0.25},
    "action_recognition": {"labels": ["moves left", "grows"], "scores": [0.5, 0.125]},
    "event_detection": {
        "labels": ["bell", "moves left", ""],
        "scores": [0.75, 0.5, 0.0],
        "start_s": [0.5, 1.25, 0.0],
        "end_s": [1.0, 2.5, 0.0],
    },
    "text_embedding": {"embedding": [0.6, 0.8, 0.0]},
    "image_embedding": {"embedding": [0.8, 0.6, 0.0]},
    "audio_embedding": {"embedding": [0.8, 0.0, 0.6]},
    "video_embedding": {"embedding": [0.0, 0.8, 0.6]},
    "text_to_image": {"image": ("BYTES", [1, 1], b"\x07\x00\x00\x00\x89PNG\xff\x00!")},
    "image_classification": {"labels": ["tabby, tabby cat", "dog"], "scores": [0.75, 0.25]},
    "text_generation": {"generated_text": "guten Tag", "score": 0.5},
    "speech_recognition": {"transcript": "good morning", "score": 0.25},
}
NUMBERS = {"INT64": "<q", "FP32": "<f"}


@dataclass(frozen=True)
class Seen:
    """A request as the server received it; `is_gone` tells whether the client left."""

    model: str
    request_id: str
    inputs: Mapping[str, Any]
    outputs: tuple[str, ...]
    timeout_us: int | None
    generation: str | None
    headers: Mapping[str, str]
    peer: str
    is_gone: Callable[[], bool]


class RefusalError(Exception):
    """Makes the server refuse, with the status that belongs to its protocol."""

    def __init__(self, code: str, status: int, message: str) -> None:
        super().__init__(message)
        self.code, self.status, self.message = code, status, message


def answer_all(seen: Seen) -> Mapping[str, object]:
    """Answer every task of the contract; refuse any other as Triton does."""
    if seen.model not in ANSWERS:
        message = f"Request for unknown model: '{seen.model}' is not found"
        raise RefusalError("NOT_FOUND", 404, message)
    return ANSWERS[seen.model]


@dataclass
class FakeServer:
    """Where the server is, what it saw, and what it shall answer."""

    url: str = ""
    answer: Callable[[Seen], Mapping[str, object]] = answer_all
    ready: Callable[[], bool] = lambda: True
    seen: list[Seen] = field(default_factory=list)

    def answered(self, seen: Seen) -> list[tuple[str, str, list[int], bytes]]:
        """Note the request and pack its answer: (name, datatype, shape, raw) of each output."""
        self.seen.append(seen)
        return [(name, *_packed(value)) for name, value in self.answer(seen).items()]


def _packed(value: object) -> tuple[str, list[int], bytes]:
    if isinstance(value, tuple):
        datatype, shape, raw = value
        return str(datatype), list(shape), bytes(raw)
    elements: list[Any] = value if isinstance(value, list) else [value]
    if isinstance(elements[0], str):
        encoded = [each.encode() for each in elements]
        data = b"".join(struct.pack("<I", len(each)) + each for each in encoded)
        return "BYTES", [1, len(elements)], data
    return "FP32", [1, len(elements)], struct.pack(f"<{len(elements)}f", *elements)


def _value_of(datatype: str, data: bytes) -> Any:  # noqa: ANN401 - the datatype decides
    """Read the one element of an input."""
    return data[4:] if datatype == "BYTES" else struct.unpack(NUMBERS[datatype], data)[0]


class _Servicer(service_pb2_grpc.GRPCInferenceServiceServicer):  # type: ignore[misc]
    def __init__(self, server: FakeServer) -> None:
        self._server = server

    def ServerReady(self, request: Any, context: Any) -> Any:  # noqa: N802, ARG002, ANN401
        return service_pb2.ServerReadyResponse(ready=self._server.ready())

    def ModelReady(self, request: Any, context: Any) -> Any:  # noqa: N802, ANN401
        if request.name not in ANSWERS:
            context.abort(grpc.StatusCode.NOT_FOUND, "Request for unknown model")
        return service_pb2.ModelReadyResponse(ready=self._server.ready())

    def ModelInfer(self, request: Any, context: Any) -> Any:  # noqa: N802, ANN401
        raw = zip(request.inputs, request.raw_input_contents, strict=True)
        parameters = request.parameters
        seen = Seen(
            model=request.model_name,
            request_id=request.id,
            inputs={tensor.name: _value_of(tensor.datatype, data) for tensor, data in raw},
            outputs=tuple(output.name for output in request.outputs),
            timeout_us=parameters["timeout"].int64_param if "timeout" in parameters else None,
            generation=(
                parameters["generation"].string_param if "generation" in parameters else None
            ),
            headers=dict(context.invocation_metadata()),
            peer=context.peer(),
            is_gone=lambda: not context.is_active(),
        )
        try:
            outputs = self._server.answered(seen)
        except RefusalError as refusal:
            context.abort(grpc.StatusCode[refusal.code], refusal.message)
        response = service_pb2.ModelInferResponse(model_name=request.model_name, id=request.id)
        for name, datatype, shape, data in outputs:
            response.outputs.add(name=name, datatype=datatype, shape=shape)
            response.raw_output_contents.append(data)
        return response


@contextmanager
def serve_grpc(credentials: Any = None) -> Iterator[FakeServer]:  # noqa: ANN401 - untyped library
    """Serve gRPC on a free port, encrypted with `credentials` if there are any."""
    server = FakeServer()
    pool = futures.ThreadPoolExecutor(16)
    triton = grpc.server(pool, options=[("grpc.max_receive_message_length", 1 << 20)])
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(_Servicer(server), triton)
    if credentials is None:
        server.url = f"127.0.0.1:{triton.add_insecure_port('127.0.0.1:0')}"
    else:
        server.url = f"grpcs://127.0.0.1:{triton.add_secure_port('127.0.0.1:0', credentials)}"
    triton.start()
    yield server
    triton.stop(0).wait()
    pool.shutdown()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    fake: FakeServer

    def do_GET(self) -> None:
        path = self.path.split("/")
        known = path[2] != "models" or path[3] in ANSWERS
        self._reply(200 if known and self.fake.ready() else 400, b"")

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        try:
            outputs = self.fake.answered(self._seen(body))
        except RefusalError as refusal:
            text = refusal.message
            raw = text.encode() if text.startswith("<") else json.dumps({"error": text}).encode()
            self._reply(refusal.status, raw)
            return
        head = json.dumps(
            {
                "model_name": self.path.split("/")[3],
                "outputs": [
                    {
                        "name": name,
                        "datatype": datatype,
                        "shape": shape,
                        "parameters": {"binary_data_size": len(data)},
                    }
                    for name, datatype, shape, data in outputs
                ],
            }
        ).encode()
        length = {"Inference-Header-Content-Length": str(len(head))}
        self._reply(200, head + b"".join(data for *_, data in outputs), length)

    def _seen(self, body: bytes) -> Seen:
        start = int(self.headers["Inference-Header-Content-Length"])
        document = json.loads(body[:start])
        inputs = {}
        for tensor in document["inputs"]:
            end = start + tensor["parameters"]["binary_data_size"]
            inputs[tensor["name"]] = _value_of(tensor["datatype"], body[start:end])
            start = end
        return Seen(
            model=self.path.split("/")[3],
            request_id=document["id"],
            inputs=inputs,
            outputs=tuple(output["name"] for output in document["outputs"]),
            timeout_us=document.get("parameters", {}).get("timeout"),
            generation=document.get("parameters", {}).get("generation"),
            headers={name.lower(): value for name, value in self.headers.items()},
            peer=str(self.client_address),
            is_gone=self._is_gone,
        )

    def _is_gone(self) -> bool:
        readable, _, _ = select.select([self.connection], [], [], 0)
        return bool(readable) and not self.connection.recv(1, socket.MSG_PEEK)

    def _reply(self, status: int, body: bytes, headers: Mapping[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - http.server's name
        """Say nothing."""


class _QuietServer(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing about clients that leave early."""


@contextmanager
def serve_http(
    wrap: Callable[[socket.socket], socket.socket] | None = None,
) -> Iterator[FakeServer]:
    """Serve HTTP on a free port, encrypted by `wrap` if it is given."""
    server = FakeServer()
    handler = type("Handler", (_Handler,), {"fake": server})
    with _QuietServer(("127.0.0.1", 0), handler) as triton:
        if wrap:
            triton.socket = wrap(triton.socket)
        server.url = f"http{'s' if wrap else ''}://127.0.0.1:{triton.server_address[1]}"
        thread = threading.Thread(target=triton.serve_forever, args=(0.02,))
        thread.start()
        yield server
        triton.shutdown()
        thread.join()


@pytest.fixture(params=["grpc", "http"])
def server(request: pytest.FixtureRequest) -> Iterator[FakeServer]:
    """Serve the tasks over gRPC, then over HTTP."""
    with serve_grpc() if request.param == "grpc" else serve_http() as running:
        yield running


@dataclass(frozen=True)
class Caller:
    """Calls a method of `Client` or of `AsyncClient`, each time on a new one."""

    is_async: bool

    def __call__(
        self,
        url: str,
        method: str,
        *args: object,
        options: Mapping[str, Any] | None = None,
        **named: object,
    ) -> Any:  # noqa: ANN401 - whatever the method returns
        """Make a client with `options`, call its method, close it."""
        if not self.is_async:
            with Client(url, **(options or {})) as client:
                return getattr(client, method)(*args, **named)

        async def once() -> object:
            async with AsyncClient(url, **(options or {})) as client:
                return await getattr(client, method)(*args, **named)

        return asyncio.run(once())


@pytest.fixture(params=["blocking", "async"])
def call(request: pytest.FixtureRequest) -> Caller:
    """Call through the blocking client, then through the asynchronous one."""
    return Caller(request.param == "async")


@pytest.fixture
def free_port() -> int:
    """Return a port on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
