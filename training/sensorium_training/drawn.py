"""The judge of drawn pictures: what is seen where, by matching the world's own templates.

No network is asked. Every zone that should hold a thing is compared with all shapes, sizes,
textures and some tilts and places of it, drawn by the renderer: template matching by least squares,
with the ink solved for in closed form. So the judge can be proved on real pictures, and its own
errors bound what the figures of drawn ones mean.

    python -m sensorium_training.drawn --prompts 500
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import product
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from sensorium._config import DEFAULT_GUIDANCE_SCALE, DEFAULT_STEPS
from sensorium_export.models.diffusion import DiffusionImageDecoder
from sensorium_server.diffusion import Conditions, noise, pixels, sample
from sensorium_training.dataset import SPLITS, scenes
from sensorium_training.drawing import WEIGHTS_FILE, decoder_from
from sensorium_training.reading import Reader, reader_from
from sensorium_training.world.caption import caption
from sensorium_training.world.picture import BACKGROUND_RGB, COLOR_RGB, PICTURE_SIZE, paint
from sensorium_training.world.scene import (
    RADIUS_RANGES,
    SHAPES,
    TEXTURES,
    ZONES,
    Scene,
    Thing,
)

Array = NDArray[np.float32]

ATTRIBUTES = ("shape", "color", "size", "texture")
_SIDE = 64
_HALF = 12
"""Half the side of the window that is compared, pixels."""

_CORE = 8
"""Half the side of the middle of a zone, which things of other zones do not reach, pixels."""

_SHIFTS = range(-3, 4)
_TILTS_RAD = np.deg2rad([-9, 0, 9]).tolist()
_RADII = tuple(sum(limits) / 2 for limits in RADIUS_RANGES)
_FOREGROUND_STEP = 40.0
_FOREGROUND_PIXELS = 20


@dataclass(frozen=True, slots=True)
class Bank:
    """Templates in windows of 2·_HALF pixels: how opaque, and how bright the ink, each pixel is.

    Attributes:
        opacity: [templates, pixels].
        ink: [templates, pixels], the opacity times the texture.
        shape: int, [templates]; `size` and `texture` likewise.
    """

    opacity: Array
    ink: Array
    shape: NDArray[np.int64]
    size: NDArray[np.int64]
    texture: NDArray[np.int64]


@cache
def bank() -> Bank:
    """Draw all templates once."""
    things = [
        Thing(shape, 0, size, texture, 4, 0.5 + right / _SIDE, 0.5 + down / _SIDE, radius, tilt)
        for shape, (size, radius), texture, tilt, down, right in product(
            range(len(SHAPES)),
            enumerate(_RADII),
            range(len(TEXTURES)),
            _TILTS_RAD,
            _SHIFTS,
            _SHIFTS,
        )
    ]
    drawn = np.stack([_template(thing) for thing in things])
    shape, size, texture = (
        np.array([getattr(thing, name) for thing in things])
        for name in ("shape", "size", "texture")
    )
    return Bank(1 - drawn[..., 0], drawn[..., 1], shape, size, texture)


def _template(thing: Thing) -> Array:
    """Return the transparency and the ink of a thing in the middle zone, [pixels, 2]."""
    canvas = np.zeros((PICTURE_SIZE, PICTURE_SIZE, 2), np.float32)
    canvas[..., 0] = 1
    paint(canvas, thing, np.array([0, 1], np.float32))
    scale = PICTURE_SIZE // _SIDE
    middle = slice(PICTURE_SIZE // 2 - scale * _HALF, PICTURE_SIZE // 2 + scale * _HALF)
    window = canvas[middle, middle].reshape(2 * _HALF, scale, 2 * _HALF, scale, 2)
    return window.mean((1, 3)).reshape(-1, 2)


def background_of(picture: NDArray[np.uint8]) -> Array:
    """Return the colour of the picture's rim, [3]: things seldom reach it."""
    rim = np.concatenate([picture[0], picture[-1], picture[1:-1, 0], picture[1:-1, -1]])
    return np.median(rim, axis=0).astype(np.float32)


def filled_zones(picture: NDArray[np.uint8], background: Array) -> NDArray[np.bool_]:
    """Return for each zone whether anything is in its middle, [zones]."""
    away = np.abs(picture - background).max(-1) > _FOREGROUND_STEP
    padded = np.pad(away, _CORE)
    counts = [
        padded[top : top + 2 * _CORE, left : left + 2 * _CORE].sum()
        for top, left in map(_center, range(len(ZONES)))
    ]
    return np.array(counts) >= _FOREGROUND_PIXELS


def _center(zone: int) -> tuple[int, int]:
    """Return a zone's middle as row and column."""
    row, column = divmod(zone, 3)
    return round((row + 0.5) / 3 * _SIDE), round((column + 0.5) / 3 * _SIDE)


def _window(pixels: Array, zone: int) -> Array:
    """Return the pixels around a zone's middle, [4·_HALF², channels]; beyond the picture, zeros."""
    top, left = _center(zone)
    padded = np.pad(pixels, ((_HALF, _HALF), (_HALF, _HALF), (0, 0)))
    return padded[top : top + 2 * _HALF, left : left + 2 * _HALF].reshape(-1, pixels.shape[-1])


@cache
def _products(zone: int) -> tuple[Array, Array, Array]:
    """Return each template's opacity², opacity·ink and ink², summed where the picture is."""
    counted = _window(np.ones((_SIDE, _SIDE, 1), np.float32), zone)[:, 0]
    opacity, ink = bank().opacity, bank().ink
    return (
        (opacity * opacity) @ counted,
        (opacity * ink) @ counted,
        (ink * ink) @ counted,
    )


