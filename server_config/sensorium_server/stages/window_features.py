"""What networks of other libraries hear: a window of fixed length, as their feature extractors do.

- `whisper` (Radford et al., 2022): log10 of Slaney's mel bands, at most 8 below the loudest, of a
  window that is padded with silence. A longer sound is refused: its end would be lost.
- `ast` (Gong et al., 2021): Kaldi's filter bank of the first frames, normalised, zeros behind.
- `clap` (Wu et al., 2023): decibels of Slaney's mel bands. A shorter sound is repeated as often as
  it fits, of a longer one the start is heard.

Formulas are those of transformers' numpy extractors, in double precision as theirs.
"""

from collections.abc import Callable
from functools import cache

import numpy as np
from numpy.typing import NDArray

from sensorium.errors import InvalidInputError
from sensorium_server.stages.log_mel import LogMel, bands, hann

Samples = NDArray[np.float32]
Spectrum = NDArray[np.float64]

_FLOOR = 1e-10
_DYNAMIC = 8.0
"""How far below the loudest Whisper hears, in powers of ten."""

_KALDI_FLOOR = float(np.finfo(np.float32).eps)
_KALDI_FRAME = 400
_KALDI_BREAK_HZ = 700.0
_KALDI_MELS = 1127.0
_PREEMPHASIS = 0.97


def whisper(samples: Samples, recipe: LogMel) -> NDArray[np.float32]:
    """Return the window's log-mel spectrogram, float32 [window / hop, mels].

    Raises:
        InvalidInputError: the sound is longer than the window.
    """
    if samples.size > recipe.window:
        raise InvalidInputError(
            f"audio is {samples.size / recipe.sample_rate:.1f} s long; the model hears "
            f"{recipe.window / recipe.sample_rate:g} s at once. Send it in parts."
        )
    frames = recipe.window // recipe.hop
    # Behind the sound all is silence, which needs no transform.
    heard = min(frames, (samples.size + recipe.n_fft // 2) // recipe.hop + 1)
    silent = np.zeros(recipe.window, np.float64)
    silent[: samples.size] = samples
    levels = np.full((frames, recipe.mels), np.log10(_FLOOR))
    levels[:heard] = np.log10(_mel_power(silent, recipe, heard))
    levels = np.maximum(levels, levels.max() - _DYNAMIC)
    return np.asarray((levels + 4) / 4, np.float32)


def clap(samples: Samples, recipe: LogMel) -> NDArray[np.float32]:
    """Return the window's mel spectrogram in decibels, float32 [1 + window / hop, mels]."""
    sound = np.asarray(samples[: recipe.window], np.float64)
    sound = np.tile(sound, recipe.window // sound.size)
    sound = np.pad(sound, (0, recipe.window - sound.size))
    power = _mel_power(sound, recipe, recipe.window // recipe.hop + 1)
    return np.asarray(10 * np.log10(power), np.float32)


def ast(samples: Samples, recipe: LogMel) -> NDArray[np.float32]:
    """Return Kaldi's normalised filter bank, float32 [window, mels]; `window` counts frames."""
    sound = np.asarray(samples, np.float64)
    windows = np.lib.stride_tricks.sliding_window_view(sound, _KALDI_FRAME)[:: recipe.hop]
    windows = windows[: recipe.window]
    windows = windows - windows.mean(axis=1, keepdims=True)
    emphasised = windows - _PREEMPHASIS * np.pad(windows, ((0, 0), (1, 0)), "edge")[:, :-1]
    spectrum = np.fft.rfft(emphasised * np.hanning(_KALDI_FRAME), recipe.n_fft)
    power = spectrum.real**2 + spectrum.imag**2
    values = np.zeros((recipe.window, recipe.mels))
    values[: len(power)] = np.log(np.maximum(power @ _kaldi_bands(recipe), _KALDI_FLOOR))
    return np.asarray((values - recipe.mean) / (2 * recipe.std), np.float32)


FEATURES: dict[str, Callable[[Samples, LogMel], NDArray[np.float32]]] = {
    "whisper": whisper,
    "ast": ast,
    "clap": clap,
}


def _mel_power(sound: Spectrum, recipe: LogMel, frames: int) -> Spectrum:
    """Return the power in each band of the first frames, each centred on a hop."""
    padded = np.pad(sound, recipe.n_fft // 2, mode="reflect")
    windows = np.lib.stride_tricks.sliding_window_view(padded, recipe.n_fft)
    spectrum = np.fft.rfft(windows[:: recipe.hop][:frames] * hann(recipe.n_fft))
    power = spectrum.real**2 + spectrum.imag**2
    return np.maximum(power @ bands(recipe), _FLOOR)


@cache
def _kaldi_bands(recipe: LogMel) -> Spectrum:
    """Return triangles on Kaldi's mel scale, [n_fft // 2 + 1, mels], each of height 1."""

    def mel(hertz: Spectrum) -> Spectrum:
        return np.asarray(_KALDI_MELS * np.log(1 + hertz / _KALDI_BREAK_HZ))

    low, high = mel(np.array([recipe.min_hz, recipe.max_hz]))
    edges = np.linspace(low, high, recipe.mels + 2)
    left, centre, right = edges[:-2], edges[1:-1], edges[2:]
    at = mel(np.fft.rfftfreq(recipe.n_fft, 1 / recipe.sample_rate))[:, None]
    triangles = np.minimum((at - left) / (centre - left), (right - at) / (right - centre))
    return np.asarray(np.maximum(triangles, 0))
