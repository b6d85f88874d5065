"""The backend `diffusion`: pictures from texts, step by step.

A model directory holds `condition.onnx` and `denoise.onnx` (see `contract.DIFFUSION_GRAPHS`), and
`decode.onnx` where latents are denoised (see `contract.LATENT_GRAPHS`). Parameters in
`config.pbtxt`:

| key | meaning | default |
|---|---|---|
| `max_steps` | the most sampling steps of one request | `100` |
| `max_guidance_scale` | the strongest guidance | `20` |
| `intra_op_thread_count` | threads of one run | `1` |
| `scheduler` | `cosine`, `ddim`, `pndm` or `euler`; see `schedules` | `cosine` |
| `num_train_timesteps`, `beta_schedule`, `beta_start`, `beta_end` | its training noise | — |
| `prediction_type`, `timestep_spacing`, `steps_offset` | as in diffusers | — |
| `set_alpha_to_one` (`true`, `false`) | as in diffusers, for `ddim` and `pndm` | — |
| `final_sigmas_type` | as in diffusers, for `euler` | — |

Those without a default belong to all schedulers but `cosine`, which are required to have them.

Inputs `text_tokens` FP32 [n,sequence,width], `attention_mask` INT64 [n,sequence], `seed` and
`steps` INT64 [n,1], `guidance_scale` FP32 [n,1]; output `image` BYTES [n,1], PNG files.

Each row is drawn on its own, from its own seed, so a picture does not depend on what else the
server draws. Hence batching gains nothing: requests of one batch are answered one by one, each as
soon as its pictures are done, and the way to draw more at once is more instances.
"""

import io
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sensorium import contract
from sensorium.errors import (
    ConfigurationError,
    DeadlineExceededError,
    InvalidInputError,
    ServerError,
)
from sensorium_server.device import Device
from sensorium_server.diffusion import Conditions, noise, pixels, sample
from sensorium_server.engine_graph import EngineGraph
from sensorium_server.engine_runs import Engine
from sensorium_server.onnx_session import Graph, OnGpu, OnnxGraph
from sensorium_server.recorder import items_of
from sensorium_server.schedules import Array, Schedule, schedule_from
from sensorium_server.stages import StageConfig, Tensors
from sensorium_server.tensorrt_engine import planned
from sensorium_server.triton import (
    BackendModel,
    Request,
    Response,
    Warn,
    cancelled_check,
    failure,
    response,
    silent,
    tensors_of,
    warn,
)

MAX_SEED = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Limits:
    """The most that one request may ask for."""

    steps: int
    guidance_scale: float


@dataclass(frozen=True, slots=True)
class Wish:
    """How one picture is to be drawn."""

    seed: int
    steps: int
    guidance_scale: float

    def check(self, limits: Limits) -> None:
        """Refuse what cannot be drawn or costs too much.

        Raises:
            InvalidInputError: a value is out of its limits; the message names them.
        """
        if self.seed < 0:
            raise InvalidInputError(
                f"seed = {self.seed} is negative. Send a seed from 0 to {MAX_SEED}."
            )
        if not 1 <= self.steps <= limits.steps:
            raise InvalidInputError(
                f"steps = {self.steps} is not from 1 to {limits.steps}. More steps than 50 hardly "
                f"change the picture; send a number within the limits."
            )
        # NaN is within no limits.
        if not 0 <= self.guidance_scale <= limits.guidance_scale:
            raise InvalidInputError(
                f"guidance_scale = {self.guidance_scale:g} is not from 0 to "
                f"{limits.guidance_scale:g}. Send 1 to follow the text, more to follow it closely."
            )


