"""Sampling: a denoiser that predicts velocities turns noise into pictures, step by step.

    noise ─ denoise (conditional, unconditional) ─ guide ─ clip ─ step ─▶ less noise … ─▶ pictures

The steps are those of Song, Meng and Ermon, "Denoising Diffusion Implicit Models" (2021), equation
12 with η = 0, so the seed decides all. Guidance is equation 6 of Ho and Salimans, "Classifier-Free
Diffusion Guidance" (2022), written as u + s·(c − u): scale 0 ignores the text, 1 follows it as it
was learned, more exaggerates it. Velocities, and the schedule α = cos(πt/2), σ = sin(πt/2), are
those of Salimans and Ho, "Progressive Distillation" (2022), appendix D. Clipping the predicted
picture is the static thresholding of Saharia et al., "Photorealistic Text-to-Image Diffusion
Models" (2022), section 2.3.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]

Denoise = Callable[[Array, Array, Array], Array]
"""From noisy pictures [n, 3, side, side], noise levels [n] and conditions to velocities."""


@dataclass(frozen=True, slots=True)
class Conditions:
    """What to draw and what "anything" is, [n, layout, width] each."""

    text: Array
    unconditional: Array


def noise(seed: int, shape: tuple[int, ...]) -> Array:
    """Return the standard normal noise of a seed: the same on every machine."""
    generator = np.random.Generator(np.random.PCG64(seed))
    return generator.standard_normal(shape, np.float32)


def sample(
    denoise: Denoise,
    noisy: Array,
    conditions: Conditions,
    *,
    steps: int,
    guidance_scale: float,
    before_step: Callable[[], None] = lambda: None,
) -> Array:
    """Return pictures [n, 3, side, side] with values in [-1, 1].

    Args:
        denoise: The model; it sees each picture twice in one batch, with and without its text.
        noisy: What to start from, [n, 3, side, side]; see `noise`.
        conditions: For each picture.
        steps: How many times to call `denoise`.
        guidance_scale: How strongly to follow the text.
        before_step: Called before each step; whoever wants to stop raises.
    """
    both = np.concatenate([conditions.text, conditions.unconditional])
    scale = np.float32(guidance_scale)
    for step in range(steps):
        before_step()
        level = 1 - step / steps
        levels = np.full(len(both), level, np.float32)
        velocity = denoise(np.concatenate([noisy, noisy]), levels, both)
        guided, unguided = np.split(velocity, 2)
        noisy = _step(noisy, unguided + scale * (guided - unguided), level, level - 1 / steps)
    return noisy


def _step(noisy: Array, velocity: Array, level: float, next_level: float) -> Array:
    """Go from one noise level to a lower one."""
    alpha, sigma = _schedule(level)
    clean = np.clip(alpha * noisy - sigma * velocity, -1, 1)
    remaining = (noisy - alpha * clean) / sigma
    alpha, sigma = _schedule(max(next_level, 0.0))
    return alpha * clean + sigma * remaining


def _schedule(level: float) -> tuple[np.float32, np.float32]:
    """Return α and σ."""
    angle = level * math.pi / 2
    return np.float32(math.cos(angle)), np.float32(math.sin(angle))


def pixels(pictures: Array) -> NDArray[np.uint8]:
    """Return pictures [n, 3, side, side] in [-1, 1] as uint8 [n, side, side, 3]."""
    scaled = np.rint((np.clip(pictures, -1, 1) + 1) * np.float32(127.5))
    return np.ascontiguousarray(scaled.astype(np.uint8).transpose(0, 2, 3, 1))
