"""HTTP: the KServe v2 protocol with binary tensors, written over aiohttp.

One implementation serves both clients: the blocking one runs it in a private event loop, so
that its deadlines are exact too (docs/decisions/0003-http-transport.md).

Triton does not notice when an HTTP client leaves. What ends a request there is the parameter
`timeout`, which goes with every request that has a deadline and reaches every stage.
"""

import asyncio
import io
import json
import math
import ssl
import weakref
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import aiohttp

from sensorium._config import TLS, Address
from sensorium._transports.base import AsyncTransport, Request, Response, Tensor, Transport
from sensorium._transports.failure import (
    Exchange,
    error_from_http,
    garbled,
    too_late,
    unreachable,
    untrusted,
)
from sensorium._transports.portal import Portal
from sensorium.errors import ConfigurationError

JSON_LENGTH = "Inference-Header-Content-Length"
_OK = 200
_NOT_READY = (400, 404, 503)


class AsyncHttpTransport(AsyncTransport):
    """Carries requests over a pool of kept-alive connections."""

    def __init__(self, address: Address, tls: TLS | None, headers: Mapping[str, str]) -> None:
        self.address = str(address)
        self._headers = dict(headers)
        self._ssl = _ssl_context(tls) if address.is_secure else True
        self._server_name = tls.server_name if tls else None
        self._session: aiohttp.ClientSession | None = None

    async def ainfer(self, request: Request, timeout_s: float) -> Response:
        """Send a request; the deadline closes its connection."""
        exchange = Exchange(self.address, request.model, timeout_s, request.request_id)
        head, body = body_from_request(request, timeout_s)
        head = {**request.headers, **head}
        status, headers, answer = await self._send(
            "POST", f"/v2/models/{quote(request.model)}/infer", head, body, exchange
        )
        if status != _OK:
            raise error_from_http(status, answer, exchange)
        return response_from_body(headers.get(JSON_LENGTH), answer, exchange)

    async def ais_ready(self, model: str | None, timeout_s: float) -> bool:
        """Ask the server's or the model's readiness endpoint."""
        exchange = Exchange(self.address, model or "the server", timeout_s)
        path = f"/v2/models/{quote(model)}/ready" if model else "/v2/health/ready"
        status, _, answer = await self._send("GET", path, {}, b"", exchange)
        if status == _OK or status in _NOT_READY:
            return status == _OK
        raise error_from_http(status, answer, exchange)

    async def _send(
        self, method: str, path: str, head: Mapping[str, str], body: bytes, exchange: Exchange
    ) -> tuple[int, Mapping[str, str], bytes]:
        timeout_s = exchange.timeout_s if math.isfinite(exchange.timeout_s) else None
        try:
            async with (
                asyncio.timeout(timeout_s),
                self._opened().request(
                    method,
                    f"{self.address}{path}",
                    data=io.BytesIO(body) if body else None,
                    headers=head,
                    ssl=self._ssl,
                    server_hostname=self._server_name,
                    allow_redirects=False,
                ) as answer,
            ):
                return answer.status, answer.headers, await answer.read()
        except TimeoutError as error:
            raise too_late(exchange) from error
        except aiohttp.ClientSSLError as error:
            raise untrusted(error, exchange) from error
        except (aiohttp.ClientError, OSError) as error:
            raise unreachable(error, exchange) from error

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                headers=self._headers,
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=None),
                cookie_jar=aiohttp.DummyCookieJar(),
            )
        return self._session

    async def aclose(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()


class HttpTransport(Transport):
    """The blocking twin, safe to use from many threads."""

    def __init__(self, address: Address, tls: TLS | None, headers: Mapping[str, str]) -> None:
        self.address = str(address)
        self._inner, self._portal = AsyncHttpTransport(address, tls, headers), Portal()
        self._finish = weakref.finalize(self, _shut, self._inner, self._portal)

    def infer(self, request: Request, timeout_s: float) -> Response:
        """Send a request; the deadline closes its connection."""
        return self._portal.run(self._inner.ainfer(request, timeout_s))

    def is_ready(self, model: str | None, timeout_s: float) -> bool:
        """Ask the server's or the model's readiness endpoint."""
        return self._portal.run(self._inner.ais_ready(model, timeout_s))

    def close(self) -> None:
        """Close the connections and end the private event loop."""
        self._finish()


def _shut(inner: AsyncHttpTransport, portal: Portal) -> None:
    if portal.is_started:
        portal.run(inner.aclose())
        portal.close()


def body_from_request(request: Request, timeout_s: float) -> tuple[dict[str, str], bytes]:
    """Write a request as JSON followed by the tensors' bytes, and the headers that say so."""
    document: dict[str, Any] = {
        "id": request.request_id,
        "inputs": [
            {
                "name": tensor.name,
                "datatype": str(tensor.dtype),
                "shape": tensor.shape,
                "parameters": {"binary_data_size": len(tensor.data)},
            }
            for tensor in request.inputs
        ],
        "outputs": [
            {"name": name, "parameters": {"binary_data": True}} for name in request.outputs
        ],
    }
    parameters: dict[str, object] = {**request.parameters}
    if math.isfinite(timeout_s):
        parameters["timeout"] = max(1, round(timeout_s * 1e6))
    if parameters:
        document["parameters"] = parameters
    head = json.dumps(document).encode()
    return (
        {"Content-Type": "application/octet-stream", JSON_LENGTH: str(len(head))},
        b"".join((head, *(tensor.data for tensor in request.inputs))),
    )


def response_from_body(json_length: str | None, body: bytes, exchange: Exchange) -> Response:
    """Read JSON followed by the tensors' bytes.

    Raises:
        ServerError: the body is not that.
    """
    try:
        start = len(body) if json_length is None else int(json_length)
        document = json.loads(body[:start])
        outputs = []
        for output in document["outputs"]:
            size = int(output["parameters"]["binary_data_size"])
            data, start = body[start : start + size], start + size
            outputs.append(Tensor(output["name"], output["datatype"], tuple(output["shape"]), data))
        return Response(document["model_name"], tuple(outputs))
    except (ValueError, KeyError, TypeError) as error:
        raise garbled(f"{type(error).__name__}: {error}", exchange) from error


def _ssl_context(tls: TLS | None) -> ssl.SSLContext:
    tls = tls or TLS()
    try:
        context = ssl.create_default_context(
            cafile=str(tls.root_certificates) if tls.root_certificates else None
        )
        if tls.certificate is not None:
            context.load_cert_chain(tls.certificate, tls.key)
    except (ssl.SSLError, OSError) as error:
        raise ConfigurationError(f"{tls}: a file is not valid PEM ({error}).") from error
    return context
