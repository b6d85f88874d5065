"""Recordings by number: each split is an endless list of sound scenes, made like `dataset`'s.

A recording goes the way that a user's goes: synthesised, encoded as an audio file of one of several
formats, decoded by the server's own code. So training hears what serving hears.
"""

import io
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from sensorium_server.settings import Settings, load
from sensorium_server.stages.audio import samples_of
from sensorium_server.stages.log_mel import LogMel, log_mel
from sensorium_training.dataset import SPLITS
from sensorium_training.world.sound import CLIP_S, SoundScene, draw_sounds
from sensorium_training.world.waveform import RATE, synthesise

SOUND_SEED = 1
"""The last word of a recording's seed, which sets it apart from the picture of its number."""

RECIPE = LogMel()
FRAMES = 1 + int(CLIP_S * RECIPE.sample_rate) // RECIPE.hop
"""Mel frames of a recording."""

_CHUNK = 1000
_RATES = (16_000, 22_050, 44_100, 48_000)


@dataclass(frozen=True, slots=True)
class _Format:
    container: str
    subtype: str


FORMATS = (
    _Format("WAV", "PCM_16"),
    _Format("FLAC", "PCM_16"),
    _Format("OGG", "VORBIS"),
    _Format("MP3", "MPEG_LAYER_III"),
)
"""The formats of the recordings, by turns."""


def sounds_and_rng(split: str, index: int) -> tuple[SoundScene, np.random.Generator]:
    """Return sound scene `index` of `split` and the generator that goes on to synthesise it."""
    rng = np.random.default_rng([SPLITS[split], index, SOUND_SEED])
    return draw_sounds(rng), rng


def sound_scenes(split: str, count: int, start: int = 0) -> list[SoundScene]:
    """Return sound scenes `start` to `start + count` of `split`."""
    return [sounds_and_rng(split, index)[0] for index in range(start, start + count)]


def recording(split: str, index: int) -> bytes:
    """Return sound scene `index` of `split` as the bytes of an audio file."""
    scene, rng = sounds_and_rng(split, index)
    samples, rate = synthesise(scene, rng), int(rng.choice(_RATES))
    if rng.random() < 1 / 2:
        side = rng.uniform(-0.5, 0.5)
        samples = np.stack([(1 - abs(side) + side) * samples, (1 - abs(side) - side) * samples], 1)
    return encoded(soxr.resample(samples, RATE, rate), rate, FORMATS[index % len(FORMATS)])


def encoded(samples: NDArray[np.float32], rate: int, kind: _Format) -> bytes:
    """Return samples [n] or [n, channels] as the bytes of an audio file."""
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format=kind.container, subtype=kind.subtype)
    return file.getvalue()


def heard_log_mel(data: bytes, limits: Settings) -> NDArray[np.float16]:
    """Return the bytes of a recording as the encoder's log-mel [FRAMES, mels]."""
    samples = samples_of(data, limits, RECIPE.sample_rate)
    return log_mel(samples, RECIPE)[:FRAMES].astype(np.float16)


def _chunk(split: str, start: int) -> NDArray[np.float16]:
    limits = load()
    indices = range(start, start + _CHUNK)
    return np.stack([heard_log_mel(recording(split, index), limits) for index in indices])


def log_mels(split: str, count: int, cache: Path, workers: int = 1) -> NDArray[np.float16]:
    """Return the first `count` recordings as log-mels, float16 [count, FRAMES, mels].

    They are made once and kept in `cache`; `count` is rounded up to whole thousands there.
    """
    chunks = -(-count // _CHUNK)
    path = cache / f"{split}-sounds-{chunks}k.npy"
    if not path.exists():
        cache.mkdir(parents=True, exist_ok=True)
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(workers, mp_context=context) as pool:
            made = list(pool.map(partial(_chunk, split), range(0, chunks * _CHUNK, _CHUNK)))
        partial_path = path.with_suffix(".partial.npy")
        np.save(partial_path, np.concatenate(made))
        partial_path.replace(path)
    kept: NDArray[np.float16] = np.load(path, mmap_mode="r")
    return kept[:count]
