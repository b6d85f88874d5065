"""Pictures by number: each split is an endless list of scenes, every one made from its own seed.

A picture goes the way that a user's picture goes: drawn, encoded as JPEG, decoded and resized by
the server's own code. So training sees what serving sees.
"""

import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import chain
from pathlib import Path

import numpy as np
import simplejpeg
from numpy.typing import NDArray

from sensorium_server.settings import Settings, load
from sensorium_server.stages.framing import RESAMPLE
from sensorium_server.stages.image import decode
from sensorium_training.world.picture import PICTURE_SIZE, render
from sensorium_training.world.scene import Scene, draw_scene

SPLITS = {"train": 0, "validation": 1, "test": 2, "held_out_pairs": 3}
"""The first word of each split's seeds."""

_CHUNK = 1000


def scene_and_rng(split: str, index: int) -> tuple[Scene, np.random.Generator]:
    """Return scene `index` of `split` and the generator that goes on to draw its picture."""
    rng = np.random.default_rng([SPLITS[split], index])
    return draw_scene(rng, held_out=split == "held_out_pairs"), rng


def scenes(split: str, count: int, start: int = 0) -> list[Scene]:
    """Return scenes `start` to `start + count` of `split`."""
    return [scene_and_rng(split, index)[0] for index in range(start, start + count)]


def jpeg(split: str, index: int, size: int = PICTURE_SIZE) -> bytes:
    """Return picture `index` of `split` as the bytes of a JPEG file of `size` × `size` pixels."""
    scene, rng = scene_and_rng(split, index)
    picture = render(scene, rng, size)
    encoded: bytes = simplejpeg.encode_jpeg(picture, quality=int(rng.integers(75, 97)))
    return encoded


def seen_pixels(data: bytes, image_size: int, limits: Settings) -> NDArray[np.uint8]:
    """Return the bytes of a picture file as the encoder's uint8 [image_size, image_size, 3]."""
    picture = decode(data, limits).resize((image_size, image_size), RESAMPLE["bicubic"])
    return np.asarray(picture)[..., :3]


def _pixels(split: str, image_size: int, start: int) -> NDArray[np.uint8]:
    """Return one chunk of pictures at the encoder's size."""
    limits = load()
    indices = range(start, start + _CHUNK)
    return np.stack([seen_pixels(jpeg(split, index), image_size, limits) for index in indices])


def pixels(
    split: str, count: int, image_size: int, cache: Path, workers: int = 1
) -> NDArray[np.uint8]:
    """Return the first `count` pictures as uint8 [count, image_size, image_size, 3].

    They are drawn once and kept in `cache`; `count` is rounded up to whole thousands there.
    """
    chunks = -(-count // _CHUNK)
    path = cache / f"{split}-{image_size}-{chunks}k.npy"
    if not path.exists():
        cache.mkdir(parents=True, exist_ok=True)
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(workers, mp_context=context) as pool:
            starts = range(0, chunks * _CHUNK, _CHUNK)
            drawn = list(pool.map(partial(_pixels, split, image_size), starts))
        partial_path = path.with_suffix(".partial.npy")
        np.save(partial_path, np.concatenate(drawn))
        partial_path.replace(path)
    kept: NDArray[np.uint8] = np.load(path, mmap_mode="r")
    return kept[:count]


def batches(count: int, size: int, rng: np.random.Generator) -> Iterator[NDArray[np.int64]]:
    """Yield shuffled index batches for ever, a new order each epoch."""
    while True:
        order = rng.permutation(count)
        yield from chain(order[i : i + size] for i in range(0, count - size + 1, size))
