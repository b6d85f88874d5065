"""Scenes: which objects stand where, drawn from a seed.

Lengths are in units of the picture's side: a picture spans [0, 1] × [0, 1], y grows downwards.
Each object keeps to its own zone of a 3 × 3 grid, so "where" has one right answer.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SHAPES = ("circle", "square", "triangle", "star", "cross", "heart", "ring", "diamond")
COLORS = ("red", "orange", "yellow", "green", "cyan", "blue", "purple", "pink")
SIZES = ("small", "large")
TEXTURES = ("solid", "striped", "dotted")
BACKGROUNDS = ("black", "gray", "white")
ZONES = (
    "top left", "top", "top right", "left", "center", "right", "bottom left", "bottom",
    "bottom right",
)  # fmt: skip

MAX_OBJECTS = 5
HELD_OUT_PAIRS = frozenset(
    {("pink", "star"), ("cyan", "heart"), ("orange", "cross"), ("green", "ring")}
)
"""Colour and shape pairs that never occur in training pictures: the compositional test."""

RADIUS_RANGES = ((0.098, 0.112), (0.140, 0.152))
_JITTER = 0.04
_GAP = 0.012
MAX_TILT_RAD = np.deg2rad(14)


@dataclass(frozen=True, slots=True)
class Thing:
    """One object; attributes are indices into the tuples above."""

    shape: int
    color: int
    size: int
    texture: int
    zone: int
    x: float
    y: float
    radius: float
    tilt_rad: float

    @property
    def pair(self) -> tuple[str, str]:
        """Its colour and shape by name."""
        return COLORS[self.color], SHAPES[self.shape]


@dataclass(frozen=True, slots=True)
class Scene:
    """A background and one to five things, in reading order of their zones."""

    background: int
    things: tuple[Thing, ...]


def draw_scene(rng: np.random.Generator, *, held_out: bool = False) -> Scene:
    """Draw a scene; with `held_out`, at least one thing is a held-out pair, else none is."""
    count = int(rng.integers(1, MAX_OBJECTS + 1))
    zones = np.sort(rng.choice(len(ZONES), size=count, replace=False))
    kinds = [draw_kind(rng, held_out=held_out and i == 0) for i in range(count)]
    rng.shuffle(kinds)
    sizes = rng.integers(len(SIZES), size=count)
    radii = np.array([rng.uniform(*RADIUS_RANGES[s]) for s in sizes])
    centers = _place(rng, zones, radii)
    things = tuple(
        Thing(
            shape=kinds[i][1],
            color=kinds[i][0],
            size=int(sizes[i]),
            texture=int(rng.integers(len(TEXTURES))),
            zone=int(zones[i]),
            x=float(centers[i, 0]),
            y=float(centers[i, 1]),
            radius=float(radii[i]),
            tilt_rad=float(rng.uniform(-MAX_TILT_RAD, MAX_TILT_RAD)),
        )
        for i in range(count)
    )
    return Scene(int(rng.integers(len(BACKGROUNDS))), things)


def draw_kind(rng: np.random.Generator, *, held_out: bool) -> tuple[int, int]:
    """Draw a colour and a shape: a held-out pair if `held_out`, else none of them."""
    if held_out:
        pairs = sorted(HELD_OUT_PAIRS)
        color, shape = pairs[int(rng.integers(len(pairs)))]
        return COLORS.index(color), SHAPES.index(shape)
    while True:
        color_id, shape_id = int(rng.integers(len(COLORS))), int(rng.integers(len(SHAPES)))
        if (COLORS[color_id], SHAPES[shape_id]) not in HELD_OUT_PAIRS:
            return color_id, shape_id


def _place(
    rng: np.random.Generator, zones: NDArray[np.int64], radii: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Jitter each thing about its zone's centre; shrink the jitter until none touch."""
    home = (np.stack([zones % 3, zones // 3], axis=1) + 0.5) / 3
    for attempt in range(8):
        jitter = rng.uniform(-1, 1, size=home.shape) * _JITTER * (1 - attempt / 8)
        centers = home + jitter
        distance = np.linalg.norm(centers[:, None] - centers[None], axis=-1)
        reach = radii[:, None] + radii[None] + _GAP
        np.fill_diagonal(distance, np.inf)
        if (distance >= reach).all():
            return centers
    return home
