"""The blocking client."""

import time
from collections.abc import Mapping
from types import TracebackType
from typing import Self, TypeVar

from sensorium._base import (
    PROBE_TIMEOUT_S,
    checked_headers,
    not_ready,
)
from sensorium._config import DEFAULT_TIMEOUT_S, DEFAULT_URL, TLS, Limits, Retry, address_from_url
from sensorium._generation import Generation
from sensorium._retry import NOT_YET, Patience
from sensorium._tasks import Tasks
from sensorium._transports.base import Transport, transport_for
from sensorium.errors import SensoriumError
from sensorium.results import Result

R = TypeVar("R", bound=Result)


class Client(Tasks):
    """Asks a Sensorium server; one client serves many threads over kept-alive connections.

    Usage:
        with Client("localhost:8001") as client:
            print(client.ask("photo.jpg", "what color is the large star?").text)

    Args:
        url: `host:port` or `grpcs://host:port` for gRPC, `http(s)://host:port` for HTTP.
        timeout_s: The deadline of a call, its retries included, unless the call has its own;
            `math.inf` for none. At the deadline the request is cancelled on the server too.
        retry: How often and how patiently to retry what is safe to retry.
        limits: What to refuse before the network.
        tls: Whom to trust and who we are; without it the system's trust is used.
        headers: Sent with each request, for example a token; never shown.
        bundle: Which bundle of the server to ask; without it, the default bundle.
        transport: Carries the requests instead of the network, for example in tests.
    """

    def __init__(
        self,
        url: str = DEFAULT_URL,
        *,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        retry: Retry | None = None,
        limits: Limits | None = None,
        tls: TLS | None = None,
        headers: Mapping[str, str] | None = None,
        bundle: str = "",
        transport: Transport | None = None,
    ) -> None:
        super().__init__(timeout_s=timeout_s, retry=retry, limits=limits, bundle=bundle)
        self._transport = transport or transport_for(
            address_from_url(url, tls), tls, checked_headers(headers)
        )
        self._address = self._transport.address

    def is_ready(self, task: str | None = None, *, timeout_s: float = 2.0) -> bool:
        """Tell whether the server, or one task on it, would answer now."""
        model = self._model(task)
        try:
            return self._transport.is_ready(model, self._attempts(timeout_s).begin())
        except NOT_YET:
            return False

    def wait_ready(self, task: str | None = None, *, timeout_s: float = 60.0) -> None:
        """Wait until the server, or one task on it, is ready.

        Raises:
            ServerUnreachableError: nobody answered in that time.
            ModelNotReadyError: it answered, but did not become ready in that time.
        """
        model = self._model(task)
        self._check_open()
        attempts = Patience(timeout_s)
        while True:
            try:
                if self._transport.is_ready(model, min(attempts.begin(), PROBE_TIMEOUT_S)):
                    return
                error: SensoriumError = not_ready(self._address, model)
            except NOT_YET as failure:
                error = failure
            time.sleep(attempts.pause_after(error))

    def close(self) -> None:
        """Close the connections; the client cannot be used any more."""
        self._closed = True
        self._transport.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _run(
        self,
        task: str,
        inputs: Mapping[str, object],
        result_type: type[R],
        timeout_s: float | None,
        request_id: str | None = None,
        *,
        generation: Generation | None = None,
    ) -> R:
        attempts = self._attempts(timeout_s)
        call = self._call(task, inputs, result_type, attempts, request_id, generation=generation)
        while True:
            try:
                return call.result(self._transport.infer(call.request, attempts.begin()))
            except SensoriumError as error:
                time.sleep(attempts.pause_after(error))
