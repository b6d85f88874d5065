"""Sampling: a denoiser turns noise into pictures, step by step.

    noise ─ denoise (conditional, unconditional) ─ guide ─ clip ─ step ─▶ less noise … ─▶ pictures

How it steps is the schedule's (`schedules`); none adds noise of its own, so the seed decides all.
Guidance is equation 6 of Ho and Salimans, "Classifier-Free Diffusion Guidance" (2022), written as
u + s·(c − u): scale 0 ignores the text, 1 follows it as it was learned, more exaggerates it. The
cosine schedule's clipping of the predicted picture is the static thresholding of Saharia et al.,
"Photorealistic Text-to-Image Diffusion Models" (2022), section 2.3.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sensorium_server.schedules import Array, CosineSchedule, Schedule

Denoise = Callable[[Array, Array, Array], Array]
"""From noisy pictures [n, channels, side, side], noise levels [n] and conditions to predictions."""

_COSINE = CosineSchedule()


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
    schedule: Schedule = _COSINE,
) -> Array:
    """Return pictures or latents, shaped like the noise; the cosine schedule's are in [-1, 1].

    Args:
        denoise: The model; it sees each picture twice in one batch, with and without its text.
        noisy: What to start from, [n, channels, side, side]; see `noise`.
        conditions: For each picture.
        steps: How many steps to take; a schedule may ask `denoise` once more than that.
        guidance_scale: How strongly to follow the text.
        before_step: Called before each call of `denoise`; whoever wants to stop raises.
        schedule: What the model was trained on.
    """
    both = np.concatenate([conditions.text, conditions.unconditional])
    scale = np.float32(guidance_scale)
    solver = schedule.solver(steps)
    noisy = noisy * np.float32(solver.spread)
    for call, level in enumerate(solver.timesteps):
        before_step()
        levels = np.full(len(both), level, np.float32)
        seen = solver.seen(noisy, call)
        predicted = denoise(np.concatenate([seen, seen]), levels, both)
        guided, unguided = np.split(predicted, 2)
        noisy = solver.step(noisy, unguided + scale * (guided - unguided), call)
    return noisy


def pixels(pictures: Array) -> NDArray[np.uint8]:
    """Return pictures [n, 3, side, side] in [-1, 1] as uint8 [n, side, side, 3]."""
    scaled = np.rint((np.clip(pictures, -1, 1) + 1) * np.float32(127.5))
    return np.ascontiguousarray(scaled.astype(np.uint8).transpose(0, 2, 3, 1))
