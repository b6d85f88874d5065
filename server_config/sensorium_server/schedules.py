"""Schedules: at which times a denoiser is asked, and what becomes of its answers.

`CosineSchedule` is that of Sensorium's own decoders: velocities, the continuous time of Salimans
and Ho (2022, appendix D), and the picture clipped at each step. The others give what classes of
diffusers give, at the discrete times that a checkpoint was trained on: `DdimSchedule` what
`DDIMScheduler` gives with η = 0 and without clipping, `PndmSchedule` what `PNDMScheduler` gives
with `skip_prk_steps`, `EulerSchedule` what `EulerDiscreteScheduler` gives.

Papers: Song, Meng and Ermon, "Denoising Diffusion Implicit Models" (2021); Liu et al., "Pseudo
Numerical Methods for Diffusion Models" (2022); Karras et al., "Elucidating the Design Space of
Diffusion-Based Generative Models" (2022), algorithm 1 in the variance-exploding frame.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from sensorium.errors import InvalidInputError
from sensorium_server.stages import StageConfig

Array = NDArray[np.float32]

BETA_SCHEDULES = ("linear", "scaled_linear", "squaredcos_cap_v2")
SPACINGS = ("leading", "trailing", "linspace")
PREDICTIONS = ("epsilon", "v_prediction")
FINAL_SIGMAS = ("zero", "sigma_min")

_MOST_BETA = 0.999
_COSINE_SHIFT = 0.008


class Solver(Protocol):
    """One drawing's way from noise to a picture; it remembers what it has seen."""

    @property
    def timesteps(self) -> Sequence[float]:
        """What the denoiser is told at each call."""

    @property
    def spread(self) -> float:
        """The standard deviation of the noise to start from."""

    def seen(self, noisy: Array, call: int) -> Array:
        """Return what the denoiser sees of the noisy pictures."""

    def step(self, noisy: Array, predicted: Array, call: int) -> Array:
        """Return less noisy pictures."""


class Schedule(Protocol):
    """How a checkpoint was taught to remove noise."""

    def timesteps(self, steps: int) -> Sequence[float]:
        """Return what the denoiser is told at each call, for so many steps.

        Raises:
            InvalidInputError: there are not so many times.
        """

    def solver(self, steps: int) -> Solver:
        """Begin a drawing in so many steps."""


@dataclass(frozen=True, slots=True)
class CosineSchedule:
    """α = cos(πt/2) and σ = sin(πt/2) at times t from 1 down."""

    def timesteps(self, steps: int) -> list[float]:
        """Return evenly spaced times."""
        return [1 - step / steps for step in range(steps)]

    def solver(self, steps: int) -> Solver:
        """Begin."""
        return _Cosine(self.timesteps(steps), steps)


class _Cosine:
    spread = 1.0

    def __init__(self, timesteps: Sequence[float], steps: int) -> None:
        self.timesteps = timesteps
        self._steps = steps

    def seen(self, noisy: Array, call: int) -> Array:
        del call
        return noisy

    def step(self, noisy: Array, predicted: Array, call: int) -> Array:
        level = self.timesteps[call]
        alpha, sigma = _cosine(level)
        clean = np.clip(alpha * noisy - sigma * predicted, -1, 1)
        remaining = (noisy - alpha * clean) / sigma
        alpha, sigma = _cosine(max(level - 1 / self._steps, 0.0))
        return alpha * clean + sigma * remaining


def _cosine(level: float) -> tuple[np.float32, np.float32]:
    """Return α and σ."""
    angle = level * math.pi / 2
    return np.float32(math.cos(angle)), np.float32(math.sin(angle))


