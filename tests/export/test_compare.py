"""Judging arrays."""

import numpy as np
import pytest

from sensorium_export.compare import Difference, compare, difference, worst

ONES = np.ones((2, 3), np.float32)


def test_equal_arrays_are_within_any_tolerance() -> None:
    """Equality needs no tolerance."""
    (found,) = compare({"logits": ONES}, {"logits": ONES.copy()}, 0.0)

    assert found == Difference("logits", 0.0, 0.0, 0.0)
    assert found.is_within


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_differences_are_relative_to_the_outputs_scale(scale: float) -> None:
    """An output of any scale is judged alike."""
    expected = (ONES * scale).astype(np.float32)
    actual = (expected * 1.01).astype(np.float32)

    assert not difference("logits", expected, actual, 0.009).is_within
    assert difference("logits", expected, actual, 0.011).is_within


def test_nan_is_a_difference_even_where_both_have_it() -> None:
    """NaN never counts as equal."""
    nan = np.full((2,), np.nan, np.float32)

    found = difference("logits", nan, nan, 1.0)

    assert not found.is_within
    assert str(found) == "logits: 2 of 2 values are not finite"


def test_infinite_expectation_is_a_difference() -> None:
    """What PyTorch got wrong cannot be proven right."""
    infinite = np.full((2,), np.inf, np.float32)

    assert difference("logits", infinite, ONES[0, :2], 1.0).reason == (
        "the expected values are not finite"
    )


def test_missing_output_is_named() -> None:
    """An output that is not there is a difference."""
    (found,) = compare({"logits": ONES}, {}, 1.0)

    assert str(found) == "logits: missing"


def test_other_shape_and_dtype_are_differences() -> None:
    """Nothing is broadcast or cast for the sake of agreement."""
    assert difference("x", ONES, ONES[:1], 1.0).reason == "shape [1, 3], expected [2, 3]"
    assert difference("x", ONES, ONES.astype(np.int64), 1.0).reason == (
        "dtype int64, expected float32"
    )


def test_integers_must_be_equal() -> None:
    """A tolerance is for rounding, and integers are not rounded."""
    mask = np.array([1, 1, 0])

    assert difference("mask", mask, mask.copy(), 1.0).is_within
    assert not difference("mask", mask, 1 - mask, 1.0).is_within


def test_empty_arrays_are_equal() -> None:
    """The first step of a decoder has no past."""
    empty = np.zeros((1, 0), np.float32)

    assert difference("past", empty, empty, 0.0).is_within


def test_difference_from_zeros_is_seen() -> None:
    """An output that should be zero has no scale, and still may not differ."""
    assert not difference("x", np.zeros(3, np.float32), ONES[0], 0.5).is_within


def test_worst_prefers_what_failed() -> None:
    """A failure is worse than any difference within tolerance."""
    within = Difference("a", 5.0, 0.5, 1.0)
    failed = Difference("b", 0.1, 0.1, 0.01)

    assert worst((within, failed)) is failed
