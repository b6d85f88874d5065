"""When to try again and how long to pause first: exponential backoff with full jitter."""

import random
import sys
import time

from sensorium._config import Retry
from sensorium.errors import (
    DeadlineExceededError,
    InvalidInputError,
    ModelNotReadyError,
    OverloadedError,
    SensoriumError,
    ServerUnreachableError,
    UnknownTaskError,
)

NOT_YET = (
    ModelNotReadyError,
    ServerUnreachableError,
    OverloadedError,
    DeadlineExceededError,
    UnknownTaskError,
)
"""What a readiness check may meet while a server starts."""


class Attempts:
    """The clock of one call: counts its attempts and knows what is left of its deadline."""

    def __init__(self, retry: Retry, timeout_s: float) -> None:
        if not timeout_s > 0:
            raise InvalidInputError(
                f"timeout_s is {timeout_s}; it must be above 0. "
                "Use math.inf to wait as long as it takes."
            )
        self._retry = retry
        self._timeout_s = timeout_s
        self._start = time.monotonic()
        self._attempt_start = self._start
        self._latest: SensoriumError | None = None
        self.count = 0

    def begin(self) -> float:
        """Count one more attempt and return the seconds it may take.

        Raises:
            DeadlineExceededError: no time is left.
        """
        self.count += 1
        self._attempt_start = time.monotonic()
        left_s = self._timeout_s - self.elapsed_s()
        if left_s <= 0:
            raise DeadlineExceededError(
                f"the {self._timeout_s:g} s of timeout_s passed before the request was sent. "
                "Give it more time."
            )
        return left_s

    def end(self, request_id: str) -> None:
        """Check that the answer is in time; gRPC alone lets answers pass that are a little late.

        Raises:
            DeadlineExceededError: it is not.
        """
        if self.elapsed_s() > self._timeout_s:
            raise DeadlineExceededError(
                f"the answer came after {self.elapsed_s():.3g} s, but timeout_s is "
                f"{self._timeout_s:g} s. Give it more time.",
                request_id,
            )

    def pause_after(self, error: SensoriumError) -> float:
        """Return how many seconds to pause before the next attempt.

        Raises:
            SensoriumError: `error` itself, when it will not go away, there were enough attempts,
                or the pause would outlast the deadline.
        """
        if not self.may_pass(error) or self.count >= self._retry.attempts:
            raise self.verdict(error)
        exponent = min(self.count - 1, 60)
        pause_s = random.uniform(  # noqa: S311 - jitter spreads load, it guards no secret
            0, min(self._retry.cap_s, self._retry.base_s * 2**exponent)
        )
        if self.elapsed_s() + pause_s >= self._timeout_s:
            raise self.verdict(error)
        self._latest = error
        return pause_s

    def verdict(self, error: SensoriumError) -> SensoriumError:
        """Return the error to end with; a note tells how the attempt before failed."""
        if self._latest is not None:
            error.add_note(f"Attempt {self.count}; the one before failed with: {self._latest}")
        return error

    def may_pass(self, error: SensoriumError) -> bool:
        """Tell whether the same request may succeed later."""
        return error.retryable

    def elapsed_s(self) -> float:
        """Return the seconds since the call began."""
        return time.monotonic() - self._start

    def attempt_s(self) -> float:
        """Return the seconds since the latest attempt began."""
        return time.monotonic() - self._attempt_start


class Patience(Attempts):
    """Attempts without number, a little apart, for waiting until a server is ready."""

    def __init__(self, timeout_s: float) -> None:
        super().__init__(Retry(attempts=sys.maxsize, base_s=0.1, cap_s=0.5), timeout_s)

    def may_pass(self, error: SensoriumError) -> bool:
        """Tell whether waiting may help."""
        return isinstance(error, NOT_YET)

    def verdict(self, error: SensoriumError) -> SensoriumError:
        """Return what kept the server from being ready, not that the latest check was cut short."""
        if self._latest is not None and isinstance(error, DeadlineExceededError):
            return self._latest
        return error
