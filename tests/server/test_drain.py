import os
import time
from collections.abc import Iterable

import pytest

from sensorium_server import drain
from sensorium_server.drain import Activity, activity_from, activity_of, await_quiet


@pytest.fixture(autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a moment be short."""
    monkeypatch.setattr(drain, "QUIET_S", 0.05)
    monkeypatch.setattr(drain, "_POLL_S", 0.01)


def waited_s(activities: Iterable[Activity | None], timeout_s: float = 2.0) -> float:
    """Return how long it takes over measurements, of which the last one stays."""
    remaining = list(activities)
    begin = time.monotonic()
    await_quiet(lambda: remaining.pop(0) if len(remaining) > 1 else remaining[0], timeout_s)
    return time.monotonic() - begin


def test_idle_server_is_quiet_at_once() -> None:
    """A server that does nothing is left after the quiet moment."""
    assert 0.04 < waited_s([Activity(5, 0, 1.0)]) < 0.5


@pytest.mark.parametrize(
    "busy",
    [
        [Activity(count, 0, 1.0) for count in range(20)],
        [Activity(5, 1, 1.0)] * 20,
        [Activity(5, 0, 0.02 * tick) for tick in range(20)],
    ],
    ids=["answers", "waiting", "works"],
)
def test_busy_server_is_waited_for(busy: list[Activity]) -> None:
    """Answers, waiting requests and working processes each keep the server up."""
    assert waited_s(busy) > 0.2


def test_timeout_ends_the_waiting() -> None:
    """A server that never rests is left after the timeout."""
    assert 0.1 < waited_s([Activity(5, 1, 1.0)], timeout_s=0.1) < 0.5


def test_server_that_is_gone_is_not_waited_for() -> None:
    """A server that cannot be measured any more is left."""
    assert waited_s([Activity(5, 1, 1.0), None]) < 0.5
    assert activity_of(os.getpid(), "http://127.0.0.1:1/metrics") is None


def test_metrics_are_summed() -> None:
    """Requests of all models count, answered and failed alike."""
    text = (
        'nv_inference_request_success{model="a",version="1"} 3\n'
        'nv_inference_request_success{model="b",version="1"} 4\n'
        'nv_inference_request_failure{model="b",reason="OTHER",version="1"} 1\n'
        'nv_inference_pending_request_count{model="a",version="1"} 2\n'
        'nv_inference_count{model="a",version="1"} 100\n'
    )

    assert activity_from(text, 0.5) == Activity(answered=8, waiting=2, cpu_s=0.5)
