"""The drawing stage: a text's layout from dense labels, then pictures of it out of noise.

    python -m sensorium_training.drawing --minutes 60

The text encoder is fixed: it is read from a checkpoint. When it has learned on since,
`--tune-condition` fits the layout to its new tokens and leaves the rest.
"""

import argparse
import math
import time
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from sensorium_export.models import ModelConfig
from sensorium_export.models.diffusion import DiffusionImageDecoder
from sensorium_training.drawing_material import Amount, Material, material
from sensorium_training.journal import Journal
from sensorium_training.layout import LayoutHeads, prompt
from sensorium_training.reading import MatchPlan, Reader, match_condition, reader_from
from sensorium_training.world.scene import draw_scene

WEIGHTS_FILE = "drawing.safetensors"
TUNED_FILE = "drawing-tuned.safetensors"
STATE_FILE = "drawing.pt"
_LEVEL_MEAN, _LEVEL_SPREAD = 0.7, 1.2


@dataclass(frozen=True, slots=True)
class DrawingPlan:
    """How long and how fast the drawing stage learns; minutes are CPU time."""

    minutes: float = 60.0
    batch: int = 32
    learning_rate: float = 2e-3
    weight_decay: float = 0.01
    reading_steps: int = 1500
    reading_batch: int = 128
    reading_rate: float = 3e-3
    unconditional: float = 0.1
    warm_up: int = 200
    averaged_steps: int = 1000
    save_every: int = 2000
    report_every: int = 200


def noised(clean: Tensor, noise: Tensor, level: Tensor) -> tuple[Tensor, Tensor]:
    """Return z = α·x + σ·ε and v = α·ε − σ·x with α = cos(πt/2), σ = sin(πt/2).

    Salimans and Ho (2022), appendix D.
    """
    angle = (level * (math.pi / 2))[:, None, None, None]
    alpha, sigma = angle.cos(), angle.sin()
    return alpha * clean + sigma * noise, alpha * noise - sigma * clean


def noise_levels(count: int) -> Tensor:
    """Return times in (0, 1), spread evenly in logit-normal probability.

    Most lie where shapes and textures appear: Esser et al., "Scaling Rectified Flow Transformers"
    (2024), section 3.1.
    """
    even = (torch.arange(count) + torch.rand(count)) / count
    normal = torch.special.ndtri(even.clamp(1e-4, 1 - 1e-4))
    return (normal * _LEVEL_SPREAD + _LEVEL_MEAN).sigmoid()


class Average:
    """The exponential moving average of a module's weights, right from the first step."""

    def __init__(self, module: nn.Module, steps: int) -> None:
        self.module = deepcopy(module).eval().requires_grad_(requires_grad=False)
        self.steps = steps
        self.count = 0

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        """Move a little towards `module`."""
        self.count += 1
        share = 1 / min(self.steps, 1 + self.count / 10)
        for mean, now in zip(self.module.parameters(), module.parameters(), strict=True):
            mean.lerp_(now, share)


