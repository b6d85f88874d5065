"""Traffic over time: shapes as shares of a peak, and requests that arrive at random by them."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

HOUR_S = 3600.0
MINUTE_S = 60.0


@dataclass(frozen=True, slots=True)
class Shape:
    """How long traffic lasts, and which share of its peak it has at a second."""

    duration_s: float
    share: Callable[[float], float]

    def cut(self, duration_s: float) -> "Shape":
        """Return its beginning."""
        return Shape(min(self.duration_s, duration_s), self.share)


def diurnal(at_s: float) -> float:
    """Return a day's share, pressed into eight hours: least at both ends, most in the middle."""
    return 0.55 - 0.45 * math.cos(2 * math.pi * at_s / (8 * HOUR_S))


def spike(at_s: float) -> float:
    """Return a share that is low but for ten minutes, which begin within half a minute."""
    begin, end, ramp = 20 * MINUTE_S, 30 * MINUTE_S, 30.0
    risen = min(max((at_s - begin) / ramp, 0), 1) - min(max((at_s - end) / ramp, 0), 1)
    return 0.15 + 0.85 * risen


def sawtooth(at_s: float) -> float:
    """Return a share that climbs for twenty minutes and falls at once, again and again."""
    return 0.1 + 0.9 * (at_s % (20 * MINUTE_S)) / (20 * MINUTE_S)


SHAPES: Mapping[str, Shape] = {
    "diurnal": Shape(8 * HOUR_S, diurnal),
    "spike": Shape(HOUR_S, spike),
    "sawtooth": Shape(2 * HOUR_S, sawtooth),
}


def arrivals(shape: Shape, peak: float, seed: int) -> list[float]:
    """Return the seconds at which requests arrive, in order; `peak` is per second.

    Poisson, with a rate that is constant within each second.
    """
    random = np.random.default_rng(seed)
    seconds = np.arange(int(shape.duration_s))
    rates = peak * np.array([shape.share(second + 0.5) for second in seconds])
    counts = random.poisson(rates)
    at = np.repeat(seconds, counts) + random.random(counts.sum())
    at.sort()
    return [float(each) for each in at]
