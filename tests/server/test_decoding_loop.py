import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

from sensorium.errors import DeadlineExceededError, ModelNotReadyError, OverloadedError
from sensorium_server import decoding_loop
from sensorium_server.decoding import Decoder
from sensorium_server.decoding_loop import DecodingLoop, Job, Key
from sensorium_server.generation import Generation

EOS = 1
POISON = 13.0
WAIT_S = 5


class Machine:
    """Graphs that count down: a row whose memory is n says n tokens, then ends."""

    def __init__(self) -> None:
        self.steps: list[int] = []
        self.crosses: list[int] = []
        self.gate = threading.Event()
        self.gate.set()
        self.broken = False

    def cross(self, memory: Any) -> Any:  # noqa: ANN401 - arrays
        """Keep the memory as it is; refuse poison."""
        self.crosses.append(len(memory))
        if (memory == POISON).any():
            raise RuntimeError("poisoned memory")
        return memory[:, None, None, :, :].repeat(2, axis=1)

    def step(self, token: Any, position: Any, past: Any, cross: Any, mask: Any) -> Any:  # noqa: ANN401
        """Say token 5 until the row has said as many as its memory tells."""
        assert past.shape[3] == position.max()
        assert mask.shape[1] == cross.shape[3]
        self.gate.wait(WAIT_S)
        self.steps.append(len(token))
        if self.broken:
            raise RuntimeError("broken step")
        logits = np.zeros((len(token), 8), np.float32)
        done = position >= cross[:, 0, 0, 0, 0]
        logits[np.arange(len(token)), np.where(done, EOS, 5)] = 9
        return logits, np.zeros((len(token), 2, 1, 1), np.float32)


class Inbox:
    """Collects a job's answer."""

    def __init__(self) -> None:
        self._arrived = threading.Event()
        self._answer: Any = None
        self.count = 0

    def __call__(self, answer: object) -> None:
        """Take the answer."""
        self._answer = answer
        self.count += 1
        self._arrived.set()

    def get(self) -> Any:  # noqa: ANN401 - texts or an error
        """Wait for the answer."""
        assert self._arrived.wait(WAIT_S), "no answer came"
        return self._answer

    def lengths(self) -> list[int]:
        """Wait for the texts and return how long each is."""
        return [len(text.tokens) for text in self.get()]


