"""The asynchronous client: the twin of `Client`, with the same names."""

import asyncio
from collections.abc import Mapping
from types import TracebackType
from typing import Self, TypeVar

from sensorium._async_tasks import AsyncTasks
from sensorium._base import (
    PROBE_TIMEOUT_S,
    Call,
    checked_headers,
    not_ready,
)
from sensorium._config import DEFAULT_TIMEOUT_S, DEFAULT_URL, TLS, Limits, Retry, address_from_url
from sensorium._generation import Generation
from sensorium._input import reads_file
from sensorium._retry import NOT_YET, Attempts, Patience
from sensorium._transports.base import AsyncTransport, async_transport_for
from sensorium.errors import SensoriumError
from sensorium.results import Result

R = TypeVar("R", bound=Result)


class AsyncClient(AsyncTasks):
    """Asks a Sensorium server from one event loop; takes what `Client` takes.

    Cancelling a task that awaits an answer cancels the request on the server too.

    Usage:
        async with AsyncClient("localhost:8001") as client:
            print((await client.ask("photo.jpg", "what color is the large star?")).text)
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
        transport: AsyncTransport | None = None,
    ) -> None:
        super().__init__(timeout_s=timeout_s, retry=retry, limits=limits, bundle=bundle)
        self._transport = transport or async_transport_for(
            address_from_url(url, tls), tls, checked_headers(headers)
        )
        self._address = self._transport.address
        self._loop: asyncio.AbstractEventLoop | None = None

    async def is_ready(self, task: str | None = None, *, timeout_s: float = 2.0) -> bool:
        """Tell whether the server, or one task on it, would answer now."""
        model = self._model(task)
        try:
            return await self._transport.ais_ready(model, self._attempts(timeout_s).begin())
        except NOT_YET:
            return False

    async def wait_ready(self, task: str | None = None, *, timeout_s: float = 60.0) -> None:
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
                if await self._transport.ais_ready(model, min(attempts.begin(), PROBE_TIMEOUT_S)):
                    return
                error: SensoriumError = not_ready(self._address, model)
            except NOT_YET as failure:
                error = failure
            await asyncio.sleep(attempts.pause_after(error))

    async def aclose(self) -> None:
        """Close the connections; the client cannot be used any more."""
        self._closed = True
        await self._transport.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    def _check_open(self) -> None:
        super()._check_open()
        loop = asyncio.get_running_loop()
        self._loop = self._loop or loop
        if self._loop is not loop:
            raise RuntimeError(f"{self!r} belongs to another event loop, that of its first call.")

    async def _run(
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
        call = await self._read(
            task, inputs, result_type, attempts, request_id, generation=generation
        )
        while True:
            try:
                return call.result(await self._transport.ainfer(call.request, attempts.begin()))
            except SensoriumError as error:
                await asyncio.sleep(attempts.pause_after(error))

    async def _read(
        self,
        task: str,
        inputs: Mapping[str, object],
        result_type: type[R],
        attempts: Attempts,
        request_id: str | None,
        *,
        generation: Generation | None,
    ) -> Call[R]:
        """Build the call; reading a file happens in a thread, so that the event loop goes on."""
        if reads_file(inputs):
            return await asyncio.to_thread(
                self._call, task, inputs, result_type, attempts, request_id, generation=generation
            )
        return self._call(task, inputs, result_type, attempts, request_id, generation=generation)