@dataclass
class Drawing:
    """The decoder and its optimiser: all that a resumed run needs. The layout is learned before."""

    decoder: DiffusionImageDecoder
    plan: DrawingPlan
    step: int = 0
    minutes: float = 0.0
    average: Average = field(init=False)
    optimizer: torch.optim.AdamW = field(init=False)

    def __post_init__(self) -> None:
        """Make the parts that are only for training."""
        self.decoder.layout.requires_grad_(requires_grad=False)
        self.average = Average(self.decoder, self.plan.averaged_steps)
        self.optimizer = optimizer_of(self.learner, self.plan)

    @property
    def learner(self) -> list[nn.Parameter]:
        """The weights that learn from pictures."""
        return [weight for weight in self.decoder.parameters() if weight.requires_grad]

    def picture_loss(self, clean: Tensor, layout: Tensor) -> Tensor:
        """Return the mean squared error of the velocity, some layouts being dropped."""
        dropped = (torch.rand(len(layout)) < self.plan.unconditional)[:, None, None]
        layout = torch.where(dropped, self.decoder.layout.unconditional, layout)
        level = noise_levels(len(clean))
        noisy, velocity = noised(clean, torch.randn_like(clean), level)
        return (self.decoder.denoise(noisy, level, layout) - velocity).square().mean()

    def learn(self, clean: Tensor, layout: Tensor) -> float:
        """Take one step, at the rate that the plan has for now; return the loss."""
        self.step += 1
        loss = self.picture_loss(clean, layout)
        warm = min(1.0, self.step / self.plan.warm_up)
        rate = warm * cosine(self.minutes / self.plan.minutes, 0.0) * self.plan.learning_rate
        descend(self.optimizer, loss, rate)
        self.average.update(self.decoder)
        return float(loss.detach())

    def save(self, cache: Path) -> None:
        """Write the averaged weights for use, and everything for resuming."""
        save_weights(self.average.module, cache / WEIGHTS_FILE)
        state = {
            "decoder": self.decoder.state_dict(),
            "average": self.average.module.state_dict(),
            "averaged": self.average.count,
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "minutes": self.minutes,
        }
        torch.save(state, cache / f"{STATE_FILE}.partial")
        (cache / f"{STATE_FILE}.partial").replace(cache / STATE_FILE)

    def resume(self, cache: Path) -> None:
        """Go on from what `save` wrote."""
        state: dict[str, Any] = torch.load(cache / STATE_FILE)
        self.decoder.load_state_dict(state["decoder"])
        self.average.module.load_state_dict(state["average"])
        self.average.count = state["averaged"]
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.minutes = state["step"], state["minutes"]


def optimizer_of(weights: list[nn.Parameter], plan: DrawingPlan) -> torch.optim.AdamW:
    """Return the optimiser of some weights."""
    return torch.optim.AdamW(
        weights, plan.learning_rate, weight_decay=plan.weight_decay, betas=(0.9, 0.99)
    )


def descend(optimizer: torch.optim.Optimizer, loss: Tensor, rate: float) -> None:
    """Take one optimiser step."""
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.zero_grad()
    torch.autograd.backward(loss)
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    nn.utils.clip_grad_norm_(weights, 1.0)
    optimizer.step()


def save_weights(module: nn.Module, path: Path) -> None:
    """Write a module's weights, whole or not at all."""
    partial = path.with_name(f"{path.name}.partial")
    save_file({k: v.contiguous() for k, v in module.state_dict().items()}, partial)
    partial.replace(path)


def read(
    decoder: DiffusionImageDecoder,
    reader: Reader,
    plan: DrawingPlan,
    rng: np.random.Generator,
    journal: Journal,
) -> None:
    """Teach the layout from texts alone: no pictures, so this is quick."""
    heads = LayoutHeads(decoder.config.width)
    optimizer = optimizer_of([*decoder.layout.parameters(), *heads.parameters()], plan)
    for step in range(1, plan.reading_steps + 1):
        prompts = [prompt(rng, draw_scene(rng)) for _ in range(plan.reading_batch)]
        layout = decoder.condition(*reader.tokens([one.words for one in prompts]))
        loss, accuracy = heads.loss(layout, prompts)
        descend(optimizer, loss, cosine(step / plan.reading_steps, 0.05) * plan.reading_rate)
        if step % plan.report_every == 0:
            journal.report(step, layout_loss=float(loss.detach()), **accuracy)


def cosine(done: float, warm_up: float) -> float:
    """Return the learning rate's factor: up in a line, down in half a cosine wave."""
    if done < warm_up:
        return done / warm_up
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (done - warm_up) / (1 - warm_up))))


