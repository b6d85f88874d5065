"""The sounds themselves: each kind synthesised with its own pitch, tempo and timbre every time.

A voice is a function from a generator and the times of an event's samples, in seconds from its
start, to a waveform of any loudness. Sounds that die away are struck again until the event ends.
"""

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from sensorium_training.world.sound import CLIP_S, SOUNDS, SoundScene

RATE = 16_000
"""Samples per second of the world's sounds."""

Wave = NDArray[np.float64]
Voice = Callable[[np.random.Generator, Wave], Wave]
Stroke = Callable[[Wave], Wave]

_MAX_HZ = 7600
_FADE_S = 0.006
_LOUDEST_S = 0.05
_PEAK = 0.98
_BELL = np.array([0.5, 1, 1.183, 1.506, 2, 2.514, 2.662, 3.011, 4.166])
"""A bell's partials: hum, prime, tierce, quint, nominal and above (Rossing, "Science of Percussion
Instruments", 2000)."""


def synthesise(scene: SoundScene, rng: np.random.Generator) -> NDArray[np.float32]:
    """Return the scene's waveform, float32 [CLIP_S · RATE] within ±1.

    An event's level is the RMS of its loudest 50 ms. A mix that would clip is turned down.
    """
    mix = _noise(rng, int(CLIP_S * RATE)) * _amplitude(scene.noise_db)
    for event in scene.events:
        first, last = round(event.start_s * RATE), round(event.end_s * RATE)
        wave = VOICES[SOUNDS[event.kind]](rng, np.arange(last - first) / RATE)
        mix[first:last] += _faded(wave) * _amplitude(event.level_db) / _loudness(wave)
    return (mix * min(1, _PEAK / np.abs(mix).max())).astype(np.float32)


def _amplitude(level_db: float) -> float:
    return float(10 ** (level_db / 20))


