"""Log-mel spectrograms: what the audio encoder is given of a sound.

The mel scale and the area-normalised bands are those of Slaney, "Auditory Toolbox" (1998). Frame i
is centred on sample i·hop: the signal is padded with half a window of silence at both ends.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

_FLOOR = 1e-8
_LINEAR_HZ = 200 / 3
"""Hertz to a mel below the break of Slaney's scale."""

_BREAK_HZ = 1000.0
_BREAK_MEL = _BREAK_HZ / _LINEAR_HZ
_LOG_STEP = np.log(6.4) / 27
"""Growth of ln(frequency) with each mel above the break."""


@dataclass(frozen=True, slots=True)
class LogMel:
    """The recipe: samples per second, (even) window and hop in samples, bands, normalisation.

    `window` is the length of what a network hears at once, see `window_features`; 0 for all.
    """

    sample_rate: int = 16_000
    n_fft: int = 1024
    hop: int = 512
    mels: int = 64
    min_hz: float = 50.0
    max_hz: float = 7600.0
    mean: float = -4.0
    std: float = 2.0
    window: int = 0


def log_mel(samples: NDArray[np.float32], recipe: LogMel) -> NDArray[np.float32]:
    """Return the normalised log-mel spectrogram, float32 [1 + n // hop, mels].

    Args:
        samples: float32, [n], mono, full scale ±1, at the recipe's rate.
        recipe: how it is computed.
    """
    padded = np.pad(samples, recipe.n_fft // 2)
    windows = np.lib.stride_tricks.sliding_window_view(padded, recipe.n_fft)[:: recipe.hop]
    spectrum = np.fft.rfft(windows * hann(recipe.n_fft))
    power = spectrum.real**2 + spectrum.imag**2
    levels = np.log10(np.maximum(power @ bands(recipe), _FLOOR))
    return np.asarray((levels - recipe.mean) / recipe.std, np.float32)


def _mel_from_hz(hz: NDArray[np.float64]) -> NDArray[np.float64]:
    above = _BREAK_MEL + np.log(np.maximum(hz, _BREAK_HZ) / _BREAK_HZ) / _LOG_STEP
    return np.where(hz < _BREAK_HZ, hz / _LINEAR_HZ, above)


def _hz_from_mel(mel: NDArray[np.float64]) -> NDArray[np.float64]:
    above = _BREAK_HZ * np.exp(_LOG_STEP * (mel - _BREAK_MEL))
    return np.where(mel < _BREAK_MEL, mel * _LINEAR_HZ, above)


@cache
def hann(length: int) -> NDArray[np.float64]:
    """Return the periodic Hann window of a length."""
    return np.asarray(0.5 - 0.5 * np.cos(2 * np.pi * np.arange(length) / length))


@cache
def bands(recipe: LogMel) -> NDArray[np.float64]:
    """Return the triangular bands, [n_fft // 2 + 1, mels], each of area 1 over frequency."""
    low, high = _mel_from_hz(np.array([recipe.min_hz, recipe.max_hz]))
    edges = _hz_from_mel(np.linspace(low, high, recipe.mels + 2))
    left, centre, right = edges[:-2], edges[1:-1], edges[2:]
    hz = np.fft.rfftfreq(recipe.n_fft, 1 / recipe.sample_rate)[:, None]
    triangles = np.minimum((hz - left) / (centre - left), (right - hz) / (right - centre))
    return np.maximum(triangles, 0) * 2 / (right - left)