def seen_thing(picture: NDArray[np.uint8], background: Array, zone: int) -> dict[str, int]:
    """Return the attributes of the template that fits best, and the nearest colour of its ink.

    A template says: pixel = background + ink·brightness - background·opacity. The brightness that
    leaves the least squared error is solved for; `error` is that error up to a constant.
    """
    templates = bank()
    values = _window(picture - background, zone)
    opacity2, both, ink2 = (sums[:, None] for sums in _products(zone))
    along = templates.ink @ values + background * both
    error = background * (2 * (templates.opacity @ values) + background * opacity2)
    best = int((error - along**2 / ink2).sum(-1).argmin())
    color = along[best] / ink2[best]
    return {
        "shape": int(templates.shape[best]),
        "color": int(np.linalg.norm(COLOR_RGB - color, axis=1).argmin()),
        "size": int(templates.size[best]),
        "texture": int(templates.texture[best]),
    }


def judge(pictures: NDArray[np.uint8], scenes: Sequence[Scene]) -> dict[str, float]:
    """Return how often the pictures show the scenes, in percent.

    `presence` and `background` count pictures: exactly the right zones are filled. The attributes
    count described things. `all` counts pictures in which everything is right.
    """
    verdicts = [verdict(*pair) for pair in zip(pictures, scenes, strict=True)]
    names = ("presence", "background", *ATTRIBUTES)
    report = {
        name: 100 * float(np.concatenate([one[name] for one in verdicts]).mean()) for name in names
    }
    report["all"] = 100 * float(np.mean([all(map(np.all, one.values())) for one in verdicts]))
    return report


def verdict(picture: NDArray[np.uint8], scene: Scene) -> Mapping[str, NDArray[np.bool_]]:
    """Return what is right: one entry a picture, or one for each described thing."""
    background = background_of(picture)
    filled = filled_zones(picture, background)
    wanted = np.isin(np.arange(len(ZONES)), [thing.zone for thing in scene.things])
    nearest = np.linalg.norm(BACKGROUND_RGB - background, axis=1).argmin()
    seen = [
        seen_thing(picture, background, thing.zone) if filled[thing.zone] else {}
        for thing in scene.things
    ]
    return {
        "presence": np.array([(filled == wanted).all()]),
        "background": np.array([nearest == scene.background]),
        **{
            name: np.array(
                [
                    one.get(name) == getattr(thing, name)
                    for one, thing in zip(seen, scene.things, strict=True)
                ]
            )
            for name in ATTRIBUTES
        },
    }


@dataclass(frozen=True, slots=True)
class Sampling:
    """How pictures are drawn."""

    steps: int = DEFAULT_STEPS
    guidance_scale: float = DEFAULT_GUIDANCE_SCALE
    batch: int = 25


@torch.no_grad()
def draw(
    decoder: DiffusionImageDecoder,
    reader: Reader,
    texts: Sequence[list[str]],
    seeds: Sequence[int],
    sampling: Sampling,
) -> NDArray[np.uint8]:
    """Draw a picture of each text by the code that serves, [texts, side, side, 3]."""
    side = decoder.config.image_size

    def denoise(*arrays: Array) -> Array:
        made: Array = decoder.denoise(*map(torch.from_numpy, arrays)).numpy()
        return made

    drawn = []
    for start in range(0, len(texts), sampling.batch):
        part = slice(start, start + sampling.batch)
        tokens, mask = reader.tokens(list(texts[part]))
        text = decoder.condition(tokens, mask).numpy()
        nothing = decoder.condition(tokens, torch.zeros_like(mask)).numpy()
        noisy = np.stack([noise(seed, (3, side, side)) for seed in seeds[part]])
        pictures = sample(
            denoise,
            noisy,
            Conditions(text, nothing),
            steps=sampling.steps,
            guidance_scale=sampling.guidance_scale,
        )
        drawn.append(pixels(pictures))
    return np.concatenate(drawn)


def grid(pictures: NDArray[np.uint8], columns: int = 8) -> NDArray[np.uint8]:
    """Return pictures side by side, as many as fill whole rows."""
    rows = len(pictures) // columns
    tiles = pictures[: rows * columns].reshape(rows, columns, *pictures.shape[1:])
    return np.concatenate(np.concatenate(tiles, axis=1), axis=1)


def main() -> None:
    """Draw what the command line says, judge it and print the figures."""
    sampling = Sampling()
    parser = argparse.ArgumentParser(
        prog="python -m sensorium_training.drawn",
        description="Draw captions of scenes that training never saw, and judge the pictures. "
        "Example: python -m sensorium_training.drawn --prompts 500",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--checkpoint", type=Path, default=Path("checkpoints/playroom"))
    parser.add_argument("--weights", type=Path, default=Path(".cache/training") / WEIGHTS_FILE)
    parser.add_argument("--split", choices=SPLITS, default="test")
    parser.add_argument("--prompts", type=int, default=100)
    parser.add_argument("--steps", type=int, default=sampling.steps)
    parser.add_argument("--guidance-scale", type=float, default=sampling.guidance_scale)
    parser.add_argument("--grid", type=Path, help="also write the first pictures here")
    given = parser.parse_args()
    torch.set_num_threads(1)
    reader, loaded = reader_from(given.checkpoint)
    decoder = decoder_from(given.weights, loaded.model.config)
    wanted = scenes(given.split, given.prompts)
    pictures = draw(
        decoder,
        reader,
        [caption(scene) for scene in wanted],
        range(given.prompts),
        Sampling(given.steps, given.guidance_scale),
    )
    if given.grid:
        Image.fromarray(grid(pictures)).save(given.grid)
    report = {name: round(value, 1) for name, value in judge(pictures, wanted).items()}
    print(json.dumps(report))  # noqa: T201 - the command's output


if __name__ == "__main__":
    main()
