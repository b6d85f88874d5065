"""Pictures of scenes: signed-distance shapes with textures, antialiased, at any size.

Shape formulas follow Inigo Quilez, "2D distance functions" (iquilezles.org), in units of the
thing's radius.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from sensorium_training.world.scene import Scene, Thing

Array = NDArray[np.float32]

PICTURE_SIZE = 128
"""Side of a rendered picture in pixels, unless told otherwise."""

COLOR_RGB = np.array(
    [
        [214, 40, 40], [240, 130, 20], [245, 215, 40], [45, 160, 60],
        [50, 205, 215], [40, 70, 215], [125, 45, 165], [245, 135, 190],
    ],
    dtype=np.float32,
)  # fmt: skip
BACKGROUND_RGB = np.array([[22, 22, 24], [128, 128, 128], [236, 236, 232]], dtype=np.float32)
_TEXTURE_PERIOD = 0.068
_TEXTURE_SHADE = 0.4
_RIM = 0.045
_MARGIN = 1.35
MAX_NOISE = 6
"""Greatest standard deviation of the noise, of 255."""


def render(scene: Scene, rng: np.random.Generator, size: int = PICTURE_SIZE) -> NDArray[np.uint8]:
    """Draw `scene` as uint8 [size, size, 3] RGB; `rng` gives colour jitter, light and noise."""
    canvas = backdrop(scene.background, rng, size)
    for thing in scene.things:
        paint(canvas, thing, ink(thing, rng))
    return developed(canvas, rng, rng.uniform(0, MAX_NOISE))


def backdrop(background: int, rng: np.random.Generator, size: int) -> Array:
    """Return an empty canvas, float [size, size, 3], in a shade and light drawn from `rng`."""
    canvas = np.empty((size, size, 3), np.float32)
    canvas[:] = BACKGROUND_RGB[background] + rng.normal(0, 4, 3)
    canvas += np.linspace(-1, 1, size, dtype=np.float32)[:, None, None] * rng.normal(0, 5)
    return canvas


def ink(thing: Thing, rng: np.random.Generator) -> Array:
    """Return the thing's colour in a shade drawn from `rng`, float [3]."""
    shade: Array = COLOR_RGB[thing.color] + rng.normal(0, 7, 3).astype(np.float32)
    return shade


def developed(canvas: Array, rng: np.random.Generator, noise: float) -> NDArray[np.uint8]:
    """Return the canvas as a picture with noise of this standard deviation."""
    grain = rng.normal(0, noise, (*canvas.shape[:2], 1)).astype(np.float32)
    return np.clip(canvas + grain + 0.5, 0, 255).astype(np.uint8)


def paint(canvas: Array, thing: Thing, shade: Array, opacity: float = 1.0) -> None:
    """Paint a thing onto the canvas."""
    size = canvas.shape[0]
    reach = thing.radius * _MARGIN
    left, top = (max(0, int((c - reach) * size)) for c in (thing.x, thing.y))
    right, bottom = (min(size, int((c + reach) * size) + 2) for c in (thing.x, thing.y))
    x = ((np.arange(left, right, dtype=np.float32) + 0.5) / size - thing.x) / thing.radius
    y = ((np.arange(top, bottom, dtype=np.float32) + 0.5) / size - thing.y) / thing.radius
    cos, sin = np.float32(np.cos(thing.tilt_rad)), np.float32(np.sin(thing.tilt_rad))
    u = cos * x[None, :] + sin * y[:, None]
    v = cos * y[:, None] - sin * x[None, :]
    distance = _DISTANCES[thing.shape](u, v)
    alpha = opacity * np.clip(0.5 - distance * thing.radius * size, 0, 1)[..., None]
    darkening = np.where(distance < -_RIM, _texture(thing, u, v, size), 1)[..., None]
    patch = canvas[top:bottom, left:right]
    patch += alpha * (shade * darkening - patch)


def _texture(thing: Thing, u: Array, v: Array, size: int) -> Array:
    """Return the factor by which the texture darkens the ink: 1 in the clear."""
    period = np.float32(_TEXTURE_PERIOD / thing.radius)
    softness = thing.radius * size
    if thing.texture == 0:
        return np.ones_like(u)
    if thing.texture == 1:
        inside = np.abs((v / period) % 1 - 0.5) * period - period / 4
    else:
        du, dv = ((w / period) % 1 - 0.5 for w in (u, v))
        inside = np.hypot(du, dv) * period - period * 0.31
    ink = np.clip(0.5 - inside * softness, 0, 1)
    return 1 - ink * (1 - _TEXTURE_SHADE)


def _circle(x: Array, y: Array) -> Array:
    return np.hypot(x, y) - np.float32(0.92)


def _square(x: Array, y: Array) -> Array:
    return np.maximum(np.abs(x), np.abs(y)) - np.float32(0.80)


def _triangle(x: Array, y: Array) -> Array:
    side = np.abs(x) * np.float32(0.8944) - (y + 1) * np.float32(0.4472)
    return np.maximum(side, y - np.float32(0.78))


def _star(x: Array, y: Array) -> Array:
    angle = np.arctan2(x, -y)
    sector = np.float32(2 * np.pi / 5)
    folded = np.abs((angle + sector / 2) % sector - sector / 2)
    radius = np.hypot(x, y)
    px, py = radius * np.cos(folded), radius * np.sin(folded)
    inner = np.array([0.50 * np.cos(np.pi / 5), 0.50 * np.sin(np.pi / 5)])
    edge = inner - np.array([1.05, 0.0])
    normal = np.array([edge[1], -edge[0]]) / np.hypot(*edge)
    return ((px - 1.05) * normal[0] + py * normal[1]).astype(np.float32)


def _cross(x: Array, y: Array) -> Array:
    a, b = np.abs(x), np.abs(y)
    arm = np.float32(0.38)
    reach = np.float32(0.95)
    return np.minimum(np.maximum(a - arm, b - reach), np.maximum(a - reach, b - arm))


def _heart(x: Array, y: Array) -> Array:
    a = np.abs(x)
    lobe = np.hypot(a - np.float32(0.45), y + np.float32(0.35)) - np.float32(0.5)
    tip = np.maximum((a + y - np.float32(0.82)) * np.float32(0.7071), -y - np.float32(0.30))
    return np.minimum(lobe, tip)


def _ring(x: Array, y: Array) -> Array:
    return np.abs(np.hypot(x, y) - np.float32(0.65)) - np.float32(0.33)


def _diamond(x: Array, y: Array) -> Array:
    return (np.abs(x) * np.float32(1.25) + np.abs(y) - np.float32(1.02)) * np.float32(0.62)


_DISTANCES: tuple[Callable[[Array, Array], Array], ...] = (
    _circle, _square, _triangle, _star, _cross, _heart, _ring, _diamond,
)  # fmt: skip
