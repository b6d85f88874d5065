"""Many inputs at once: bounded concurrency, results in order, an error only in its own place."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sized
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import copy_context
from typing import TypeVar

from sensorium.errors import InvalidInputError, SensoriumError

T = TypeVar("T")
R = TypeVar("R")

DEFAULT_CONCURRENCY = 16


def run_many(
    call: Callable[[T], R], items: Iterable[T], concurrency: int, progress: str | None
) -> list[R | SensoriumError]:
    """Call for every item, at most `concurrency` at a time; items are drawn as they are needed.

    `progress` is the title of a progress bar on stderr; None shows none.
    """
    queue = _Queue(items)
    results: dict[int, R | SensoriumError] = {}

    def work(advance: Callable[[], None]) -> None:
        for index, item in queue:
            try:
                results[index] = call(item)
            except SensoriumError as error:
                results[index] = error
            except BaseException:
                queue.stop()
                raise
            advance()

    with _bar(progress, items) as advance, _pool(concurrency) as pool:
        workers = [pool.submit(copy_context().run, work, advance) for _ in range(concurrency)]
        try:
            for worker in workers:
                worker.result()
        except BaseException:
            queue.stop()
            raise
    return [results[index] for index in range(len(results))]


async def run_many_async(
    call: Callable[[T], Awaitable[R]], items: Iterable[T], concurrency: int, progress: str | None
) -> list[R | SensoriumError]:
    """Do as `run_many` does, in the event loop."""
    queue = _Queue(items)
    results: dict[int, R | SensoriumError] = {}

    async def work(advance: Callable[[], None]) -> None:
        for index, item in queue:
            try:
                results[index] = await call(item)
            except SensoriumError as error:
                results[index] = error
            advance()

    _check(concurrency)
    with _bar(progress, items) as advance:
        workers = [asyncio.ensure_future(work(advance)) for _ in range(concurrency)]
        try:
            await asyncio.gather(*workers)
        finally:
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)
    return [results[index] for index in range(len(results))]


class _Queue(Iterator[tuple[int, T]]):
    """Numbers items and hands each to one of many threads."""

    def __init__(self, items: Iterable[T]) -> None:
        self._items = enumerate(items)
        self._lock = threading.Lock()
        self._stopped = False

    def __next__(self) -> tuple[int, T]:
        with self._lock:
            if self._stopped:
                raise StopIteration
            return next(self._items)

    def stop(self) -> None:
        """Hand out no more."""
        self._stopped = True


def _check(concurrency: int) -> None:
    if concurrency < 1:
        raise InvalidInputError(f"concurrency is {concurrency}; the smallest value is 1.")


def _pool(concurrency: int) -> ThreadPoolExecutor:
    _check(concurrency)
    return ThreadPoolExecutor(concurrency, thread_name_prefix="sensorium-batch")


@contextmanager
def _bar(title: str | None, items: Iterable[object]) -> Iterator[Callable[[], None]]:
    if title is None:
        yield lambda: None
        return
    from rich.console import Console  # noqa: PLC0415 - only who wants a bar pays for it
    from rich.progress import MofNCompleteColumn, Progress, TimeElapsedColumn  # noqa: PLC0415

    total = len(items) if isinstance(items, Sized) else None
    columns = (*Progress.get_default_columns(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(title, total=total)
        yield lambda: bar.advance(task)
