"""The seam between the client and the network: one request in, one response or error out."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field

from sensorium._config import TLS, Address


@dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor as it travels: little-endian elements, BYTES elements length-prefixed."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    data: bytes


@dataclass(frozen=True, slots=True)
class Request:
    """One inference request, in no protocol's terms."""

    model: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[str, ...]
    request_id: str
    parameters: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Response:
    """One inference response, in no protocol's terms."""

    model: str
    outputs: tuple[Tensor, ...]


class Transport(ABC):
    """Carries requests for `Client`; safe to use from many threads.

    Every method raises only errors of `sensorium.errors`. `timeout_s` may be infinite.
    """

    address: str

    @abstractmethod
    def infer(self, request: Request, timeout_s: float) -> Response:
        """Send a request and wait for its response; after `timeout_s` cancel it."""

    @abstractmethod
    def is_ready(self, model: str | None, timeout_s: float) -> bool:
        """Ask whether the server, or one model on it, is ready."""

    def close(self) -> None:  # noqa: B027 - optional
        """Close the connections; more calls are an error."""


class AsyncTransport(ABC):
    """Carries requests for `AsyncClient`, in one event loop; the twin of `Transport`.

    The methods have names of their own so that one class can be both.
    """

    address: str

    @abstractmethod
    async def ainfer(self, request: Request, timeout_s: float) -> Response:
        """Send a request and wait for its response; after `timeout_s` cancel it."""

    @abstractmethod
    async def ais_ready(self, model: str | None, timeout_s: float) -> bool:
        """Ask whether the server, or one model on it, is ready."""

    async def aclose(self) -> None:  # noqa: B027 - optional
        """Close the connections; more calls are an error."""


def transport_for(address: Address, tls: TLS | None, headers: Mapping[str, str]) -> Transport:
    """Make the transport that speaks the address's protocol; import only that one."""
    if address.is_grpc:
        from sensorium._transports.grpc import GrpcTransport  # noqa: PLC0415

        return GrpcTransport(address, tls, headers)
    from sensorium._transports.http import HttpTransport  # noqa: PLC0415

    return HttpTransport(address, tls, headers)


def async_transport_for(
    address: Address, tls: TLS | None, headers: Mapping[str, str]
) -> AsyncTransport:
    """Make the asynchronous transport that speaks the address's protocol."""
    if address.is_grpc:
        from sensorium._transports.grpc import AsyncGrpcTransport  # noqa: PLC0415

        return AsyncGrpcTransport(address, tls, headers)
    from sensorium._transports.http import AsyncHttpTransport  # noqa: PLC0415

    return AsyncHttpTransport(address, tls, headers)
