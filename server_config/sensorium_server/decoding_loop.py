"""The thread that owns a decoder: requests join between two tokens and are answered as they end.

A request that fails, is cancelled or waits does not hold up the others; a step that fails costs
the requests that were running in it, and the loop goes on.
"""

import queue
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from numpy.typing import NDArray

from sensorium.errors import DeadlineExceededError, ModelNotReadyError, OverloadedError
from sensorium_server.decoding import Decoder, Generated
from sensorium_server.generation import Generation

Key: TypeAlias = tuple["Job", int]
"""A job and the number of one of its rows."""

Text: TypeAlias = Generated[Key]
Reply: TypeAlias = Callable[[list[Text] | Exception], None]

CANCEL_CHECK_S = 0.05
"""How long a request may run or wait before it is asked for again; asking costs a third of a ms."""


@dataclass(eq=False, slots=True)
class Job:
    """One request: a memory and a mask with a row for each text, and whom to tell.

    `reply` is called once, with the texts in the order of the rows or with what went wrong. Without
    a `generation` the texts are generated as the bundle says.
    """

    memory: NDArray[Any]
    mask: NDArray[Any]
    reply: Reply
    is_cancelled: Callable[[], bool] = lambda: False
    generation: Generation | None = None
    results: dict[int, Text] = field(default_factory=dict)
    answered: bool = False
    submitted: float = field(default_factory=time.monotonic)
    next_check: float = field(default_factory=lambda: time.monotonic() + CANCEL_CHECK_S)

    @property
    def rows(self) -> int:
        """How many texts the request asks for."""
        return len(self.memory)


class DecodingLoop:
    """Runs a decoder on a thread of its own, and answers on another."""

    def __init__(
        self,
        decoder: Decoder[Key],
        max_waiting_rows: int,
        *,
        measured: Callable[[int], AbstractContextManager[None]] = lambda _rows: nullcontext(),
        waited: Callable[[float], None] = lambda _seconds: None,
    ) -> None:
        self._decoder = decoder
        self._measured = measured
        self._waited = waited
        self._max_waiting_rows = max_waiting_rows
        self._inbox: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._outbox: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._waiting: deque[Key] = deque()
        self._jobs: set[Job] = set()
        self._open_slots = 0
        self._lock = threading.Lock()
        self._stopping = False
        self._threads = [
            threading.Thread(target=self._decode, name="decode", daemon=True),
            threading.Thread(target=self._send, name="send", daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, job: Job) -> None:
        """Take a job; its reply comes from another thread.

        Raises:
            OverloadedError: too many rows wait already.
            ModelNotReadyError: the loop is stopping.
        """
        with self._lock:
            if self._stopping:
                raise ModelNotReadyError("the decoder is stopping. Retry in a moment.")
            wanted = job.rows * self._beams(job)
            waiting = self._open_slots + wanted - self._decoder.slots
            if self._open_slots and waiting > self._max_waiting_rows:
                raise OverloadedError(
                    f"the decoder's maximum queue size is exceeded: {waiting} texts, or beams of "
                    f"texts, would wait; the limit is {self._max_waiting_rows} "
                    f"(max_waiting_rows). Retry later."
                )
            self._open_slots += wanted
        self._inbox.put(job)

    def stop(self) -> None:
        """Finish what is running, refuse what comes, and end the threads."""
        with self._lock:
            self._stopping = True
        self._inbox.put(None)
        for thread in self._threads:
            thread.join()

    def _decode(self) -> None:
        open_for_more = True
        while open_for_more or self._jobs:
            open_for_more = self._receive(open_for_more)
            self._admit()
            if self._decoder.running:
                self._advance()
        self._outbox.put(None)

    def _receive(self, open_for_more: bool) -> bool:  # noqa: FBT001 - the state of the loop
        """Take what has arrived; wait only when there is nothing to do. False at the end."""
        while open_for_more:
            try:
                job = self._inbox.get(block=not self._jobs)
            except queue.Empty:
                break
            if job is None:
                return False
            self._jobs.add(job)
            self._waiting.extend((job, row) for row in range(job.rows))
        return open_for_more

    def _admit(self) -> None:
        """Let waiting rows join as far as there are free slots."""
        keys: list[Key] = []
        free = self._decoder.free
        while self._waiting and free:
            job, row = self._waiting[0]
            if not job.answered and not self._is_given_up(job):
                # Nobody overtakes: a text of many beams would wait for ever.
                if self._beams(job) > free:
                    break
                free -= self._beams(job)
                keys.append((job, row))
            self._waiting.popleft()
            if row == 0:
                self._waited(time.monotonic() - job.submitted)
        if keys:
            self._join(keys)

    def _join(self, keys: list[Key]) -> None:
        try:
            self._decoder.join(
                keys,
                [job.memory[row] for job, row in keys],
                [job.mask[row] for job, row in keys],
                [job.generation for job, _ in keys],
            )
        except Exception as error:  # noqa: BLE001 - the guilty one is told, the others join
            if len(keys) == 1:
                self._answer(keys[0][0], error)
                return
            for key in keys:
                if not key[0].answered:
                    self._join([key])

    def _advance(self) -> None:
        try:
            with self._measured(self._decoder.running):
                ended = self._decoder.step()
        except Exception as error:  # noqa: BLE001 - the loop survives
            for job, _ in self._decoder.keys:
                self._answer(job, error)
            return
        for result in ended:
            job, row = result.key
            job.results[row] = result
            if len(job.results) == job.rows:
                self._answer(job, [job.results[index] for index in range(job.rows)])
        for job in {job for job, _ in self._decoder.keys}:
            self._is_given_up(job)

    def _beams(self, job: Job) -> int:
        """Return how many slots each text of a job takes."""
        return (job.generation or self._decoder.generation).num_beams

    def _is_given_up(self, job: Job) -> bool:
        """Ask now and then whether anybody still waits for a job, for asking is slow."""
        now = time.monotonic()
        if now < job.next_check:
            return False
        job.next_check = now + CANCEL_CHECK_S
        if job.is_cancelled():
            self._answer(job, _cancelled())
        return job.answered

    def _answer(self, job: Job, answer: list[Text] | Exception) -> None:
        """Hand the answer to the sender, and forget the job."""
        if job.answered:
            return
        job.answered = True
        self._jobs.discard(job)
        with self._lock:
            self._open_slots -= job.rows * self._beams(job)
        self._decoder.discard({(job, row) for row in range(job.rows)})
        self._outbox.put(lambda: job.reply(answer))

    def _send(self) -> None:
        while (send := self._outbox.get()) is not None:
            send()


def _cancelled() -> DeadlineExceededError:
    return DeadlineExceededError("the request was cancelled by its sender, or its deadline passed.")
