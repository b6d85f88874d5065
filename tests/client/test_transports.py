import asyncio
import math
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor

import pytest
from tests.client.conftest import (
    Caller,
    FakeServer,
    RefusalError,
    Seen,
    answer_all,
    serve_http,
)

import sensorium
from sensorium import AsyncClient, Client, Retry, SensoriumError

ONCE = {"retry": Retry(attempts=1)}
QUICK = {"retry": Retry(attempts=3, base_s=0.001, cap_s=0.002)}

REFUSALS = [
    (("INVALID_ARGUMENT", 400, "unexpected inference input 'x'"), "InvalidInputError"),
    (("INVALID_ARGUMENT", 400, "[request id: 7] expected 2 inputs but got 1"), "InvalidInputError"),
    (("NOT_FOUND", 404, "Request for unknown model: 'x' is not found"), "UnknownTaskError"),
    (
        ("UNAVAILABLE", 503, "Request for unknown model: 'x' has no available versions"),
        "ModelNotReadyError",
    ),
    (("UNAVAILABLE", 503, "Server is stopping"), "ModelNotReadyError"),
    (("UNAVAILABLE", 503, "Exceeds maximum queue size"), "OverloadedError"),
    (("UNAVAILABLE", 503, "Request timeout expired"), "DeadlineExceededError"),
    (("RESOURCE_EXHAUSTED", 429, "too many requests"), "OverloadedError"),
    (("DEADLINE_EXCEEDED", 504, "too late"), "DeadlineExceededError"),
    (("INTERNAL", 500, "internal error, see the server's log"), "ServerError"),
    (("UNIMPLEMENTED", 501, "no such method"), "ServerError"),
    (("UNAUTHENTICATED", 401, "who are you?"), "ConfigurationError"),
    (("PERMISSION_DENIED", 403, "not you"), "ConfigurationError"),
]


def refuse(code: str, status: int, message: str) -> Callable[[Seen], Mapping[str, object]]:
    """Return an answer that always refuses."""

    def answer(_: Seen) -> Mapping[str, object]:
        raise RefusalError(code, status, message)

    return answer


class Slow:
    """Answers only when the client has left, and tells that it did."""

    def __init__(self) -> None:
        self.started, self.noticed = threading.Event(), threading.Event()

    def __call__(self, seen: Seen) -> Mapping[str, object]:
        """Wait at most 5 s for the client to leave."""
        self.started.set()
        end = time.monotonic() + 5
        while time.monotonic() < end:
            if seen.is_gone():
                self.noticed.set()
                break
            time.sleep(0.005)
        return answer_all(seen)


def test_ask_carries_question_and_answer(server: FakeServer, call: Caller) -> None:
    """Both clients bring a question to the server and its answer back, over both protocols."""
    answer = call(server.url, "ask", b"picture", "what color?", request_id="r1")

    assert (answer.text, answer.score, answer.request_id) == ("red", 0.5, "r1")
    assert answer.model == "visual_question_answering"
    assert 0 < answer.timings.attempt_s <= answer.timings.total_s
    assert answer.timings.attempts == 1
    [seen] = server.seen
    assert seen.inputs == {"image": b"picture", "question": b"what color?"}
    assert (seen.request_id, seen.outputs) == ("r1", ("answer", "score"))


def test_all_tasks_answer(server: FakeServer, call: Caller) -> None:
    """Captions and both embeddings come back typed."""
    assert call(server.url, "caption", b"picture").text == "a red star"
    text = call(server.url, "embed_text", "a red star")
    image = call(server.url, "embed_image", b"picture")

    assert text.similarity(image) == pytest.approx(0.96)
    assert text.vector.shape == (3,)
    assert not text.vector.flags.writeable


@pytest.mark.parametrize(("refusal", "expected"), REFUSALS)
def test_each_refusal_is_one_class(
    server: FakeServer, call: Caller, refusal: tuple[str, int, str], expected: str
) -> None:
    """A status and Triton's text become one class of the tree, alike in both protocols."""
    server.answer = refuse(*refusal)

    with pytest.raises(getattr(sensorium, expected)) as caught:
        call(server.url, "caption", b"picture", request_id="r2", options=ONCE)

    assert caught.value.request_id == "r2"
    assert "[request id" not in str(caught.value)


