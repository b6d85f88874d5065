"""The log-mel spectrogram, against another computation of it."""

import dataclasses

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from sensorium_server.stages.log_mel import LogMel, log_mel

RECIPE = LogMel()


def slaney_hz(mel: float) -> float:
    """Return the frequency of a mel: 3 mels to 200 Hz, from 15 on 27 mels to a factor of 6.4."""
    return mel * 200 / 3 if mel < 15 else float(1000 * 6.4 ** ((mel - 15) / 27))


def slaney_mel(hz: float) -> float:
    """Return the mel of a frequency by bisection."""
    low, high = 0.0, 100.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if slaney_hz(middle) < hz else (low, middle)
    return low


def expected(samples: NDArray[np.float32], recipe: LogMel) -> NDArray[np.float64]:
    """Compute the spectrogram with torch's STFT and triangles drawn one by one."""
    spectrum = torch.stft(
        torch.from_numpy(samples).double(),
        recipe.n_fft,
        recipe.hop,
        window=torch.hann_window(recipe.n_fft, periodic=True, dtype=torch.float64),
        center=True,
        pad_mode="constant",
        return_complex=True,
    )
    power = spectrum.abs().square().numpy()
    hz = np.arange(recipe.n_fft // 2 + 1) * recipe.sample_rate / recipe.n_fft
    low, high = slaney_mel(recipe.min_hz), slaney_mel(recipe.max_hz)
    step = (high - low) / (recipe.mels + 1)
    rows = []
    for band in range(recipe.mels):
        left, centre, right = (slaney_hz(low + (band + k) * step) for k in range(3))
        triangle = np.interp(hz, [left, centre, right], [0, 2 / (right - left), 0])
        rows.append(triangle @ power)
    logarithm = np.log10(np.maximum(rows, 1e-8)).T
    return np.asarray((logarithm - recipe.mean) / recipe.std)


@pytest.mark.parametrize("count", [1, 511, 512, 800, 64_000])
def test_equals_an_independent_computation(count: int) -> None:
    """Any length gives what torch's STFT gives, in 1 + n // hop frames."""
    samples = np.random.default_rng(count).normal(0, 0.1, count).astype(np.float32)

    found = log_mel(samples, RECIPE)

    assert found.dtype == np.float32
    assert found.shape == (1 + count // RECIPE.hop, RECIPE.mels)
    np.testing.assert_allclose(found, expected(samples, RECIPE), atol=1e-5)


def test_every_number_of_the_recipe_counts() -> None:
    """Another rate, window, hop, band count, range or normalisation gives its own result."""
    samples = np.random.default_rng(0).normal(0, 0.1, 5000).astype(np.float32)
    recipe = dataclasses.replace(
        RECIPE, sample_rate=22_050, n_fft=512, hop=200, mels=20, min_hz=100, max_hz=9000
    )
    recipe = dataclasses.replace(recipe, mean=-1, std=3)

    np.testing.assert_allclose(log_mel(samples, recipe), expected(samples, recipe), atol=1e-5)


def test_a_tone_lies_in_its_band_at_its_time() -> None:
    """A short tone is loudest where its frequency and its samples are."""
    samples = np.zeros(16_000, np.float32)
    samples[8000:9024] = np.sin(2 * np.pi * 2000 * np.arange(1024) / 16_000)

    found = log_mel(samples, RECIPE)
    frame, band = np.unravel_index(found.argmax(), found.shape)

    assert frame in {16, 17}, "samples 8,000 to 9,024 are centred on frame 16.6"
    low, high = slaney_mel(RECIPE.min_hz), slaney_mel(RECIPE.max_hz)
    assert abs(slaney_hz(low + (int(band) + 1) * (high - low) / (RECIPE.mels + 1)) - 2000) < 100


def test_silence_is_the_floor() -> None:
    """Digital silence is log10(1e-8), normalised, and finite."""
    np.testing.assert_array_equal(log_mel(np.zeros(1000, np.float32), RECIPE), -2.0)
