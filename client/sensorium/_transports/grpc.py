"""gRPC: Triton's own stubs over plain channels, whose deadlines cancel on the server too.

Triton tells a cancellation to the model that was called, but not to the stages of an ensemble;
these learn the deadline from the parameter `timeout`.
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

import grpc
from tritonclient.grpc import service_pb2, service_pb2_grpc

from sensorium._config import TLS, Address
from sensorium._transports.base import AsyncTransport, Request, Response, Tensor, Transport
from sensorium._transports.failure import Exchange, error_from_grpc, garbled

Metadata: TypeAlias = tuple[tuple[str, str], ...]
"""Names and values as gRPC takes them."""

CHANNEL_OPTIONS: tuple[tuple[str, int | str], ...] = (
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    # Triton closes connections that are pinged more often than every 5 minutes.
    ("grpc.keepalive_time_ms", 301_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    # gRPC's own pauses between connects (1 s to 120 s) would outlast our retries.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 1_000),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    # A name with many addresses is many replicas: use them all, not the first alone.
    ("grpc.service_config", json.dumps({"loadBalancingConfig": [{"round_robin": {}}]})),
    ("grpc.enable_retries", 0),
)


class GrpcTransport(Transport):
    """Carries requests over one gRPC channel per client."""

    def __init__(self, address: Address, tls: TLS | None, headers: Mapping[str, str]) -> None:
        self.address = str(address)
        self._metadata = metadata_from_headers(headers)
        credentials, options = _credentials(address, tls), _options(tls)
        self._channel = (
            grpc.secure_channel(address.target, credentials, options)
            if credentials
            else grpc.insecure_channel(address.target, options)
        )
        self._stub = service_pb2_grpc.GRPCInferenceServiceStub(self._channel)

    def infer(self, request: Request, timeout_s: float) -> Response:
        """Send a request; at the deadline gRPC resets the stream and Triton cancels."""
        exchange = Exchange(self.address, request.model, timeout_s, request.request_id)
        message = message_from_request(request, timeout_s)
        more = metadata_from_headers(request.headers)
        return response_from_message(self._unary("ModelInfer", message, exchange, more), exchange)

    def is_ready(self, model: str | None, timeout_s: float) -> bool:
        """Ask the server's or the model's readiness endpoint."""
        method, message = _readiness(model)
        exchange = Exchange(self.address, model or "the server", timeout_s)
        return bool(self._unary(method, message, exchange).ready)

    def _unary(self, method: str, message: object, exchange: Exchange, more: Metadata = ()) -> Any:  # noqa: ANN401 - protobuf
        call = getattr(self._stub, method)
        timeout_s, metadata = _finite(exchange.timeout_s), (*self._metadata, *more)
        try:
            return call(message, timeout=timeout_s, metadata=metadata)
        except grpc.RpcError as error:
            raise error_from_grpc(error.code().name, error.details(), exchange) from error

    def close(self) -> None:
        """Close the channel."""
        self._channel.close()


class AsyncGrpcTransport(AsyncTransport):
    """Carries requests over one asynchronous gRPC channel, opened in the caller's event loop."""

    def __init__(self, address: Address, tls: TLS | None, headers: Mapping[str, str]) -> None:
        self.address = str(address)
        self._target = address.target
        self._metadata = metadata_from_headers(headers)
        self._credentials, self._options = _credentials(address, tls), _options(tls)
        self._channel: Any = None
        self._stub: Any = None

    async def ainfer(self, request: Request, timeout_s: float) -> Response:
        """Send a request; the deadline, or cancelling the task, cancels on the server too."""
        exchange = Exchange(self.address, request.model, timeout_s, request.request_id)
        message = message_from_request(request, timeout_s)
        more = metadata_from_headers(request.headers)
        answer = await self._unary("ModelInfer", message, exchange, more)
        return response_from_message(answer, exchange)

    async def ais_ready(self, model: str | None, timeout_s: float) -> bool:
        """Ask the server's or the model's readiness endpoint."""
        method, message = _readiness(model)
        exchange = Exchange(self.address, model or "the server", timeout_s)
        return bool((await self._unary(method, message, exchange)).ready)

    async def _unary(
        self, method: str, message: object, exchange: Exchange, more: Metadata = ()
    ) -> Any:  # noqa: ANN401 - protobuf
        self._open()
        call = getattr(self._stub, method)
        timeout_s, metadata = _finite(exchange.timeout_s), (*self._metadata, *more)
        try:
            return await call(message, timeout=timeout_s, metadata=metadata)
        except grpc.RpcError as error:
            raise error_from_grpc(error.code().name, error.details(), exchange) from error

    def _open(self) -> None:
        if self._channel is None:
            self._channel = (
                grpc.aio.secure_channel(self._target, self._credentials, self._options)
                if self._credentials
                else grpc.aio.insecure_channel(self._target, self._options)
            )
            self._stub = service_pb2_grpc.GRPCInferenceServiceStub(self._channel)

    async def aclose(self) -> None:
        """Close the channel."""
        if self._channel is not None:
            await self._channel.close()