def test_retryable_refusals_are_retried(server: FakeServer, call: Caller) -> None:
    """A server that is not ready yet is asked again, with the same request id."""
    refusals = iter([RefusalError("UNAVAILABLE", 503, "Server is stopping")] * 2)

    def answer(seen: Seen) -> Mapping[str, object]:
        for refusal in refusals:
            raise refusal
        return answer_all(seen)

    server.answer = answer
    result = call(server.url, "caption", b"picture", options=QUICK)

    assert result.timings.attempts == 3
    assert len({seen.request_id for seen in server.seen}) == 1


def test_attempts_are_counted(server: FakeServer, call: Caller) -> None:
    """After the last attempt the error comes through."""
    server.answer = refuse("UNAVAILABLE", 503, "Server is stopping")

    with pytest.raises(sensorium.ModelNotReadyError):
        call(server.url, "caption", b"picture", options=QUICK)

    assert len(server.seen) == 3


def test_what_cannot_succeed_is_not_retried(server: FakeServer, call: Caller) -> None:
    """Wrong input is refused once, not three times."""
    server.answer = refuse("INVALID_ARGUMENT", 400, "not an image")

    with pytest.raises(sensorium.InvalidInputError, match=r"^not an image$"):
        call(server.url, "caption", b"picture", options=QUICK)

    assert len(server.seen) == 1


def test_deadline_cancels_on_the_server(server: FakeServer, call: Caller) -> None:
    """At the deadline the call ends at once, and the server sees that the client has left."""
    server.answer = slow = Slow()
    start = time.monotonic()

    with pytest.raises(sensorium.DeadlineExceededError, match=r"within 0\.\d+ s") as caught:
        call(server.url, "ask", b"picture", "what color?", timeout_s=0.3)

    assert time.monotonic() - start < 2
    assert caught.value.request_id
    assert slow.noticed.wait(3)


def test_a_millisecond_is_too_short(server: FakeServer, call: Caller) -> None:
    """A deadline of 1 ms is a DeadlineExceededError, never another one."""
    server.answer = Slow()

    with pytest.raises(sensorium.DeadlineExceededError):
        call(server.url, "ask", b"picture", "what color?", timeout_s=0.001)


def test_cancelling_a_task_cancels_on_the_server(server: FakeServer) -> None:
    """Cancelling the task that awaits an answer reaches the server."""
    server.answer = slow = Slow()

    async def cancel() -> None:
        async with AsyncClient(server.url) as client:
            task = asyncio.create_task(client.caption(b"picture"))
            await asyncio.to_thread(slow.started.wait, 3)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert await asyncio.to_thread(slow.noticed.wait, 3)

    asyncio.run(cancel())


def test_the_queue_learns_the_deadline(server: FakeServer, call: Caller) -> None:
    """The request carries what is left of the deadline in µs; without a deadline, nothing."""
    call(server.url, "caption", b"picture", timeout_s=5)
    call(server.url, "caption", b"picture", timeout_s=math.inf)

    timed, endless = server.seen
    assert timed.timeout_us is not None
    assert 3_000_000 < timed.timeout_us <= 5_000_000
    assert endless.timeout_us is None


@pytest.mark.parametrize("scheme", ["", "http://"])
def test_nobody_answers(scheme: str, free_port: int, call: Caller) -> None:
    """Without a server the error says so, where, and how to start one."""
    url = f"{scheme}127.0.0.1:{free_port}"

    with pytest.raises(sensorium.ServerUnreachableError, match="sensorium serve") as caught:
        call(url, "caption", b"picture", options=QUICK)

    assert url in str(caught.value)


@pytest.mark.parametrize("scheme", ["", "http://"])
def test_waiting_for_a_server_that_never_comes(scheme: str, free_port: int, call: Caller) -> None:
    """`is_ready` is false and `wait_ready` gives up in time when nobody answers."""
    url = f"{scheme}127.0.0.1:{free_port}"

    assert not call(url, "is_ready")
    start = time.monotonic()
    with pytest.raises(sensorium.ServerUnreachableError):
        call(url, "wait_ready", timeout_s=0.5)
    assert time.monotonic() - start < 3


def test_waiting_until_ready(server: FakeServer, call: Caller) -> None:
    """`wait_ready` asks until the server says yes."""
    replies = iter([False, False, True])
    server.ready = lambda: next(replies)

    call(server.url, "wait_ready", "image_captioning", timeout_s=10)

    assert next(replies, None) is None


