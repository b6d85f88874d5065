"""The blocking client."""

import time
from collections.abc import Iterable, Mapping
from functools import partial
from types import TracebackType
from typing import Self, TypeVar

from sensorium._base import (
    PROBE_TIMEOUT_S,
    BaseClient,
    check_task,
    checked_headers,
    not_ready,
    pair_of,
)
from sensorium._batch import DEFAULT_CONCURRENCY, run_many
from sensorium._config import DEFAULT_TIMEOUT_S, DEFAULT_URL, TLS, Limits, Retry, address_from_url
from sensorium._input import ImageInput
from sensorium._retry import NOT_YET, Patience
from sensorium._transports.base import Transport, transport_for
from sensorium.errors import SensoriumError
from sensorium.results import RESULTS, Answer, Caption, Embedding, Result

R = TypeVar("R", bound=Result)


class Client(BaseClient):
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
        transport: Transport | None = None,
    ) -> None:
        super().__init__(timeout_s=timeout_s, retry=retry, limits=limits)
        self._transport = transport or transport_for(
            address_from_url(url, tls), tls, checked_headers(headers)
        )
        self._address = self._transport.address

    def ask(
        self,
        image: ImageInput,
        question: str,
        *,
        timeout_s: float | None = None,
        request_id: str | None = None,
    ) -> Answer:
        """Answer a question about a picture."""
        inputs = {"image": image, "question": question}
        return self._run("visual_question_answering", inputs, Answer, timeout_s, request_id)

    def caption(
        self, image: ImageInput, *, timeout_s: float | None = None, request_id: str | None = None
    ) -> Caption:
        """Say what is on a picture."""
        return self._run("image_captioning", {"image": image}, Caption, timeout_s, request_id)

    def embed_text(
        self, text: str, *, timeout_s: float | None = None, request_id: str | None = None
    ) -> Embedding:
        """Embed a text in the space that all modalities share."""
        return self._run("text_embedding", {"text": text}, Embedding, timeout_s, request_id)

    def embed_image(
        self, image: ImageInput, *, timeout_s: float | None = None, request_id: str | None = None
    ) -> Embedding:
        """Embed a picture in the space that all modalities share."""
        return self._run("image_embedding", {"image": image}, Embedding, timeout_s, request_id)

    def infer(
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
        return self._run(task, inputs, RESULTS[task], timeout_s, request_id)

    def ask_many(
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

        def ask(pair: object) -> Answer:
            image, question = pair_of(pair)
            inputs = {"image": image, "question": question}
            return self._run("visual_question_answering", inputs, Answer, timeout_s)

        return run_many(ask, pairs, concurrency, "Asking" if progress else None)

    def caption_many(
        self,
        images: Iterable[ImageInput],
        *,
        concurrency: int = DEFAULT_CONCURRENCY,
        progress: bool = False,
        timeout_s: float | None = None,
    ) -> list[Caption | SensoriumError]:
        """Caption many pictures, as `ask_many` answers many questions."""
        return run_many(
            partial(self.caption, timeout_s=timeout_s),
            images,
            concurrency,
            "Captioning" if progress else None,
        )

    def embed_texts(
        self,
        texts: Iterable[str],
        *,
        concurrency: int = DEFAULT_CONCURRENCY,
        progress: bool = False,
        timeout_s: float | None = None,
    ) -> list[Embedding | SensoriumError]:
        """Embed many texts, as `ask_many` answers many questions."""
        return run_many(
            partial(self.embed_text, timeout_s=timeout_s),
            texts,
            concurrency,
            "Embedding texts" if progress else None,
        )

    def embed_images(
        self,
        images: Iterable[ImageInput],
        *,
        concurrency: int = DEFAULT_CONCURRENCY,
        progress: bool = False,
        timeout_s: float | None = None,
    ) -> list[Embedding | SensoriumError]:
        """Embed many pictures, as `ask_many` answers many questions."""
        return run_many(
            partial(self.embed_image, timeout_s=timeout_s),
            images,
            concurrency,
            "Embedding pictures" if progress else None,
        )

    def is_ready(self, task: str | None = None, *, timeout_s: float = 2.0) -> bool:
        """Tell whether the server, or one task on it, would answer now."""
        check_task(task)
        try:
            return self._transport.is_ready(task, self._attempts(timeout_s).begin())
        except NOT_YET:
            return False

    def wait_ready(self, task: str | None = None, *, timeout_s: float = 60.0) -> None:
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
                if self._transport.is_ready(task, min(attempts.begin(), PROBE_TIMEOUT_S)):
                    return
                error: SensoriumError = not_ready(self._address, task)
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
    ) -> R:
        attempts = self._attempts(timeout_s)
        call = self._call(task, inputs, result_type, attempts, request_id)
        while True:
            try:
                return call.result(self._transport.infer(call.request, attempts.begin()))
            except SensoriumError as error:
                time.sleep(attempts.pause_after(error))