@dataclass(frozen=True, slots=True)
class Training:
    """The noise that a denoiser was trained on, and what it predicts; named as diffusers does."""

    num_train_timesteps: int
    beta_schedule: str
    beta_start: float
    beta_end: float
    prediction_type: str
    timestep_spacing: str
    steps_offset: int

    def alphas(self) -> NDArray[np.float64]:
        """Return the part of the signal's variance at each time: the products of 1 - β."""
        betas = self._betas().astype(np.float32)
        # Rounded as diffusers has them: near the picture, what is left of 1 is sensitive to it.
        rounded = np.cumprod((1 - betas).astype(np.float64)).astype(np.float32)
        return rounded.astype(np.float64)

    def _betas(self) -> NDArray[np.float64]:
        count = self.num_train_timesteps
        if self.beta_schedule == "squaredcos_cap_v2":
            at = np.arange(count + 1) / count
            kept = np.cos((at + _COSINE_SHIFT) / (1 + _COSINE_SHIFT) * math.pi / 2) ** 2
            capped: NDArray[np.float64] = np.minimum(1 - kept[1:] / kept[:-1], _MOST_BETA)
            return capped
        power = 2 if self.beta_schedule == "scaled_linear" else 1
        roots = np.linspace(self.beta_start ** (1 / power), self.beta_end ** (1 / power), count)
        squared: NDArray[np.float64] = roots**power
        return squared

    def times(self, steps: int, *, whole: bool = True) -> NDArray[np.float64]:
        """Return so many times, the noisiest first, whole numbers or not.

        Raises:
            InvalidInputError: it was not trained on so many.
        """
        count = self.num_train_timesteps
        times: NDArray[Any]
        if self.timestep_spacing == "linspace":
            times = np.linspace(0, count - 1, steps)[::-1]
            times = np.round(times) if whole else times
        elif self.timestep_spacing == "trailing":
            times = np.round(np.arange(count, 0, -count / steps)) - 1
        else:
            times = (np.arange(steps) * (count // steps))[::-1] + self.steps_offset
        if steps > count or times.max() >= count:
            raise InvalidInputError(
                f"steps = {steps} is more than the model's schedule of {count} times has room for. "
                f"Send fewer steps."
            )
        return times.astype(np.float64)


@dataclass(frozen=True, slots=True)
class DdimSchedule:
    """DDIM without noise of its own; `set_alpha_to_one` says where the last step ends."""

    training: Training
    set_alpha_to_one: bool

    def timesteps(self, steps: int) -> list[float]:
        """Return the times as the checkpoint spaces them."""
        return [float(time) for time in self.training.times(steps)]

    def solver(self, steps: int) -> Solver:
        """Begin."""
        return _Ddim(self, steps)


class _Discrete:
    """What DDIM and PNDM share: signal and noise at a time, and before the first one."""

    spread = 1.0

    def __init__(self, schedule: "DdimSchedule | PndmSchedule", steps: int) -> None:
        self.timesteps = schedule.timesteps(steps)
        self._training = schedule.training
        self._alphas = schedule.training.alphas()
        self._last = 1.0 if schedule.set_alpha_to_one else float(self._alphas[0])
        self._stride = schedule.training.num_train_timesteps // steps

    def seen(self, noisy: Array, call: int) -> Array:
        del call
        return noisy

    def _alpha(self, time: float) -> float:
        return float(self._alphas[int(time)]) if time >= 0 else self._last

    def _noise_in(self, noisy: Array, predicted: Array, alpha: float) -> Array:
        """Return the noise that a prediction stands for."""
        if self._training.prediction_type == "epsilon":
            return predicted
        return _f32(math.sqrt(alpha)) * predicted + _f32(math.sqrt(1 - alpha)) * noisy


class _Ddim(_Discrete):
    def step(self, noisy: Array, predicted: Array, call: int) -> Array:
        time = self.timesteps[call]
        alpha, then = self._alpha(time), self._alpha(time - self._stride)
        signal, scatter = _f32(math.sqrt(alpha)), _f32(math.sqrt(1 - alpha))
        noise = self._noise_in(noisy, predicted, alpha)
        if self._training.prediction_type == "epsilon":
            clean = (noisy - scatter * predicted) / signal
        else:
            clean = signal * noisy - scatter * predicted
        return _f32(math.sqrt(then)) * clean + _f32(math.sqrt(1 - then)) * noise


@dataclass(frozen=True, slots=True)
class PndmSchedule:
    """PNDM without Runge-Kutta steps: each step looks back at up to three predictions."""

    training: Training
    set_alpha_to_one: bool

    def timesteps(self, steps: int) -> list[float]:
        """Return the times as the checkpoint spaces them; the second is asked about twice."""
        times = [float(time) for time in self.training.times(steps)]
        return [*times[:1], *times[1:2], *times[1:]]

    def solver(self, steps: int) -> Solver:
        """Begin."""
        return _Pndm(self, steps)


class _Pndm(_Discrete):
    def __init__(self, schedule: PndmSchedule, steps: int) -> None:
        super().__init__(schedule, steps)
        self._predictions: list[Array] = []
        self._first: Array | None = None

    def step(self, noisy: Array, predicted: Array, call: int) -> Array:
        time = self.timesteps[call]
        then = time - self._stride
        if call == 1 and self._first is not None:
            # The first step once more, by the mean of the predictions at both of its ends.
            noisy, time, then = self._first, time + self._stride, time
            mean = (predicted + self._predictions[-1]) / 2
            return self._moved(noisy, mean, self._alpha(time), self._alpha(then))
        self._first = noisy if call == 0 else None
        self._predictions = [*self._predictions[-3:], predicted]
        weights = _ADAMS_BASHFORTH[len(self._predictions) - 1]
        mean = sum(
            (
                _f32(weight) * one
                for weight, one in zip(weights, reversed(self._predictions), strict=True)
            ),
            start=np.zeros_like(noisy),
        )
        return self._moved(noisy, mean, self._alpha(time), self._alpha(then))

    def _moved(self, noisy: Array, predicted: Array, alpha: float, then: float) -> Array:
        """Return equation 9 of the paper."""
        noise = self._noise_in(noisy, predicted, alpha)
        below = alpha * math.sqrt(1 - then) + math.sqrt(alpha * (1 - alpha) * then)
        return _f32(math.sqrt(then / alpha)) * noisy - _f32((then - alpha) / below) * noise


_ADAMS_BASHFORTH = (
    (1.0,),
    (3 / 2, -1 / 2),
    (23 / 12, -16 / 12, 5 / 12),
    (55 / 24, -59 / 24, 37 / 24, -9 / 24),
)
"""How the latest predictions are weighed, the last one first."""


@dataclass(frozen=True, slots=True)
class EulerSchedule:
    """Euler's method on noise that is added, not mixed in; `final_sigmas_type` is where it ends."""

    training: Training
    final_sigmas_type: str

    def timesteps(self, steps: int) -> list[float]:
        """Return the times as the checkpoint spaces them; with `linspace` they are not whole."""
        return [float(_f32(time)) for time in self.training.times(steps, whole=False)]

    def solver(self, steps: int) -> Solver:
        """Begin."""
        return _Euler(self, steps)


class _Euler:
    def __init__(self, schedule: EulerSchedule, steps: int) -> None:
        self.timesteps = schedule.timesteps(steps)
        self._prediction = schedule.training.prediction_type
        alphas = schedule.training.alphas()
        known = np.sqrt((1 - alphas) / alphas)
        sigmas = np.interp(self.timesteps, np.arange(len(known)), known)
        last = 0.0 if schedule.final_sigmas_type == "zero" else float(known[0])
        self._sigmas = [*map(float, sigmas), last]
        most = max(self._sigmas)
        leads = schedule.training.timestep_spacing == "leading"
        self.spread = math.hypot(most, 1) if leads else most

    def seen(self, noisy: Array, call: int) -> Array:
        return noisy / _f32(math.hypot(self._sigmas[call], 1))

    def step(self, noisy: Array, predicted: Array, call: int) -> Array:
        sigma, then = self._sigmas[call : call + 2]
        if self._prediction == "epsilon":
            slope = predicted
        else:
            clean = _f32(1 / (sigma**2 + 1)) * noisy
            clean -= _f32(sigma / math.hypot(sigma, 1)) * predicted
            slope = (noisy - clean) / _f32(sigma)
        return noisy + slope * _f32(then - sigma)


def _f32(value: float) -> np.float32:
    return np.float32(value)


def schedule_from(config: StageConfig) -> Schedule:
    """Return the schedule that a model's parameters name; `cosine` when they name none."""
    kind = config.choice("scheduler", ("cosine", "ddim", "pndm", "euler"), "cosine")
    if kind == "cosine":
        return CosineSchedule()
    training = Training(
        num_train_timesteps=config.integer("num_train_timesteps"),
        beta_schedule=config.choice("beta_schedule", BETA_SCHEDULES),
        beta_start=config.numbers("beta_start")[0],
        beta_end=config.numbers("beta_end")[0],
        prediction_type=config.choice("prediction_type", PREDICTIONS),
        timestep_spacing=config.choice("timestep_spacing", SPACINGS),
        steps_offset=config.integer("steps_offset"),
    )
    if kind == "euler":
        return EulerSchedule(training, config.choice("final_sigmas_type", FINAL_SIGMAS))
    to_one = config.choice("set_alpha_to_one", ("true", "false")) == "true"
    return DdimSchedule(training, to_one) if kind == "ddim" else PndmSchedule(training, to_one)