def draw(drawing: Drawing, material: Material, journal: Journal, save: Callable[[], None]) -> None:
    """Teach the denoiser until the plan's minutes are over."""
    plan, begun, before = drawing.plan, time.process_time(), drawing.minutes
    total = 0.0
    while drawing.minutes < plan.minutes:
        total += drawing.learn(*material.batch(plan.batch))
        drawing.minutes = before + (time.process_time() - begun) / 60
        if drawing.step % plan.report_every == 0:
            loss, total = total / plan.report_every, 0.0
            journal.report(drawing.step, minutes=drawing.minutes, picture_loss=loss)
        if drawing.step % plan.save_every == 0:
            save()
    save()


def train_drawing(source: Path, cache: Path, amount: Amount, plan: DrawingPlan) -> None:
    """Train for the plan's minutes, going on from what `cache` holds.

    A checkpoint that draws already gives its layout; else the layout is taught first.
    """
    torch.set_num_threads(1)
    torch.manual_seed(0)
    rng = np.random.default_rng(13)
    reader, loaded = reader_from(source)
    decoder = DiffusionImageDecoder(loaded.model.config)
    path = cache / "drawing.jsonl"
    if loaded.model.config.image_decoder != "none":
        decoder.layout.load_state_dict(loaded.model.image_decoder.layout.state_dict())
    elif not (cache / STATE_FILE).exists():
        read(decoder, reader, plan, rng, Journal(path, "reading", 1))
    drawing = Drawing(decoder, plan)
    if (cache / STATE_FILE).exists():
        drawing.resume(cache)
    shown = material(decoder, reader, amount, cache, rng)
    draw(drawing, shown, Journal(path, "drawing", 1), lambda: drawing.save(cache))


def decoder_from(path: Path, config: ModelConfig) -> DiffusionImageDecoder:
    """Return the decoder whose weights lie in `path`, ready to draw."""
    decoder = DiffusionImageDecoder(config)
    decoder.load_state_dict(load_file(path))
    return decoder.eval()


def tune_condition(source: Path, target: Path, cache: Path) -> None:
    """Fit the trained decoder to the text encoder of another checkpoint; write `TUNED_FILE`."""
    torch.set_num_threads(1)
    old, loaded = reader_from(source)
    decoder = decoder_from(cache / WEIGHTS_FILE, loaded.model.config)
    plan = MatchPlan()
    errors = match_condition(old, reader_from(target)[0], decoder, plan)
    save_weights(decoder, cache / TUNED_FILE)
    Journal(cache / "drawing.jsonl", "condition", 1).report(plan.steps, error=errors[-1])


def main() -> None:
    """Train, or fit the condition, as the command line says."""
    plan, amount = DrawingPlan(), Amount()
    parser = argparse.ArgumentParser(
        prog="python -m sensorium_training.drawing",
        description="Train the image decoder on the fixed text encoder of a checkpoint. "
        "Example: python -m sensorium_training.drawing --minutes 60",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--checkpoint", type=Path, default=Path("checkpoints/playroom"))
    parser.add_argument("--cache", type=Path, default=Path(".cache/training"))
    parser.add_argument("--pictures", type=int, default=amount.pictures, help="ordinary pictures")
    parser.add_argument("--crowds", type=int, default=amount.crowds, help="crowded pictures")
    parser.add_argument("--minutes", type=float, default=plan.minutes, help="CPU time")
    parser.add_argument("--batch", type=int, default=plan.batch, help="pictures a step")
    parser.add_argument(
        "--tune-condition",
        type=Path,
        metavar="CHECKPOINT",
        help=f"do not train: fit {WEIGHTS_FILE} to this checkpoint's text encoder "
        f"and write {TUNED_FILE}",
    )
    given = parser.parse_args()
    if given.tune_condition:
        tune_condition(given.checkpoint, given.tune_condition, given.cache)
        return
    train_drawing(
        given.checkpoint,
        given.cache,
        Amount(given.pictures, given.crowds),
        DrawingPlan(minutes=given.minutes, batch=given.batch),
    )


if __name__ == "__main__":
    main()
