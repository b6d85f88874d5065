"""Films by number, as `dataset` has pictures: every one made from its own seed.

A film goes the way that a user's film goes: drawn, encoded as MP4, decoded, sampled and heard by
the server's own code.
"""

import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sensorium_server.settings import load
from sensorium_server.stages.audio import sound_track_of
from sensorium_server.stages.framing import Framing
from sensorium_server.stages.log_mel import log_mel
from sensorium_server.stages.video import sampled_frames
from sensorium_training.dataset import SPLITS
from sensorium_training.recordings import FRAMES, RECIPE
from sensorium_training.world import film as drawn
from sensorium_training.world.motion import Clip, draw_clip
from sensorium_training.world.waveform import synthesise

SAMPLED = 16
"""Frames of a film that the encoder sees."""

_FILMS = 2
"""The third word of films' seeds: other things than in the pictures of the same number."""

_CHUNK = 250


def clip_and_rng(split: str, index: int) -> tuple[Clip, np.random.Generator]:
    """Return clip `index` of `split` and the generator that goes on to draw its film."""
    rng = np.random.default_rng([SPLITS[split], index, _FILMS])
    return draw_clip(rng, held_out=split == "held_out_pairs"), rng


def clips(split: str, count: int, start: int = 0) -> list[Clip]:
    """Return clips `start` to `start + count` of `split`."""
    return [clip_and_rng(split, index)[0] for index in range(start, start + count)]


def film(
    split: str,
    index: int,
    *,
    sound: bool = True,
    size: int = drawn.FILM_SIZE,
    fps: int = drawn.FPS,
) -> bytes:
    """Return film `index` of `split` as the bytes of an MP4 file.

    Args:
        split: a key of `SPLITS`.
        index: its number.
        sound: whether to add the sound track, if the clip has sounds; the picture is the same.
        size: side of its frames in pixels.
        fps: frames per second.
    """
    clip, rng = clip_and_rng(split, index)
    (ear,) = rng.spawn(1)
    pictures = drawn.frames(clip, rng, size, fps)
    samples = synthesise(clip.sounds, ear) if sound and clip.sounds is not None else None
    return drawn.mp4(pictures, rng, fps, samples)


def frames(split: str, count: int, cache: Path, workers: int = 1) -> NDArray[np.uint8]:
    """Return what is seen of the first `count` films, uint8 [count, SAMPLED, side, side, 3].

    They are drawn once and kept in `cache`; `count` is rounded up to whole chunks there.
    """
    row = np.empty((SAMPLED, drawn.FILM_SIZE, drawn.FILM_SIZE, 3), np.uint8)
    return _kept(cache / f"films-{split}", row, partial(_frames, split), count, workers)


def sound_tracks(split: str, count: int, cache: Path, workers: int = 1) -> NDArray[np.float16]:
    """Return what is heard of the first `count` films, float16 [count, FRAMES, mels].

    Silent films are zeros. Made once and kept like `frames`.
    """
    row = np.empty((FRAMES, RECIPE.mels), np.float16)
    return _kept(cache / f"film-sounds-{split}", row, partial(_sounds, split), count, workers)


def _frames(split: str, start: int) -> NDArray[np.uint8]:
    """Return the sampled frames of one chunk of films."""
    limits = load()
    files = (film(split, index, sound=False) for index in range(start, start + _CHUNK))
    return np.stack(
        [sampled_frames(f, limits, SAMPLED, Framing(drawn.FILM_SIZE))[0] for f in files]
    )


def _sounds(split: str, start: int) -> NDArray[np.float16]:
    """Return the log-mels of one chunk of films."""
    limits = load()
    made = np.zeros((_CHUNK, FRAMES, RECIPE.mels), np.float16)
    for row, clip in enumerate(clips(split, _CHUNK, start)):
        if clip.sounds is not None:
            samples = sound_track_of(film(split, start + row), limits, RECIPE.sample_rate)
            made[row] = log_mel(samples, RECIPE)[:FRAMES]
    return made


def _kept(
    stem: Path,
    row: NDArray[Any],
    make: Callable[[int], NDArray[Any]],
    count: int,
    workers: int,
) -> NDArray[Any]:
    """Return the first `count` rows like `row`, made chunk by chunk unless they lie in a file."""
    starts = range(0, count, _CHUNK)
    path = stem.with_name(f"{stem.name}-{len(starts) * _CHUNK}.npy")
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        partial_path = path.with_suffix(".partial.npy")
        shape = (len(starts) * _CHUNK, *row.shape)
        rows = np.lib.format.open_memmap(partial_path, "w+", row.dtype, shape)
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(workers, mp_context=context) as pool:
            for start, chunk in zip(starts, pool.map(make, starts), strict=True):
                rows[start : start + _CHUNK] = chunk
        rows.flush()
        partial_path.replace(path)
    kept: NDArray[Any] = np.load(path, mmap_mode="r")
    return kept[:count]
