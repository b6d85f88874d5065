import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sensorium import ModelNotReadyError, OverloadedError, Retry, ServerError
from sensorium._retry import Attempts, Patience
from sensorium.errors import DeadlineExceededError


@given(st.integers(1, 200))
def test_pauses_grow_and_are_capped(count: int) -> None:
    """The pause after attempt n lies between 0 and base · 2ⁿ⁻¹, and never above the cap."""
    attempts = Attempts(Retry(attempts=1000, base_s=0.1, cap_s=2.0), 3600)
    attempts.count = count

    assert 0 <= attempts.pause_after(OverloadedError("busy")) <= min(2.0, 0.1 * 2 ** (count - 1))


def test_pauses_are_jittered() -> None:
    """Two clients that failed together do not come back together."""
    attempts = Attempts(Retry(attempts=9, base_s=1.0), 3600)
    attempts.begin()

    assert len({attempts.pause_after(OverloadedError("busy")) for _ in range(5)}) == 5


def test_a_pause_never_outlasts_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    """When the pause would pass the deadline, the error comes at once."""
    monkeypatch.setattr("random.uniform", lambda low, high: low + high)
    attempts = Attempts(Retry(attempts=9, base_s=1.0), 0.5)
    attempts.begin()
    error = OverloadedError("busy")

    with pytest.raises(OverloadedError) as caught:
        attempts.pause_after(error)
    assert caught.value is error


def test_no_attempt_begins_after_the_deadline() -> None:
    """An input that took too long to read is not sent any more."""
    attempts = Attempts(Retry(), 0.001)
    time.sleep(0.002)

    with pytest.raises(DeadlineExceededError, match="before the request was sent"):
        attempts.begin()


def test_an_answer_after_the_deadline_is_too_late() -> None:
    """An answer that a protocol let pass after the deadline is not handed on."""
    attempts = Attempts(Retry(), 0.001)
    attempts.begin()
    time.sleep(0.002)

    with pytest.raises(DeadlineExceededError, match=r"timeout_s is 0\.001 s") as caught:
        attempts.end("r1")
    assert caught.value.request_id == "r1"


def test_the_last_error_tells_of_the_one_before() -> None:
    """The error that ends the call carries a note of why it was not the first."""
    attempts = Attempts(Retry(base_s=0), 3600)
    attempts.begin()
    attempts.pause_after(OverloadedError("busy"))
    attempts.begin()

    with pytest.raises(ServerError) as caught:
        attempts.pause_after(ServerError("broken"))
    assert caught.value.__notes__ == ["Attempt 2; the one before failed with: busy"]


def test_patience_ends_with_the_reason() -> None:
    """Waiting ends with what kept the server, not with the check that was cut short."""
    patience = Patience(60)
    patience.begin()
    reason = ModelNotReadyError("loading")
    patience.pause_after(reason)

    assert patience.verdict(DeadlineExceededError("cut short")) is reason