class Sampler:
    """One loaded model: from a request's tensors to its pictures."""

    def __init__(self, graphs: Mapping[str, Graph], schedule: Schedule, limits: Limits) -> None:
        self._graphs = graphs
        self._schedule = schedule
        self._limits = limits
        *_, length, width = graphs["condition"].inputs[contract.TEXT_TOKENS.name]
        self._shape = tuple(map(_fixed, graphs["denoise"].inputs[contract.NOISY.name][1:]))
        self._length = length if isinstance(length, int) else None
        nothing = np.zeros((1, self._length or 1, _fixed(width)), np.float32)
        self._unconditional = self._condition(nothing, np.zeros(nothing.shape[:2], np.int64))

    def __call__(self, request: Tensors, stopped: Callable[[], bool] = lambda: False) -> Tensors:
        """Draw a picture for each row.

        Args:
            request: The contract's inputs of `image_decoder`.
            stopped: Asked before each step whether anybody still waits.

        Raises:
            InvalidInputError: a value is out of its limits.
            DeadlineExceededError: `stopped` said so.
            ServerError: the model put out numbers that are none.
        """
        tokens = request[contract.TEXT_TOKENS.name]
        mask = request[contract.ATTENTION_MASK.name]
        if mask.shape != tokens.shape[:2]:
            raise InvalidInputError(
                f"attention_mask has the shape {list(mask.shape)}, text_tokens "
                f"{list(tokens.shape)}. Send one mask element per text token."
            )
        wishes = _wishes(request)
        for wish in wishes:
            wish.check(self._limits)
        drawn = [
            [self._draw(tokens[row : row + 1], mask[row : row + 1], wish, stopped)]
            for row, wish in enumerate(wishes)
        ]
        return {contract.IMAGE.name: np.array(drawn, np.object_)}

    def _draw(
        self, tokens: Array, mask: NDArray[np.int64], wish: Wish, stopped: Callable[[], bool]
    ) -> bytes:
        def check() -> None:
            if stopped():
                raise DeadlineExceededError("the deadline passed while the picture was drawn")

        # Without the padding, which would change the order of sums and with it the last bits; but
        # a network that reads its padding gets all of it.
        length = self._length or max(int(mask.sum()), 1)
        text = self._condition(tokens[:, :length], mask[:, :length])
        drawn = sample(
            self._denoise,
            noise(wish.seed, (1, *self._shape)),
            Conditions(text, self._unconditional),
            steps=wish.steps,
            guidance_scale=wish.guidance_scale,
            before_step=check,
            schedule=self._schedule,
        )
        if "decode" in self._graphs:
            drawn = self._run("decode", contract.LATENT_GRAPHS["decode"], drawn)
        if not np.isfinite(drawn).all():
            raise ServerError("the image decoder put out NaN or infinity; see its text_tokens")
        return png(pixels(drawn)[0])

    def _condition(self, tokens: Array, mask: NDArray[np.int64]) -> Array:
        return self._run("condition", contract.DIFFUSION_GRAPHS["condition"], tokens, mask)

    def _denoise(self, *arrays: Array) -> Array:
        return self._run("denoise", contract.DIFFUSION_GRAPHS["denoise"], *arrays)

    def _run(self, name: str, signature: contract.Signature, *arrays: NDArray[Any]) -> Array:
        (output,) = signature.outputs
        names = [tensor.name for tensor in signature.inputs]
        inputs = dict(zip(names, arrays, strict=True))
        return self._graphs[name].run([output.name], inputs)[output.name]


def sampler_from(config: StageConfig, *, gpu: int | None = None, warn: Warn = silent) -> Sampler:
    """Load a model directory's graphs; for Triton, and for running in this process.

    Args:
        config: The model's parameters.
        gpu: The number of the GPU to run on, by plans where they may serve; None for the processor.
        warn: Told why there are no plans.
    """
    threads = config.integer("intra_op_thread_count", 1)
    limits = Limits(
        config.integer("max_steps", 100),
        config.numbers("max_guidance_scale")[0]
        if "max_guidance_scale" in config.parameters
        else 20,
    )
    latent = [name for name in contract.LATENT_GRAPHS if _file(config, name).is_file()]
    names = (*contract.DIFFUSION_GRAPHS, *latent)
    if gpu is not None:

        def by_plans(device: Device, engines: Mapping[str, Engine]) -> Sampler:
            compiled = {name: EngineGraph(engines[name], device) for name in names}
            return Sampler(compiled, schedule_from(config), limits)

        if (sampler := planned(config, gpu, warn, by_plans)) is not None:
            return sampler
    on_gpu = None if gpu is None else OnGpu(gpu)
    graphs = {name: OnnxGraph(_file(config, name), threads=threads, gpu=on_gpu) for name in names}
    return Sampler(graphs, schedule_from(config), limits)


def _file(config: StageConfig, name: str) -> Path:
    return config.directory / f"{name}.onnx"


def png(picture: NDArray[np.uint8]) -> bytes:
    """Return a picture [side, side, 3] as the bytes of a PNG file."""
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "PNG")
    return file.getvalue()


def _wishes(request: Tensors) -> list[Wish]:
    names = (contract.SEED.name, contract.STEPS.name, contract.GUIDANCE_SCALE.name)
    columns = (request[name].ravel().tolist() for name in names)
    return [Wish(*row) for row in zip(*columns, strict=True)]


def _fixed(axis: int | str | None) -> int:
    if not isinstance(axis, int):
        raise ConfigurationError(
            f"the graphs of the image decoder leave the axis {axis!r} open; it must be a number. "
            f"Export the bundle again."
        )
    return axis


class TritonPythonModel(BackendModel):
    """What Triton calls for every model with `backend: "diffusion"`."""

    _sampler: Sampler

    def initialize(self, args: Mapping[str, str]) -> None:
        """Load the graphs; the unconditional layout is computed here and warms one of them up."""
        instance = self._begin(args)
        self._sampler = sampler_from(instance.config, gpu=instance.gpu, warn=warn)

    def execute(self, requests: Sequence[Request]) -> None:
        """Answer the requests one after the other."""
        import triton_python_backend_utils as pb  # noqa: PLC0415 - see sensorium_server.triton

        for request in requests:
            request.get_response_sender().send(
                self._answer(request), flags=pb.TRITONSERVER_RESPONSE_COMPLETE_FINAL
            )

    def _answer(self, request: Request) -> Response:
        begin = time.monotonic()
        try:
            tensors = tensors_of(request, self._inputs)
            with self._recorder.run(items_of(tensors)):
                drawn = self._sampler(tensors, cancelled_check(request))
            return response(drawn, request)
        except Exception as error:  # noqa: BLE001 - nothing may reach Triton raw: it leaks paths
            return failure(error, request, self._recorder, begin)
