"""Sampling: denoisers whose answer is known in closed form, and what guidance and seeds do."""

import math

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from sensorium_server.diffusion import Conditions, Denoise, noise, pixels, sample
from sensorium_server.schedules import Array

SHAPE = (3, 8, 8)


def conditions(*values: float) -> Conditions:
    """Return a condition for each picture; "anything" is zero."""
    text = np.array(values, np.float32).reshape(-1, 1, 1)
    return Conditions(text, np.zeros_like(text))


def knows(spread: float) -> Denoise:
    """Return the best denoiser of pixels that are normal about their condition.

    From z = α·x + σ·ε with x ~ N(c, s²) follows E[x | z] = c + α·s²·(z - α·c) / (α²·s² + σ²), and
    with it the velocity α·ε - σ·x.
    """

    def denoise(noisy: Array, levels: Array, condition: Array) -> Array:
        angle = (levels * (math.pi / 2))[:, None, None, None]
        alpha, sigma = np.cos(angle), np.sin(angle)
        mean = condition[..., None]
        gain = alpha * spread**2 / (alpha**2 * spread**2 + sigma**2)
        clean = mean + gain * (noisy - alpha * mean)
        velocity: Array = alpha * (noisy - alpha * clean) / sigma - sigma * clean
        return velocity

    return denoise


@pytest.mark.parametrize("steps", [1, 2, 30])
def test_a_sure_denoiser_is_believed(steps: int) -> None:
    """Who knows the picture draws it, in however many steps."""
    drawn = sample(
        knows(0), noise(1, (2, *SHAPE)), conditions(0.5, -0.25), steps=steps, guidance_scale=1
    )

    assert_allclose(drawn[0], 0.5, atol=1e-5)
    assert_allclose(drawn[1], -0.25, atol=1e-5)


def test_a_distribution_is_sampled() -> None:
    """Normal pixels come out with their mean and their spread, not as the mean picture."""
    drawn = sample(
        knows(0.2), noise(2, (1, 3, 64, 64)), conditions(0.1), steps=200, guidance_scale=1
    )

    assert float(drawn.mean()) == pytest.approx(0.1, abs=0.01)
    assert float(drawn.std()) == pytest.approx(0.2, rel=0.05)


@pytest.mark.parametrize(("scale", "expected"), [(0, 0), (1, 0.2), (3, 0.6), (20, 1)])
def test_guidance_exaggerates_the_text_up_to_the_limits_of_pixels(
    scale: float, expected: float
) -> None:
    """Scale 0 ignores the text, 1 follows it, more goes beyond, and clipping keeps it a picture."""
    start = noise(3, (1, *SHAPE))
    drawn = sample(knows(0), start, conditions(0.2), steps=10, guidance_scale=scale)

    assert_allclose(drawn, expected, atol=1e-5)


def test_every_step_sees_both_halves_at_falling_noise_levels() -> None:
    """Four steps are four calls, of each picture with and without its text."""
    seen: list[tuple[list[float], list[float]]] = []

    def denoise(noisy: Array, levels: Array, condition: Array) -> Array:
        seen.append((levels.tolist(), condition.ravel().tolist()))
        assert_array_equal(noisy[:1], noisy[1:])
        return knows(0)(noisy, levels, condition)

    sample(denoise, noise(4, (1, *SHAPE)), conditions(0.5), steps=4, guidance_scale=2)

    assert seen == [([level] * 2, [0.5, 0.0]) for level in (1.0, 0.75, 0.5, 0.25)]


def test_whoever_wants_to_stop_raises() -> None:
    """The hook runs before each step, so a picture that nobody waits for is not finished."""
    calls: list[int] = []

    def third_time_unlucky() -> None:
        calls.append(len(calls))
        if len(calls) == 3:
            raise TimeoutError

    with pytest.raises(TimeoutError):
        sample(
            knows(0),
            noise(5, (1, *SHAPE)),
            conditions(0.5),
            steps=9,
            guidance_scale=1,
            before_step=third_time_unlucky,
        )
    assert calls == [0, 1, 2]


def test_noise_of_a_seed_is_written_in_stone() -> None:
    """The same seed gives the same noise on every machine: these numbers may never change."""
    assert_allclose(noise(42, (4,)), [0.141907, -1.668508, -1.332108, 0.582553], atol=1e-6)
    assert not np.array_equal(noise(42, (4,)), noise(43, (4,)))
    assert np.isfinite(noise(2**63 - 1, (4,))).all()


def test_pixels_are_rounded_and_laid_out_for_a_file() -> None:
    """Minus one is black, one is white, beyond is clipped, and channels come last."""
    picture = np.array([-1, 1, 0.5, -3, 3, 0.499], np.float32).reshape(1, 3, 1, 2)

    made = pixels(picture)

    assert made.shape == (1, 1, 2, 3)
    assert made.dtype == np.uint8
    assert made[0, 0].T.ravel().tolist() == [0, 255, 191, 0, 255, 191]