def _loudness(wave: Wave) -> float:
    """Return the RMS of the loudest 50 ms."""
    size = int(_LOUDEST_S * RATE)
    whole = wave[: len(wave) // size * size].reshape(-1, size)
    return float(np.sqrt((whole**2).mean(1).max()))


def _faded(wave: Wave) -> Wave:
    """Return the wave with short raised-cosine ends, so that it does not click."""
    size = int(_FADE_S * RATE)
    ramp = 0.5 - 0.5 * np.cos(np.pi * (np.arange(size) + 0.5) / size)
    envelope = np.ones_like(wave)
    envelope[:size] = ramp
    envelope[-size:] = ramp[::-1]
    return wave * envelope


def _coloured(rng: np.random.Generator, size: int, gain: Callable[[Wave], Wave]) -> Wave:
    """Return noise of RMS 1 whose spectrum is `gain` of the frequency in Hz."""
    spectrum = np.fft.rfft(rng.standard_normal(size))
    wave = np.fft.irfft(spectrum * gain(np.fft.rfftfreq(size, 1 / RATE)), size)
    return wave / np.sqrt((wave**2).mean())


def _noise(rng: np.random.Generator, size: int) -> Wave:
    """Return background noise of RMS 1: white, pink and mains hum in random parts."""
    pink = _coloured(rng, size, lambda hz: 1 / np.sqrt(np.maximum(hz, 20)))
    mains = rng.choice([50, 60]) * 2 * np.pi * np.arange(size) / RATE
    hum = sum(np.sin(k * mains + rng.uniform(0, 6)) / k for k in (1, 2, 3, 4))
    white, pinker, hums = rng.uniform(0, 1, 3) * (1, 1, 0.7)
    wave = (white + 0.05) * rng.standard_normal(size) + pinker * pink + hums * hum
    return np.asarray(wave / np.sqrt((wave**2).mean()))


def _phase(hz: Wave | float, time: Wave) -> Wave:
    """Return the phase of a tone whose frequency changes with time."""
    return 2 * np.pi * np.cumsum(np.broadcast_to(hz, time.shape)) / RATE


def _harmonics(hz: Wave | float, time: Wave, weights: Wave) -> Wave:
    """Return a tone with harmonics of the given weights, as far as the band reaches."""
    phase = _phase(hz, time)
    limit = _MAX_HZ / float(np.max(hz))
    partials = [w * np.sin((k + 1) * phase) for k, w in enumerate(weights) if k + 1 < limit]
    return np.asarray(sum(partials))


def _struck(time: Wave, rate: float, length: float, stroke: Stroke) -> Wave:
    """Return strokes of `length` seconds, about `rate` a second, the last ending with the event."""
    length = min(length, time[-1])
    count = max(1, round((time[-1] - length) * rate) + 1)
    wave = np.zeros_like(time)
    for start in np.linspace(0, time[-1] - length, count):
        since = time - start
        during = (since >= 0) & (since <= length)
        wave[during] += stroke(since[during])
    return wave


def _beep(rng: np.random.Generator, time: Wave) -> Wave:
    """Return a steady electronic tone, almost a pure sine."""
    return _harmonics(rng.uniform(500, 1600), time, np.array([1, 0, rng.uniform(0.02, 0.1)]))


def _bell(rng: np.random.Generator, time: Wave) -> Wave:
    """Return a bell's inharmonic partials, which ring on and die away, the high ones first."""
    strike = rng.uniform(450, 1000)
    fall = rng.uniform(2, 2.6) / time[-1]
    ratios = _BELL * rng.uniform(0.99, 1.01, len(_BELL))
    weights = rng.uniform(0.4, 1, len(_BELL))
    hz = strike * ratios[:, None]
    partials = np.exp(-fall * np.sqrt(ratios)[:, None] * time) * np.sin(2 * np.pi * hz * time)
    return np.asarray(weights @ partials)


def _siren(rng: np.random.Generator, time: Wave) -> Wave:
    """Return a rich tone that sweeps up and down."""
    low, ratio = rng.uniform(450, 800), rng.uniform(1.7, 2.3)
    swing = 0.5 - 0.5 * np.cos(2 * np.pi * rng.uniform(2.5, 4.5) * time + rng.uniform(0, 6))
    return _harmonics(low * ratio**swing, time, np.array([1, 0.6, 0.4, 0.3, 0.2, 0.1]))


def _whistle(rng: np.random.Generator, time: Wave) -> Wave:
    """Return a breathy pure tone that glides once, with a trill."""
    start, glide = rng.uniform(1800, 2600), rng.uniform(1.25, 1.5) ** rng.choice([-1, 1])
    trill = 1 + 0.015 * np.sin(2 * np.pi * rng.uniform(15, 30) * time)
    hz = start * glide ** (time / time[-1]) * trill
    breath = _coloured(rng, len(time), lambda f: np.exp(-(((f - start) / 700) ** 2)))
    return np.sin(_phase(hz, time)) + rng.uniform(0.1, 0.2) * breath


def _buzz(rng: np.random.Generator, time: Wave) -> Wave:
    """Return a low rasping sawtooth, as of a big fly."""
    wobble = 1 + 0.03 * np.sin(2 * np.pi * rng.uniform(4, 9) * time)
    weights = 1 / np.arange(1, 61) ** rng.uniform(0.5, 0.8)
    wave = _harmonics(rng.uniform(90, 170) * wobble, time, weights)
    return wave * (1 + 0.5 * np.sin(2 * np.pi * rng.uniform(25, 40) * time))


def _drum(rng: np.random.Generator, time: Wave) -> Wave:
    """Return beats of a low skin: a falling pitch with a short rattle."""
    low, drop = rng.uniform(55, 100), rng.uniform(1.5, 3)

    def stroke(since: Wave) -> Wave:
        tone = np.sin(_phase(low * (1 + drop * np.exp(-since * 30)), since)) * np.exp(-since * 14)
        rattle = rng.standard_normal(len(since)) * np.exp(-since * 90)
        return np.asarray(tone + 0.4 * rattle)

    return _struck(time, rng.uniform(4, 7), rng.uniform(0.16, 0.22), stroke)


def _knock(rng: np.random.Generator, time: Wave) -> Wave:
    """Return short raps on wood: two damped resonances."""
    low, high = rng.uniform(300, 600), rng.uniform(900, 1500)

    def stroke(since: Wave) -> Wave:
        wood = np.sin(2 * np.pi * low * since) + 0.6 * np.sin(2 * np.pi * high * since)
        return np.asarray(wood * np.exp(-since * 55))

    return _struck(time, rng.uniform(6, 10), 0.06, stroke)


def _hiss(rng: np.random.Generator, time: Wave) -> Wave:
    """Return steady high noise, as of steam."""
    edge = rng.uniform(2500, 4500)
    return _coloured(rng, len(time), lambda hz: 1 / (1 + (edge / np.maximum(hz, 1)) ** 4))


def _horn(rng: np.random.Generator, time: Wave) -> Wave:
    """Return two steady low voices a third apart, as of a car."""
    hz, third = rng.uniform(220, 400), rng.choice([1.189, 1.26])
    weights = rng.uniform(0.6, 0.8) ** np.arange(10)
    return _harmonics(hz, time, weights) + _harmonics(hz * third, time, weights)


def _bird(rng: np.random.Generator, time: Wave) -> Wave:
    """Return quick high chirps that fall or rise."""
    start, ratio = rng.uniform(3800, 5600), rng.uniform(1.2, 1.45) ** rng.choice([-1, 1])
    length = rng.uniform(0.06, 0.09)

    def stroke(since: Wave) -> Wave:
        part = np.clip(since / length, 0, 1)
        return np.asarray(np.sin(_phase(start * ratio**part, since)) * np.sin(np.pi * part) ** 0.5)

    return _struck(time, rng.uniform(8, 11), length, stroke)


def _bark(rng: np.random.Generator, time: Wave) -> Wave:
    """Return hoarse bursts of voice, as of a dog."""
    hz, length = rng.uniform(250, 450), rng.uniform(0.13, 0.19)
    formant = rng.uniform(800, 1300)
    weights = np.exp(-(((np.arange(1, 16) * hz - formant) / 800) ** 2)) + 0.05

    def stroke(since: Wave) -> Wave:
        part = np.clip(since / length, 0, 1)
        voice = _harmonics(hz * (1 + 0.5 * np.sin(np.pi * part)), since, weights)
        hoarse = _coloured(rng, len(since), lambda f: np.exp(-(((f - formant) / 900) ** 2)))
        return np.asarray((voice + 0.9 * hoarse) * np.sin(np.pi * part) ** 0.6)

    return _struck(time, rng.uniform(3.5, 4.5), length, stroke)


def _drop(rng: np.random.Generator, time: Wave) -> Wave:
    """Return water drops: a short tone that rises as its bubble closes."""
    low, ratio = rng.uniform(500, 900), rng.uniform(2.2, 3)

    def stroke(since: Wave) -> Wave:
        return np.asarray(np.sin(_phase(low * ratio ** (since / 0.1), since)) * np.exp(-since * 28))

    return _struck(time, rng.uniform(5, 8), 0.1, stroke)


VOICES: Mapping[str, Voice] = {
    "beep": _beep, "bell": _bell, "siren": _siren, "whistle": _whistle, "buzz": _buzz,
    "drum": _drum, "knock": _knock, "hiss": _hiss, "horn": _horn, "bird": _bird, "bark": _bark,
    "drop": _drop,
}  # fmt: skip
"""How each of `SOUNDS` is made."""
