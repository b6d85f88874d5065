"""Throughput and latency of the calls in a window of time.

A call counts by the part of it that lies in the window. So a large batch that ends just after the
window is neither lost nor counted whole, and short windows give the rate of long ones.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

PERCENTILES = (50, 95, 99)

Times = NDArray[np.float64]


def rate(begins: ArrayLike, ends: ArrayLike, window: tuple[float, float]) -> float:
    """Return calls per second in the window; all times in seconds of one clock."""
    opened, closed = window
    begin, end = np.asarray(begins, np.float64), np.asarray(ends, np.float64)
    inside = np.clip(np.minimum(end, closed) - np.maximum(begin, opened), 0, None)
    return float((inside / (end - begin)).sum() / (closed - opened))


def latencies_ms(begins: ArrayLike, ends: ArrayLike, window: tuple[float, float]) -> list[float]:
    """Return how long the calls took that ended in the window, in milliseconds."""
    begin, end = np.asarray(begins, np.float64), np.asarray(ends, np.float64)
    chosen = (end > window[0]) & (end <= window[1])
    return [round(float(one), 4) for one in (end - begin)[chosen] * 1e3]


def percentiles_ms(latencies: Sequence[float]) -> dict[str, float]:
    """Return p50, p95 and p99."""
    found = np.percentile(latencies, PERCENTILES)
    return {f"p{each}": float(value) for each, value in zip(PERCENTILES, found, strict=True)}


def spread(values: Sequence[float]) -> dict[str, float]:
    """Return median, least and greatest."""
    return {"median": float(np.median(values)), "min": min(values), "max": max(values)}
