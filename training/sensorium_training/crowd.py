"""Crowded pictures: more things than a caption may name, for a denoiser that learns from things.

Two thirds of an ordinary picture are empty. The denoiser works zone by zone, so it learns shapes
and textures faster where more zones are filled. The text of a crowd is two captions, and each zone
takes its vector from the caption that names it.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sensorium_export.models.diffusion import DiffusionImageDecoder
from sensorium_training.reading import Reader
from sensorium_training.world.caption import caption
from sensorium_training.world.picture import MAX_NOISE, backdrop, developed, ink, paint
from sensorium_training.world.scene import MAX_OBJECTS, ZONES, Scene, Thing, draw_scene

_GAP = 0.012
_MERGED_SCENES = 6


@dataclass(frozen=True, slots=True)
class Crowd:
    """Six to nine things on one background, as two scenes that a caption can name each."""

    scenes: tuple[Scene, Scene]

    @property
    def things(self) -> tuple[Thing, ...]:
        """All things of both scenes."""
        return self.scenes[0].things + self.scenes[1].things

    def picture(self, rng: np.random.Generator, size: int) -> NDArray[np.uint8]:
        """Draw it, [size, size, 3]; less noisy than `render`, whose noise shrinking averages."""
        canvas = backdrop(self.scenes[0].background, rng, size)
        for thing in self.things:
            paint(canvas, thing, ink(thing, rng))
        return developed(canvas, rng, rng.uniform(0, MAX_NOISE / 2))


def draw_crowd(rng: np.random.Generator) -> Crowd:
    """Put the things of several scenes into one as far as they have room."""
    while True:
        scenes = [draw_scene(rng) for _ in range(_MERGED_SCENES)]
        things: list[Thing] = []
        for thing in (thing for scene in scenes for thing in scene.things):
            if all(_apart(thing, other) for other in things):
                things.append(thing)
        if len(things) > MAX_OBJECTS:
            halves = things[:MAX_OBJECTS], things[MAX_OBJECTS:]
            first, second = (
                Scene(scenes[0].background, tuple(sorted(half, key=lambda thing: thing.zone)))
                for half in halves
            )
            return Crowd((first, second))


def _apart(one: Thing, other: Thing) -> bool:
    distance = np.hypot(one.x - other.x, one.y - other.y)
    return one.zone != other.zone and bool(distance >= one.radius + other.radius + _GAP)


@torch.no_grad()
def crowd_layout(decoder: DiffusionImageDecoder, reader: Reader, crowds: list[Crowd]) -> Tensor:
    """Return the layouts of crowds, [crowds, zones + 1, width], from two captions each."""
    texts = [caption(crowd.scenes[half]) for half in (0, 1) for crowd in crowds]
    first, second = decoder.condition(*reader.tokens(texts)).chunk(2)
    in_second = torch.zeros(len(crowds), len(ZONES) + 1, 1, dtype=torch.bool)
    for row, crowd in enumerate(crowds):
        in_second[row, [thing.zone for thing in crowd.scenes[1].things]] = True
    return torch.where(in_second, second, first)