def message_from_request(request: Request, timeout_s: float) -> Any:  # noqa: ANN401 - protobuf
    """Write a request as Triton's protobuf; `timeout` tells every stage when to give up."""
    message = service_pb2.ModelInferRequest(
        model_name=request.model,
        id=request.request_id,
        inputs=[
            service_pb2.ModelInferRequest.InferInputTensor(
                name=tensor.name, datatype=tensor.dtype, shape=tensor.shape
            )
            for tensor in request.inputs
        ],
        outputs=[
            service_pb2.ModelInferRequest.InferRequestedOutputTensor(name=name)
            for name in request.outputs
        ],
        raw_input_contents=[tensor.data for tensor in request.inputs],
    )
    for name, value in request.parameters.items():
        message.parameters[name].string_param = value
    if math.isfinite(timeout_s):
        message.parameters["timeout"].int64_param = max(1, round(timeout_s * 1e6))
    return message


def response_from_message(message: Any, exchange: Exchange) -> Response:  # noqa: ANN401 - protobuf
    """Read Triton's protobuf.

    Raises:
        ServerError: the tensors and their contents do not pair up.
    """
    if len(message.outputs) != len(message.raw_output_contents):
        raise garbled(
            f"{len(message.outputs)} outputs, {len(message.raw_output_contents)} raw contents",
            exchange,
        )
    return Response(
        message.model_name,
        tuple(
            Tensor(output.name, output.datatype, tuple(output.shape), data)
            for output, data in zip(message.outputs, message.raw_output_contents, strict=True)
        ),
    )


def metadata_from_headers(headers: Mapping[str, str]) -> Metadata:
    """Write headers as gRPC metadata, whose names are lower-case."""
    return tuple((name.lower(), value) for name, value in headers.items())


def _readiness(model: str | None) -> tuple[str, object]:
    if model is None:
        return "ServerReady", service_pb2.ServerReadyRequest()
    return "ModelReady", service_pb2.ModelReadyRequest(name=model)


def _credentials(address: Address, tls: TLS | None) -> Any:  # noqa: ANN401 - untyped library
    if not address.is_secure:
        return None
    tls = tls or TLS()
    files = (tls.root_certificates, tls.key, tls.certificate)
    return grpc.ssl_channel_credentials(*(Path(f).read_bytes() if f else None for f in files))


def _options(tls: TLS | None) -> tuple[tuple[str, int | str], ...]:
    if tls is None or tls.server_name is None:
        return CHANNEL_OPTIONS
    return (*CHANNEL_OPTIONS, ("grpc.ssl_target_name_override", tls.server_name))


def _finite(timeout_s: float) -> float | None:
    return timeout_s if math.isfinite(timeout_s) else None
