"""Spectral gating turns steady noise down and leaves sound."""

import numpy as np
import pytest
from numpy.typing import NDArray

from sensorium_server.stages.denoise import NOISE_REDUCTION, improvement_db, spectral_gate

RATE = 16_000


def noisy_tone() -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return a tone in the middle second of three, and the same with white noise."""
    time = np.arange(3 * RATE) / RATE
    clean = 0.3 * np.sin(2 * np.pi * 1000 * time) * ((time >= 1) & (time < 2))
    noise = np.random.default_rng(3).normal(0, 0.03, clean.size)
    return clean.astype(np.float32), (clean + noise).astype(np.float32)


def test_gate_raises_the_signal_to_noise_ratio() -> None:
    """A tone in white noise stands out by 10 dB more; without the step, by nothing."""
    clean, noisy = noisy_tone()

    assert improvement_db(clean, noisy - clean) > 10
    assert improvement_db(clean, noisy - clean, "none") == 0


def test_noise_alone_is_turned_down() -> None:
    """Where there is noise only, its level falls by 15 dB or more."""
    _, noisy = noisy_tone()

    quiet = spectral_gate(noisy)[: RATE // 2]

    assert 20 * np.log10(np.std(noisy[: RATE // 2]) / np.std(quiet)) > 15


def test_loud_sound_keeps_its_level() -> None:
    """The tone itself loses less than half a decibel."""
    _, noisy = noisy_tone()
    middle = slice(RATE * 5 // 4, RATE * 7 // 4)

    loss = 20 * np.log10(np.std(noisy[middle]) / np.std(spectral_gate(noisy)[middle]))

    assert abs(loss) < 0.5


@pytest.mark.parametrize("length", [800, 801, 4096, 16_000])
def test_length_stays(length: int) -> None:
    """The result has as many samples, all finite, whatever the length."""
    samples = np.random.default_rng(1).normal(0, 0.1, length).astype(np.float32)

    gated = spectral_gate(samples)

    assert gated.shape == samples.shape
    assert gated.dtype == np.float32
    assert np.isfinite(gated).all()


def test_silence_stays_silent() -> None:
    """Silence gives silence, not a division by zero."""
    assert not spectral_gate(np.zeros(RATE, np.float32)).any()


def test_none_changes_nothing() -> None:
    """The step `none` hands the very samples on."""
    samples = np.ones(9, np.float32)

    assert NOISE_REDUCTION["none"](samples) is samples
