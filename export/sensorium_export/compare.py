"""Judge whether two runs gave the same arrays. Runners only run; this module only compares."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sensorium.contract import SOUND_ACTIVITY, TRACK_ACTIONS, TRACK_SPANS

PROBABILITIES = frozenset({SOUND_ACTIVITY.name, TRACK_ACTIONS.name, TRACK_SPANS.name})
"""Outputs in [0, 1]: where all of them are near 0, so is what can be told of them."""

FloatOrInt = NDArray[np.float32] | NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Difference:
    """How far one output is from the expected one.

    `max_rel` is `max_abs` divided by the largest absolute value expected, so that an output of
    any scale is judged alike; probabilities have a scale of their own, 1. `reason` says why the
    arrays cannot be subtracted, if they cannot.
    """

    output: str
    max_abs: float
    max_rel: float
    tolerance: float
    reason: str = ""

    @property
    def is_within(self) -> bool:
        """Whether the outputs count as equal."""
        return not self.reason and self.max_rel <= self.tolerance

    def __str__(self) -> str:
        if self.reason:
            return f"{self.output}: {self.reason}"
        return (
            f"{self.output}: max |Δ| {self.max_abs:.3g}, relative {self.max_rel:.3g}, "
            f"tolerance {self.tolerance:.3g}"
        )


def compare(
    expected: Mapping[str, FloatOrInt], actual: Mapping[str, FloatOrInt], tolerance: float
) -> tuple[Difference, ...]:
    """Compare every expected output with the actual one of the same name.

    Integers must be equal. NaN is a difference, also where both have it. A missing output, another
    shape and another dtype are differences too.
    """
    return tuple(
        difference(name, array, actual.get(name), tolerance) for name, array in expected.items()
    )


def difference(
    output: str, expected: FloatOrInt, actual: FloatOrInt | None, tolerance: float
) -> Difference:
    """Compare one output."""
    reason = _why_incomparable(expected, actual)
    if reason or actual is None:
        return Difference(output, float("inf"), float("inf"), tolerance, reason)
    if expected.size == 0:
        return Difference(output, 0.0, 0.0, tolerance)
    max_abs = float(np.max(np.abs(expected.astype(np.float64) - actual.astype(np.float64))))
    if expected.dtype.kind == "i":
        return Difference(output, max_abs, max_abs, 0.0)
    scale = 1.0 if output in PROBABILITIES else float(np.max(np.abs(expected)))
    max_rel = 0.0 if max_abs == 0 else max_abs / max(scale, float(np.finfo(np.float32).tiny))
    return Difference(output, max_abs, max_rel, tolerance)


def worst(differences: tuple[Difference, ...]) -> Difference:
    """Return the difference that is furthest over, or nearest to, its tolerance."""
    return max(differences, key=lambda one: (not one.is_within, one.max_rel))


def least_cosine(expected: NDArray[Any], actual: NDArray[Any]) -> float:
    """Return the least cosine between corresponding rows, each as one vector; 1 if both are 0."""
    one, other = (array.astype(np.float64).reshape(len(array), -1) for array in (expected, actual))
    norms = np.linalg.norm(one, axis=-1) * np.linalg.norm(other, axis=-1)
    cosines = (one * other).sum(-1) / np.maximum(norms, np.finfo(np.float64).tiny)
    return float(np.min(np.where((one == other).all(-1), 1.0, cosines)))


def _why_incomparable(expected: FloatOrInt, actual: FloatOrInt | None) -> str:
    if actual is None:
        return "missing"
    if expected.dtype != actual.dtype:
        return f"dtype {actual.dtype}, expected {expected.dtype}"
    if expected.shape != actual.shape:
        return f"shape {list(actual.shape)}, expected {list(expected.shape)}"
    if expected.dtype.kind == "f" and not np.isfinite(actual).all():
        return f"{int((~np.isfinite(actual)).sum())} of {actual.size} values are not finite"
    if expected.dtype.kind == "f" and not np.isfinite(expected).all():
        return "the expected values are not finite"
    return ""
