import pytest

from harness.window import latencies_ms, percentiles_ms, rate, spread


def test_calls_at_the_edges_count_by_their_part_inside() -> None:
    """Ten calls of a second each, one after the other, are one a second from wherever one looks."""
    begins = [float(second) for second in range(10)]
    ends = [begin + 1 for begin in begins]

    for opened in (2.0, 2.3, 2.9):
        assert rate(begins, ends, (opened, opened + 5.5)) == pytest.approx(1.0)


def test_a_batch_that_ends_after_the_window_is_not_lost() -> None:
    """64 calls that share a batch of 4 s are 16 a second, even when the window ends before it."""
    begins, ends = [0.0] * 64, [4.0] * 64

    assert rate(begins, ends, (1.0, 3.0)) == pytest.approx(16.0)


def test_calls_outside_the_window_do_not_count() -> None:
    """What ended before or began after has no part in the rate."""
    assert rate([0.0, 9.0], [1.0, 10.0], (2.0, 8.0)) == 0.0


def test_latency_is_told_of_what_ended_inside() -> None:
    """A latency belongs to the window in which the call ended, and is in milliseconds."""
    found = latencies_ms([0.0, 1.0, 2.0], [0.5, 1.25, 9.0], (1.0, 3.0))

    assert found == [pytest.approx(250.0)]


def test_percentiles_are_named_after_their_share() -> None:
    """p50 is the middle, p99 close to the greatest."""
    found = percentiles_ms([float(ms) for ms in range(101)])

    assert found == {"p50": 50.0, "p95": 95.0, "p99": 99.0}


def test_spread_tells_middle_and_both_ends() -> None:
    """One slow round moves the end of the spread, not its middle."""
    assert spread([3.0, 1.0, 2.0]) == {"median": 2.0, "min": 1.0, "max": 3.0}
