"""What Prometheus makes of a counter that it scrapes now and then."""

from collections import deque
from collections.abc import Sequence


def rate(samples: Sequence[tuple[float, float]], now_s: float, window_s: float) -> float:
    """Return PromQL's `rate` over (seconds, value): extrapolated, but not far, nor below zero."""
    inside = [sample for sample in samples if now_s - window_s < sample[0] <= now_s]
    if len(inside) < 2:  # noqa: PLR2004 - a difference takes two
        return 0.0
    (first_s, first), (last_s, last) = inside[0], inside[-1]
    grown, sampled_s = last - first, last_s - first_s
    apart_s = sampled_s / (len(inside) - 1)
    before_s, after_s = first_s - (now_s - window_s), now_s - last_s
    if before_s >= 1.1 * apart_s:
        before_s = apart_s / 2
    if grown > 0 and first >= 0:
        before_s = min(before_s, sampled_s * first / grown)
    if after_s >= 1.1 * apart_s:
        after_s = apart_s / 2
    return grown * (sampled_s + before_s + after_s) / sampled_s / window_s


class Counter:
    """A counter with the samples of its last few minutes."""

    def __init__(self, kept: int = 24) -> None:
        self.value = 0.0
        self._samples: deque[tuple[float, float]] = deque(maxlen=kept)

    def scrape(self, now_s: float) -> None:
        """Take a sample."""
        self._samples.append((now_s, self.value))

    def rate(self, now_s: float, window_s: float) -> float:
        """Return PromQL's `rate`."""
        return rate(list(self._samples), now_s, window_s)
