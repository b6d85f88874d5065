"""The asynchronous client: the twin of `Client`, with the same names."""

import asyncio
from collections.abc import Iterable, Mapping
from functools import partial
from types import TracebackType
from typing import Self, TypeVar

from sensorium._base import (
    PROBE_TIMEOUT_S,
    BaseClient,
    Call,
    check_task,
    checked_headers,
    not_ready,
    pair_of,
)
from sensorium._batch import DEFAULT_CONCURRENCY, run_many_async
from sensorium._config import DEFAULT_TIMEOUT_S, DEFAULT_URL, TLS, Limits, Retry, address_from_url
from sensorium._input import ImageInput, reads_file
from sensorium._retry import NOT_YET, Attempts, Patience
from sensorium._transports.base import AsyncTransport, async_transport_for
from sensorium.errors import SensoriumError
from sensorium.results import RESULTS, Answer, Caption, Embedding, Result

R = TypeVar("R", bound=Result)


class AsyncClient(BaseClient):
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
        transport: AsyncTransport | None = None,
    ) -> None:
        super().__init__(timeout_s=timeout_s, retry=retry, limits=limits)
        self._transport = transport or async_transport_for(
            address_from_url(url, tls), tls, checked_headers(headers)
        )
        self._address = self._transport.address
        self._loop: asyncio.AbstractEventLoop | None = None

    async def ask(
        self,
        image: ImageInput,
        question: str,
        *,
        timeout_s: float | None = None,
        request_id: str | None = None,
    ) -> Answer:
        """Answer a question about a picture."""
        inputs = {"image": image, "question": question}
        return await self._run("visual_question_answering", inputs, Answer, timeout_s, request_id)

    async def caption(
        self, image: ImageInput, *, timeout_s: float | None = None, request_id: str | None = None
    ) -> Caption:
        """Say what is on a picture."""
        return await self._run("image_captioning", {"image": image}, Caption, timeout_s, request_id)

    async def embed_text(
        self, text: str, *, timeout_s: float | None = None, request_id: str | None = None
    ) -> Embedding:
        """Embed a text in the space that all modalities share."""
        return await self._run("text_embedding", {"text": text}, Embedding, timeout_s, request_id)

    async def embed_image(
        self, image: ImageInput, *, timeout_s: float | None = None, request_id: str | None = None
    ) -> Embedding:
        """Embed a picture in the space that all modalities share."""
        return await self._run(
            "image_embedding", {"image": image}, Embedding, timeout_s, request_id
        )

    async def infer(
        self,
        task: str,
        inputs: Mapping[str, object],
        *,
        timeout_s: float | None = None,
        request_id: str | None = None,
    ) -> Result:
        """Run any task of the contract by its name, with its inputs by their names.

        Raises:
            UnknownTaskError: there is no such task.
        """
        check_task(task)
        return await self._run(task, inputs, RESULTS[task], timeout_s, request_id)

    async def ask_many(
        self,
        pairs: Iterable[tuple[ImageInput, str]],
        *,
        concurrency: int = DEFAULT_CONCURRENCY,
        progress: bool = False,
        timeout_s: float | None = None,
    ) -> list[Answer | SensoriumError]:
        """Answer many (image, question) pairs; what fails is an error in its place.

        Args:
            pairs: Drawn one by one, so a generator may be long.
            concurrency: How many requests are under way at a time.
            progress: Show a progress bar on stderr.
            timeout_s: The deadline of each item.
        """

        async def ask(pair: object) -> Answer:
            image, question = pair_of(pair)
            inputs = {"image": image, "question": question}
            return await self._run("visual_question_answering", inputs, Answer, timeout_s)

        return await run_many_async(ask, pairs, concurrency, "Asking" if progress else None)

    async def caption_many(
        self,
        images: Iterable[ImageInput],
        *,
        concurrency: int = DEFAULT_CONCURRENCY,
        progress: bool = False,
        timeout_s: float | None = None,
    ) -> list[Caption | SensoriumError]:
        """Caption many pictures, as `ask_many` answers many questions."""
        return await run_many_async(
            partial(self.caption, timeout_s=timeout_s),
            images,
            concurrency,
            "Captioning" if progress else None,
        )

    async def embed_texts(
        self,
        texts: Iterable[str],
        *,
        concurrency: int = DEFAULT_CONCURRENCY,
        progress: bool = False,
        timeout_s: float | None = None,
    ) -> list[Embedding | SensoriumError]:
        """Embed many texts, as `ask_many` answers many questions."""
        return await run_many_async(
            partial(self.embed_text, timeout_s=timeout_s),
            texts,
            concurrency,
            "Embedding texts" if progress else None,
        )

    async def embed_images(
        self,
        images: Iterable[ImageInput],
        *,
        concurrency: int = DEFAULT_CONCURRENCY,
        progress: bool = False,
        timeout_s: float | None = None,
    ) -> list[Embedding | SensoriumError]:
        """Embed many pictures, as `ask_many` answers many questions."""
        return await run_many_async(
            partial(self.embed_image, timeout_s=timeout_s),
            images,
            concurrency,
            "Embedding pictures" if progress else None,
        )

    async def is_ready(self, task: str | None = None, *, timeout_s: float = 2.0) -> bool:
        """Tell whether the server, or one task on it, would answer now."""
        check_task(task)
        try:
            return await self._transport.ais_ready(task, self._attempts(timeout_s).begin())
        except NOT_YET:
            return False

    async def wait_ready(self, task: str | None = None, *, timeout_s: float = 60.0) -> None:
        """Wait until the server, or one task on it, is ready.

        Raises:
            ServerUnreachableError: nobody answered in that time.
            ModelNotReadyError: it answered, but did not become ready in that time.
        """
        check_task(task)
        self._check_open()
        attempts = Patience(timeout_s)
        while True:
            try:
                if await self._transport.ais_ready(task, min(attempts.begin(), PROBE_TIMEOUT_S)):
                    return
                error: SensoriumError = not_ready(self._address, task)
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
    ) -> R:
        attempts = self._attempts(timeout_s)
        call = await self._read(task, inputs, result_type, attempts, request_id)
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
    ) -> Call[R]:
        """Build the call; reading a file happens in a thread, so that the event loop goes on."""
        if reads_file(inputs):
            return await asyncio.to_thread(
                self._call, task, inputs, result_type, attempts, request_id
            )
        return self._call(task, inputs, result_type, attempts, request_id)
