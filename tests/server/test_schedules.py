"""Schedules against the schedulers of diffusers: the same times, the same steps."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import (
    DDIMScheduler,
    EulerDiscreteScheduler,
    PNDMScheduler,
)
from numpy.testing import assert_allclose

from sensorium.errors import ConfigurationError, InvalidInputError
from sensorium_server.diffusion import noise
from sensorium_server.schedules import Array, schedule_from
from sensorium_server.stages import StageConfig

CLASSES: dict[str, Any] = {
    "ddim": DDIMScheduler,
    "pndm": PNDMScheduler,
    "euler": EulerDiscreteScheduler,
}
OWN: dict[str, dict[str, Any]] = {
    "ddim": {"set_alpha_to_one": False, "clip_sample": False},
    "pndm": {"set_alpha_to_one": False, "skip_prk_steps": True},
    "euler": {"final_sigmas_type": "zero"},
}
SHAPE = (1, 4, 8, 8)


def told(kind: str, **changes: Any) -> dict[str, Any]:  # noqa: ANN401 - as diffusers takes it
    """Return a scheduler's config, by default as Stable Diffusion has it."""
    return {
        "num_train_timesteps": 1000,
        "beta_schedule": "scaled_linear",
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "prediction_type": "epsilon",
        "timestep_spacing": "leading",
        "steps_offset": 1,
    } | (OWN[kind] | changes)


def stage(kind: str, **changes: Any) -> StageConfig:  # noqa: ANN401 - as diffusers takes it
    """Return the same as the parameters of an image decoder."""
    values = {name: str(value).lower() for name, value in told(kind, **changes).items()}
    return StageConfig("image_decoder", Path(), {"scheduler": kind} | values)


def answer(seen: Array, level: float) -> Array:
    """Predict something that depends on all that a denoiser sees."""
    spoken: Array = np.tanh(seen[:, ::-1] * np.float32(0.7)) + np.float32(level / 2000)
    return spoken.astype(np.float32)


def drawn_by_diffusers(kind: str, steps: int, **changes: Any) -> tuple[list[float], Array]:  # noqa: ANN401
    """Return the times and the end of a drawing as the pipeline of diffusers does it."""
    scheduler = CLASSES[kind](**told(kind, **changes))
    scheduler.set_timesteps(steps)
    latents = torch.from_numpy(noise(3, SHAPE)) * scheduler.init_noise_sigma
    for time in scheduler.timesteps:
        seen = scheduler.scale_model_input(latents, time)
        predicted = torch.from_numpy(answer(seen.numpy(), float(time)))
        latents = scheduler.step(predicted, time, latents, return_dict=False)[0]
    return scheduler.timesteps.tolist(), latents.numpy()


def drawn_here(kind: str, steps: int, **changes: Any) -> tuple[list[float], Array]:  # noqa: ANN401
    """Return the same as the server does it."""
    schedule = schedule_from(stage(kind, **changes))
    solver = schedule.solver(steps)
    latents = noise(3, SHAPE) * np.float32(solver.spread)
    for call, time in enumerate(solver.timesteps):
        predicted = answer(solver.seen(latents, call), time)
        latents = solver.step(latents, predicted, call)
    assert latents.dtype == np.float32
    assert [*schedule.timesteps(steps)] == [*solver.timesteps]
    return [*solver.timesteps], latents


VARIANTS: tuple[dict[str, Any], ...] = (
    {},
    {"prediction_type": "v_prediction"},
    {"timestep_spacing": "trailing"},
    {"timestep_spacing": "linspace", "prediction_type": "v_prediction"},
    {"beta_schedule": "linear", "beta_start": 0.0001, "beta_end": 0.02, "steps_offset": 0},
    {"beta_schedule": "squaredcos_cap_v2", "num_train_timesteps": 400},
)


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 7, 20, 50])
@pytest.mark.parametrize("changes", VARIANTS, ids=str)
@pytest.mark.parametrize("kind", CLASSES)
def test_drawings_are_those_of_diffusers(kind: str, changes: dict[str, Any], steps: int) -> None:
    """For every scheduler, noise schedule, prediction and spacing: the same times and latents."""
    expected_times, expected = drawn_by_diffusers(kind, steps, **changes)
    times, found = drawn_here(kind, steps, **changes)

    assert times == expected_times
    assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("ddim", {"set_alpha_to_one": True}),
        ("pndm", {"set_alpha_to_one": True}),
        ("euler", {"final_sigmas_type": "sigma_min"}),
    ],
)
def test_drawings_end_where_those_of_diffusers_do(kind: str, changes: dict[str, Any]) -> None:
    """The last step goes to the picture itself or to the least noise of the training."""
    _, expected = drawn_by_diffusers(kind, 5, **changes)
    _, found = drawn_here(kind, 5, **changes)

    assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("kind", CLASSES)
def test_more_steps_than_times_are_refused(kind: str) -> None:
    """The message says how many times there are."""
    schedule = schedule_from(stage(kind, num_train_timesteps=10))

    with pytest.raises(InvalidInputError, match=r"steps = 11 .* 10 times .*fewer steps"):
        schedule.timesteps(11)


def test_what_is_not_served_is_named() -> None:
    """A scheduler that the server does not know stops the start."""
    with pytest.raises(ConfigurationError, match=re.escape('scheduler = "unipc" is not one of')):
        schedule_from(StageConfig("image_decoder", Path(), {"scheduler": "unipc"}))
