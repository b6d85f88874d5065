"""Noise reduction by spectral gating, an optional step before the log-mel spectrogram.

Boll, "Suppression of Acoustic Noise in Speech Using Spectral Subtraction" (1979), in the form of
Sainburg's `noisereduce` (2019) for stationary noise: each frequency has a noise floor, and what
does not rise above it is turned down. The floor is taken from the recording itself, as the level
that a fifth of its windows stay below, so that no second recording of mere noise is needed; sound
that lasts for four fifths of the recording or more at one frequency is taken for noise.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Samples = NDArray[np.float32]

_WINDOW = 512
_HOP = 128
_PADDED = _WINDOW // _HOP
"""Windows at each end that hold padding, which says nothing about noise."""

_FLOOR_QUANTILE = 0.2
_RISE = 4.0
"""How far, as a ratio of magnitudes, sound must rise above the floor to pass: 12 dB."""

_REDUCTION = 0.1
"""The gain of what is held for noise: −20 dB. Zero would leave musical noise."""

_SMOOTH = (5, 5)
"""Windows and frequencies over which the gate is averaged, so that no lone cell opens it."""

_SILENT = 1e-12


def spectral_gate(samples: Samples) -> Samples:
    """Return the samples with steady noise turned down by 20 dB; same length and scale."""
    window = np.sqrt(0.5 - 0.5 * np.cos(2 * np.pi * np.arange(_WINDOW) / _WINDOW))
    padded = np.pad(samples.astype(np.float64), (_WINDOW, _WINDOW + -samples.size % _HOP))
    parts = np.lib.stride_tricks.sliding_window_view(padded, _WINDOW)[::_HOP]
    spectrum = np.fft.rfft(parts * window)
    filtered = np.fft.irfft(spectrum * _gains(np.abs(spectrum)), _WINDOW) * window
    # The squared windows that overlap sum to a constant.
    whole = _overlap_add(filtered, padded.size) / (_WINDOW / _HOP / 2)
    return whole[_WINDOW : _WINDOW + samples.size].astype(np.float32)


def improvement_db(clean: Samples, noise: Samples, step: str = "spectral_gate") -> float:
    """Return by how many decibels a step raises the signal-to-noise ratio of `clean + noise`."""

    def error_power(heard: Samples) -> float:
        return float(np.mean(np.square(heard - clean, dtype=np.float64)))

    noisy = clean + noise
    return float(10 * np.log10(error_power(noisy) / error_power(NOISE_REDUCTION[step](noisy))))


def _gains(magnitude: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return each cell's gain, between the reduction and 1."""
    floor = np.quantile(magnitude[_PADDED:-_PADDED], _FLOOR_QUANTILE, axis=0)
    gate = (magnitude > np.maximum(_RISE * floor, _SILENT)).astype(np.float64)
    for axis, width in enumerate(_SMOOTH):
        gate = _moving_average(gate, width, axis)
    return np.asarray(_REDUCTION + (1 - _REDUCTION) * gate)


def _moving_average(values: NDArray[np.float64], width: int, axis: int) -> NDArray[np.float64]:
    pad = [(0, 0), (0, 0)]
    pad[axis] = (width // 2, width // 2)
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(values, pad, "edge"), width, axis)
    return np.asarray(windows.mean(axis=-1))


def _overlap_add(parts: NDArray[np.float64], size: int) -> NDArray[np.float64]:
    total = np.zeros(size)
    for index, part in enumerate(parts):
        total[index * _HOP : index * _HOP + _WINDOW] += part
    return total


NOISE_REDUCTION: dict[str, Callable[[Samples], Samples]] = {
    "none": lambda samples: samples,
    "spectral_gate": spectral_gate,
}
"""The named steps that `noise_reduction` in `config.pbtxt` chooses from."""
