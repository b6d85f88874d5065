"""Which moments of a video are looked at."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from sensorium_server.stages.sampling import sample_times, stretch_s


def test_uniform_moments_are_the_middles_of_equal_parts() -> None:
    """Four moments of eight seconds are the middles of two seconds each."""
    np.testing.assert_allclose(sample_times(8.0, 4), [1, 3, 5, 7])


def test_fps_moments_ignore_the_length() -> None:
    """At two per second the moments are half a second apart, from the start on."""
    np.testing.assert_allclose(sample_times(60.0, 4, 2.0), [0.25, 0.75, 1.25, 1.75])


def test_stretch() -> None:
    """The frames cover the whole video, or with fps their own number's time."""
    assert stretch_s(60.0, 16) == 60.0
    assert stretch_s(60.0, 16, 8.0) == 2.0


@given(st.floats(1e-3, 1e5), st.integers(1, 64))
def test_moments_ascend_within_the_video(duration_s: float, frames: int) -> None:
    """Whatever the length, the moments ascend and lie inside."""
    times = sample_times(duration_s, frames)

    assert len(times) == frames
    assert (np.diff(times) > 0).all()
    assert times[0] > 0
    assert times[-1] < duration_s