def test_not_ready_in_time(server: FakeServer, call: Caller) -> None:
    """A server that answers but is not ready is told apart from one that does not answer."""
    server.ready = lambda: False

    assert not call(server.url, "is_ready", "image_captioning")
    with pytest.raises(sensorium.ModelNotReadyError, match="'image_captioning'"):
        call(server.url, "wait_ready", "image_captioning", timeout_s=0.4)


def test_a_message_over_the_transport_limit(server: FakeServer, call: Caller) -> None:
    """What the other side finds too large is wrong input, and is not retried."""
    if server.url.startswith("http"):
        server.answer = refuse("", 413, "<h1>Request Entity Too Large</h1>")

    with pytest.raises(sensorium.InvalidInputError, match=re.compile("large", re.IGNORECASE)):
        call(server.url, "caption", bytes(2 << 20))


def test_a_forgotten_client_ends_quietly(server: FakeServer) -> None:
    """A program that never closes its client, used or not, ends without a word or a wait."""
    code = (
        "import sys; from sensorium import Client; Client(sys.argv[1]); "
        "client = Client(sys.argv[1]); client.caption(b'picture')"
    )
    command = [sys.executable, "-X", "dev", "-c", code, server.url]
    run = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)

    assert (run.returncode, run.stderr) == (0, "")


def test_headers_reach_the_server(server: FakeServer, call: Caller) -> None:
    """Headers travel with every request, and no representation shows them."""
    call(server.url, "caption", b"picture", options={"headers": {"X-Token": "s3cret"}})

    assert server.seen[0].headers["x-token"] == "s3cret"
    with Client(server.url, headers={"X-Token": "s3cret"}) as client:
        assert "s3cret" not in repr(client)


@pytest.mark.parametrize(
    "outputs",
    [
        {"answer": "red"},
        {"answer": "red", "score": ("FP32", [1, 2], bytes(8))},
        {"answer": "red", "score": ("FP32", [1, 1], bytes(3))},
        {"answer": "red", "score": ("INT64", [1, 1], bytes(8))},
        {"answer": ("BYTES", [1, 1], b"\x01\x00"), "score": 0.5},
        {"answer": ("BYTES", [1, 1], b"\x09\x00\x00\x00red"), "score": 0.5},
        {"answer": ("BYTES", [1, 1], b"\x01\x00\x00\x00\xff"), "score": 0.5},
    ],
)
def test_a_broken_answer_is_a_server_error(
    server: FakeServer, call: Caller, outputs: Mapping[str, object]
) -> None:
    """An answer that breaks the contract is never handed on."""
    server.answer = lambda _: outputs

    with pytest.raises(sensorium.ServerError, match="versions of client and server"):
        call(server.url, "ask", b"picture", "what color?")


def test_one_client_serves_many_threads_over_few_connections(server: FakeServer) -> None:
    """Threads share a client; calls one after another share a connection."""
    with Client(server.url) as client:
        for _ in range(5):
            client.caption(b"picture")
        assert len({seen.peer for seen in server.seen}) == 1
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda i: client.ask(b"picture", f"{i}?"), range(40)))

    assert len({answer.request_id for answer in answers}) == 40


def test_many_calls_in_one_event_loop(server: FakeServer) -> None:
    """Concurrent calls of one asynchronous client do not mix up their answers."""

    def echo(seen: Seen) -> Mapping[str, object]:
        return {"answer": seen.inputs["question"].decode(), "score": 1.0}

    async def ask_all() -> list[str]:
        async with AsyncClient(server.url) as client:
            calls = (client.ask(b"picture", f"{i}?") for i in range(40))
            return [answer.text for answer in await asyncio.gather(*calls)]

    server.answer = echo

    assert asyncio.run(ask_all()) == [f"{i}?" for i in range(40)]


def test_grpc_to_an_http_port_is_explained(call: Caller, http_only: FakeServer) -> None:
    """A gRPC client on Triton's HTTP port says which address is which."""
    url = http_only.url.removeprefix("http://")

    with pytest.raises(SensoriumError, match="http://localhost:8000 is HTTP"):
        call(url, "caption", b"picture", timeout_s=5, options=ONCE)


@pytest.fixture
def http_only() -> Iterator[FakeServer]:
    """Serve HTTP alone."""
    with serve_http() as running:
        yield running
