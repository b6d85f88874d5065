import asyncio
import threading
import time
from collections.abc import Iterator

import pytest
from tests.client.conftest import Caller

from sensorium import (
    Answer,
    AsyncClient,
    Client,
    InvalidInputError,
    SensoriumError,
    ServerError,
    Tags,
)
from sensorium._transports.base import Request, Response
from sensorium.testing import MockRequest, MockTransport


class Busy:
    """Answers a little late, and measures how many requests are under way."""

    def __init__(self) -> None:
        self.now = self.most = 0
        self._lock = threading.Lock()

    def __call__(self, request: MockRequest) -> dict[str, object]:
        """Answer with the question; break on 'break'."""
        with self._lock:
            self.now += 1
            self.most = max(self.most, self.now)
        time.sleep(0.002)
        with self._lock:
            self.now -= 1
        question = request.inputs.get("question", request.inputs["image"])
        if question == b"break":
            raise ServerError("broken")
        return {"answer": question, "caption": question, "score": 1.0, "embedding": [1.0]}


def pairs(count: int) -> list[tuple[bytes, str]]:
    """Return numbered questions."""
    return [(b"picture", f"{i}?") for i in range(count)]


def test_results_keep_the_order(call: Caller) -> None:
    """Answers come back in the order of the questions, whoever was faster."""
    options = {"transport": MockTransport(Busy())}
    answers = call("", "ask_many", pairs(50), options=options)

    assert [answer.text for answer in answers] == [f"{i}?" for i in range(50)]


def test_errors_stay_in_their_place(call: Caller) -> None:
    """What fails, on the server or before, is an error in its place and loses nothing else."""
    many = [*pairs(2), (b"picture", "break"), (b"", "empty?"), "no pair", *pairs(1)]
    answers = call("", "ask_many", many, options={"transport": MockTransport(Busy())})

    kinds = [Answer, Answer, ServerError, InvalidInputError, InvalidInputError, Answer]
    assert [type(answer) for answer in answers] == kinds


def test_all_batches(call: Caller) -> None:
    """Captions and embeddings come in batches too; an empty batch is empty."""
    busy = Busy()
    options = {"transport": MockTransport(busy)}

    assert [c.text for c in call("", "caption_many", [b"a", b"b"], options=options)] == ["a", "b"]
    assert len(call("", "embed_images", [b"a", b"b"], options=options)) == 2
    assert call("", "embed_texts", [], options=options) == []


def test_every_modality_is_embedded_in_batches(call: Caller) -> None:
    """Sounds and clips are embedded in batches as pictures are, each by its own task."""
    transport = MockTransport(lambda _: {"embedding": [1.0]})
    options = {"transport": transport}
    call("", "embed_audios", [b"a", b"b"], options=options)
    call("", "embed_videos", [b"c", b"", b"d"], options=options)

    seen = sorted((request.task, *request.inputs.values()) for request in transport.requests)
    assert seen == [
        ("audio_embedding", b"a"),
        ("audio_embedding", b"b"),
        ("video_embedding", b"c"),
        ("video_embedding", b"d"),
    ]


def test_any_method_runs_for_many() -> None:
    """`run_many` runs whatever method it is given, in both clients alike."""
    answers = {"audio_tagging": {"labels": ["bell"], "scores": [1.0]}}

    async def tag_all() -> list[Tags | SensoriumError]:
        async with AsyncClient(transport=MockTransport(answers)) as client:
            return await client.run_many(client.tag_audio, [b"a", b"", b"b"], concurrency=2)

    with Client(transport=MockTransport(answers)) as client:
        blocking = client.run_many(client.tag_audio, [b"a", b"", b"b"], concurrency=2)

    kinds = [Tags, InvalidInputError, Tags]
    assert [type(each) for each in blocking] == kinds
    assert [type(each) for each in asyncio.run(tag_all())] == kinds


def test_concurrency_is_bounded() -> None:
    """No more requests are under way than asked for, and that many are."""
    busy = Busy()
    with Client(transport=MockTransport(busy)) as client:
        client.ask_many(pairs(60), concurrency=7)

    assert 1 < busy.most <= 7


def test_inputs_are_drawn_as_needed(call: Caller) -> None:
    """A generator is drawn no further ahead than the concurrency."""
    drawn: list[int] = []
    ahead: list[int] = []
    transport = MockTransport(Busy())

    def questions() -> Iterator[tuple[bytes, str]]:
        for index, pair in enumerate(pairs(30)):
            drawn.append(index)
            ahead.append(len(drawn) - len(transport.requests))
            yield pair

    call("", "ask_many", questions(), concurrency=3, options={"transport": transport})

    assert len(drawn) == 30
    assert max(ahead) <= 4


@pytest.mark.parametrize("concurrency", [0, -1])
def test_concurrency_must_be_possible(call: Caller, concurrency: int) -> None:
    """Zero requests at a time would never end."""
    options = {"transport": MockTransport({})}
    with pytest.raises(InvalidInputError, match="concurrency"):
        call("", "ask_many", pairs(1), concurrency=concurrency, options=options)


def test_a_failing_iterator_stops_the_batch(call: Caller) -> None:
    """An exception of the caller's own generator comes through."""

    def questions() -> Iterator[tuple[bytes, str]]:
        yield from pairs(3)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        call("", "ask_many", questions(), options={"transport": MockTransport(Busy())})


def test_progress_goes_to_stderr(call: Caller, capsys: pytest.CaptureFixture[str]) -> None:
    """The progress bar shows on stderr, and only when it is asked for."""
    options = {"transport": MockTransport(Busy())}
    call("", "ask_many", pairs(4), options=options)
    assert capsys.readouterr() == ("", "")

    call("", "ask_many", pairs(4), progress=True, options=options)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "Asking" in captured.err
    assert "4/4" in captured.err


def test_cancelling_a_batch_cancels_its_requests() -> None:
    """Cancelling the task that awaits a batch leaves nothing running."""

    class Endless(MockTransport):
        cancelled = 0

        async def ainfer(self, request: Request, timeout_s: float) -> Response:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                self.cancelled += 1
                raise
            return await super().ainfer(request, timeout_s)

    async def cancel() -> int:
        transport = Endless({})
        async with AsyncClient(transport=transport) as client:
            batch = asyncio.create_task(client.ask_many(pairs(10), concurrency=5))
            await asyncio.sleep(0.05)
            batch.cancel()
            with pytest.raises(asyncio.CancelledError):
                await batch
            return transport.cancelled

    assert asyncio.run(cancel()) == 5