@pytest.fixture(autouse=True)
def _ask_always(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the loop ask after every token whether anybody still waits."""
    monkeypatch.setattr(decoding_loop, "CANCEL_CHECK_S", 0)


@pytest.fixture
def machine() -> Machine:
    """Return the counting graphs."""
    return Machine()


@pytest.fixture
def loop(machine: Machine) -> Iterator[DecodingLoop]:
    """Return a loop of two slots that holds at most three waiting rows."""
    decoder = Decoder[Key](machine.cross, machine.step, (2, 1, 1), Generation((0,), (EOS,), 30), 2)
    running = DecodingLoop(decoder, max_waiting_rows=3)
    yield running
    machine.gate.set()
    running.stop()


def job(*lengths: float, is_cancelled: Callable[[], bool] = lambda: False) -> tuple[Job, Inbox]:
    """Return a job of rows that say so many tokens, and its inbox."""
    inbox = Inbox()
    memory = np.array(lengths, np.float32).reshape(-1, 1, 1)
    return Job(memory, np.ones((len(lengths), 1), np.int64), inbox, is_cancelled), inbox


def submit(
    loop: DecodingLoop, *lengths: float, is_cancelled: Callable[[], bool] = lambda: False
) -> Inbox:
    """Submit such a job; return its inbox."""
    made, inbox = job(*lengths, is_cancelled=is_cancelled)
    loop.submit(made)
    return inbox


def until(condition: Callable[[], object]) -> None:
    """Wait until something is true."""
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.001)


def test_rows_come_back_in_order(loop: DecodingLoop) -> None:
    """A request of more rows than slots is answered once, its texts in the order of its rows."""
    inbox = submit(loop, 3, 1, 4, 0, 2)

    assert inbox.lengths() == [3, 1, 4, 0, 2]
    assert inbox.count == 1


def test_requests_join_between_tokens(loop: DecodingLoop, machine: Machine) -> None:
    """A request that comes later runs beside the first one, and may end before it."""
    machine.gate.clear()
    long = submit(loop, 9)
    short = submit(loop, 1)
    machine.gate.set()

    assert short.lengths() == [1]
    assert long.lengths() == [9]
    assert max(machine.steps) == 2
    assert len(machine.steps) < 9 + 1 + 2 + 1


def test_failing_step_costs_its_requests_only(loop: DecodingLoop, machine: Machine) -> None:
    """When a step fails, its requests are told and the loop serves the next ones."""
    machine.broken = True
    failed = submit(loop, 2)
    assert isinstance(failed.get(), RuntimeError)

    machine.broken = False

    assert submit(loop, 2).lengths() == [2]


def test_bad_memory_fails_alone(loop: DecodingLoop, machine: Machine) -> None:
    """A request whose memory cannot be read fails; who came with it is answered."""
    machine.gate.clear()
    first = submit(loop, 1)
    until(lambda: machine.crosses)
    bad, good = submit(loop, POISON), submit(loop, 2)
    machine.gate.set()

    assert isinstance(bad.get(), RuntimeError)
    assert first.lengths() == [1]
    assert good.lengths() == [2]


def test_cancelled_while_waiting(loop: DecodingLoop, machine: Machine) -> None:
    """A request that was cancelled before its turn never runs."""
    cancelled = submit(loop, 5, is_cancelled=lambda: True)

    assert isinstance(cancelled.get(), DeadlineExceededError)
    assert machine.steps == []


def test_cancelled_while_running(loop: DecodingLoop, machine: Machine) -> None:
    """A request that is cancelled while it runs gives its slot back before its end."""
    gone = threading.Event()
    running = submit(loop, 29, 29, is_cancelled=gone.is_set)
    gone.set()

    answer = running.get()

    assert isinstance(answer, DeadlineExceededError | list)
    assert submit(loop, 1).lengths() == [1]
    if isinstance(answer, DeadlineExceededError):
        assert len(machine.steps) < 29


def test_overload_is_refused(loop: DecodingLoop, machine: Machine) -> None:
    """Beyond the limit of waiting rows a request is refused with the numbers."""
    machine.gate.clear()
    accepted = [submit(loop, 1) for _ in range(5)]

    with pytest.raises(OverloadedError, match=r"maximum queue size.*4 texts.*limit is 3"):
        submit(loop, 1)

    machine.gate.set()
    assert all(inbox.lengths() == [1] for inbox in accepted)
    assert submit(loop, 1).lengths() == [1]


def test_beams_wait_for_all_their_slots(loop: DecodingLoop, machine: Machine) -> None:
    """A text of two beams joins when two slots are free, and nobody overtakes it."""
    machine.gate.clear()
    first = submit(loop, 3)
    until(lambda: machine.crosses)
    wide, wide_inbox = job(2)
    wide.generation = Generation((0,), (EOS,), 30, num_beams=2)
    loop.submit(wide)
    last = submit(loop, 1)
    machine.gate.set()

    assert first.lengths() == [3]
    assert wide_inbox.lengths() == [2]
    assert last.lengths() == [1]
    assert machine.crosses == [1, 1, 1]


def test_waiting_beams_count_as_rows(loop: DecodingLoop, machine: Machine) -> None:
    """A searched text fills the queue as much as it will fill the slots."""
    machine.gate.clear()
    accepted = submit(loop, 1, 1)
    wide, wide_inbox = job(1, 1)
    wide.generation = Generation((0,), (EOS,), 30, num_beams=2)

    with pytest.raises(OverloadedError, match=r"4 texts, or beams of texts, .*limit is 3"):
        loop.submit(wide)

    machine.gate.set()
    assert accepted.lengths() == [1, 1]
    loop.submit(wide)
    assert wide_inbox.lengths() == [1, 1]


def test_stop_finishes_what_runs(machine: Machine) -> None:
    """Stopping answers what was taken and refuses what comes after."""
    decoder = Decoder[Key](machine.cross, machine.step, (2, 1, 1), Generation((0,), (EOS,), 30), 2)
    stopping = DecodingLoop(decoder, max_waiting_rows=3)
    inbox = submit(stopping, 3)

    stopping.stop()

    assert inbox.lengths() == [3]
    with pytest.raises(ModelNotReadyError, match="stopping"):
        submit(stopping, 1)


def test_waiting_and_steps_are_measured(machine: Machine) -> None:
    """The loop tells how long each request waited for a slot, and how many rows each step had."""
    waits: list[float] = []
    rows: list[int] = []

    @contextmanager
    def measured(count: int) -> Iterator[None]:
        rows.append(count)
        yield

    decoder = Decoder[Key](machine.cross, machine.step, (2, 1, 1), Generation((0,), (EOS,), 30), 1)
    loop = DecodingLoop(decoder, 3, measured=measured, waited=waits.append)
    machine.gate.clear()
    first = submit(loop, 2)
    until(lambda: rows)
    second = submit(loop, 1)
    time.sleep(0.05)
    machine.gate.set()

    assert (first.lengths(), second.lengths()) == ([2], [1])
    loop.stop()
    assert len(waits) == 2
    assert waits[1] >= 0.05
    assert rows == machine.steps
