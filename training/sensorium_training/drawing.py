"""The drawing stage: a text's layout from dense labels, then pictures of it out of noise.

    python -m sensorium_training.drawing --minutes 70

The text encoder is fixed: it is read from a checkpoint. When it has learned on since,
`--tune-condition` fits the layout to its new tokens and leaves the rest.
"""

import argparse
import math
import time
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from sensorium_export.models import ModelConfig
from sensorium_export.models.diffusion import DiffusionImageDecoder
from sensorium_training.crowd import crowd_layout, draw_crowd
from sensorium_training.dataset import batches, pixels, scenes
from sensorium_training.journal import Journal
from sensorium_training.layout import LayoutHeads, Prompt, prompt
from sensorium_training.reading import MatchPlan, Reader, match_condition, reader_from
from sensorium_training.vision import pixel_values
from sensorium_training.world.scene import Scene, draw_scene

WEIGHTS_FILE = "drawing.safetensors"
TUNED_FILE = "drawing-tuned.safetensors"
STATE_FILE = "drawing.pt"


@dataclass(frozen=True, slots=True)
class DrawingPlan:
    """How long and how fast the drawing stage learns; minutes are CPU time.

    Of the `batch` pictures of a step, `crowds` are crowded ones, drawn afresh: see `crowd.py`.
    """

    minutes: float = 70.0
    batch: int = 48
    crowds: int = 0
    learning_rate: float = 1.2e-3
    weight_decay: float = 0.01
    reading_steps: int = 1500
    reading_batch: int = 128
    reading_rate: float = 3e-3
    layout_weight: float = 0.05
    unconditional: float = 0.1
    warm_up: int = 300
    averaged_steps: int = 1000
    save_every: int = 250
    report_every: int = 50


def noised(clean: Tensor, noise: Tensor, level: Tensor) -> tuple[Tensor, Tensor]:
    """Return z = α·x + σ·ε and v = α·ε − σ·x with α = cos(πt/2), σ = sin(πt/2).

    Salimans and Ho (2022), appendix D.
    """
    angle = (level * (math.pi / 2))[:, None, None, None]
    alpha, sigma = angle.cos(), angle.sin()
    return alpha * clean + sigma * noise, alpha * noise - sigma * clean


def noise_levels(count: int) -> Tensor:
    """Return times in (0, 1), spread evenly in logit-normal probability.

    The middle is where shapes appear: Esser et al., "Scaling Rectified Flow Transformers" (2024),
    section 3.1.
    """
    even = (torch.arange(count) + torch.rand(count)) / count
    return torch.special.ndtri(even.clamp(1e-4, 1 - 1e-4)).mul(1.2).sigmoid()


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
    """The decoder, its training-only heads, their optimiser: all that a resumed run needs."""

    decoder: DiffusionImageDecoder
    reader: Reader
    plan: DrawingPlan
    step: int = 0
    minutes: float = 0.0
    heads: LayoutHeads = field(init=False)
    average: Average = field(init=False)
    optimizer: torch.optim.AdamW = field(init=False)

    def __post_init__(self) -> None:
        """Make the parts that are only for training."""
        self.heads = LayoutHeads(self.decoder.config.width)
        self.decoder.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.average = Average(self.decoder, self.plan.averaged_steps)
        self.optimizer = torch.optim.AdamW(
            [*self.decoder.parameters(), *self.heads.parameters()],
            self.plan.learning_rate,
            weight_decay=self.plan.weight_decay,
            betas=(0.9, 0.98),
        )

    def layout_loss(
        self, prompts: list[Prompt], *, drop: float
    ) -> tuple[Tensor, Tensor, dict[str, float]]:
        """Return the layouts of some texts, a part of them dropped, and the labels' loss."""
        tokens, mask = self.reader.tokens([one.words for one in prompts])
        layout = self.decoder.condition(tokens, mask)
        loss, accuracy = self.heads.loss(layout, prompts)
        dropped = (torch.rand(len(layout)) < drop)[:, None, None]
        return torch.where(dropped, self.decoder.layout.unconditional, layout), loss, accuracy

    def picture_loss(self, clean: Tensor, layout: Tensor) -> Tensor:
        """Return the mean squared error of the velocity."""
        level = noise_levels(len(clean))
        noisy, velocity = noised(clean, torch.randn_like(clean), level)
        guess = self.decoder.denoise(noisy, level, layout)
        return (guess - velocity).square().mean()

    def descend(self, loss: Tensor, rate: float) -> None:
        """Take one optimiser step."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad()
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(
            [p for group in self.optimizer.param_groups for p in group["params"]], 1.0
        )
        self.optimizer.step()

    def save(self, cache: Path) -> None:
        """Write the averaged weights for use, and everything for resuming."""
        weights = {k: v.contiguous() for k, v in self.average.module.state_dict().items()}
        save_file(weights, cache / f"{WEIGHTS_FILE}.partial")
        (cache / f"{WEIGHTS_FILE}.partial").replace(cache / WEIGHTS_FILE)
        state = {
            "decoder": self.decoder.state_dict(),
            "heads": self.heads.state_dict(),
            "average": self.average.module.state_dict(),
            "averaged": self.average.count,
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "minutes": self.minutes,
        }
        torch.save(state, cache / f"{STATE_FILE}.partial")
        (cache / f"{STATE_FILE}.partial").replace(cache / STATE_FILE)

    def resume(self, cache: Path) -> None:
        """Go on from what `save` wrote, if anything."""
        if not (cache / STATE_FILE).exists():
            return
        state: dict[str, Any] = torch.load(cache / STATE_FILE)
        self.decoder.load_state_dict(state["decoder"])
        self.heads.load_state_dict(state["heads"])
        self.average.module.load_state_dict(state["average"])
        self.average.count = state["averaged"]
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.minutes = state["step"], state["minutes"]


def read(drawing: Drawing, rng: np.random.Generator, journal: Journal) -> None:
    """Teach the layout from texts alone: no pictures, so this is quick."""
    plan = drawing.plan
    for step in range(1, plan.reading_steps + 1):
        prompts = [prompt(rng, draw_scene(rng)) for _ in range(plan.reading_batch)]
        _, loss, accuracy = drawing.layout_loss(prompts, drop=0)
        drawing.descend(loss, cosine(step / plan.reading_steps, 0.05) * plan.reading_rate)
        if step % plan.report_every == 0:
            journal.report(step, layout_loss=float(loss.detach()), **accuracy)


def cosine(done: float, warm_up: float) -> float:
    """Return the learning rate's factor: up in a line, down in half a cosine wave."""
    if done < warm_up:
        return done / warm_up
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (done - warm_up) / (1 - warm_up))))


@dataclass(frozen=True, slots=True)
class Material:
    """Pictures and the scenes that they show."""

    pictures: NDArray[np.uint8]
    scenes: list[Scene]

    def batches(self, size: int, rng: np.random.Generator) -> Iterator[tuple[Tensor, list[Prompt]]]:
        """Yield normalised pictures and a text for each, for ever."""
        for index in batches(len(self.pictures), size, rng):
            index.sort()
            texts = [prompt(rng, self.scenes[i]) for i in index]
            yield pixel_values(self.pictures[index]), texts


def with_crowds(
    drawing: Drawing, clean: Tensor, layout: Tensor, rng: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """Return pictures and layouts with as many crowded ones added as the plan says."""
    if not drawing.plan.crowds:
        return clean, layout
    crowds = [draw_crowd(rng) for _ in range(drawing.plan.crowds)]
    drawn = np.stack([crowd.picture(rng, clean.shape[-1]) for crowd in crowds])
    layouts = crowd_layout(drawing.decoder, drawing.reader, crowds)
    return torch.cat([clean, pixel_values(drawn)]), torch.cat([layout, layouts])


def draw(
    drawing: Drawing,
    material: Material,
    rng: np.random.Generator,
    journal: Journal,
    save: Callable[[], None],
) -> None:
    """Teach the denoiser, and go on teaching the layout, until the plan's minutes are over."""
    plan, begun, before = drawing.plan, time.process_time(), drawing.minutes
    sums: dict[str, float] = {}
    for clean, prompts in material.batches(plan.batch - plan.crowds, rng):
        drawing.step += 1
        layout, layout_loss, accuracy = drawing.layout_loss(prompts, drop=plan.unconditional)
        picture_loss = drawing.picture_loss(*with_crowds(drawing, clean, layout, rng))
        done = drawing.minutes / plan.minutes
        rate = cosine(done, 0.0) * min(1.0, drawing.step / plan.warm_up) * plan.learning_rate
        drawing.descend(picture_loss + plan.layout_weight * layout_loss, rate)
        drawing.average.update(drawing.decoder)
        drawing.minutes = before + (time.process_time() - begun) / 60
        report = {"picture_loss": float(picture_loss.detach()), **accuracy}
        for name, value in report.items():
            sums[name] = sums.get(name, 0.0) + value / plan.report_every
        if drawing.step % plan.report_every == 0:
            journal.report(drawing.step, minutes=drawing.minutes, **sums)
            sums = {}
        if drawing.step % plan.save_every == 0:
            save()
        if drawing.minutes >= plan.minutes:
            break
    save()


def train_drawing(source: Path, cache: Path, pictures: int, plan: DrawingPlan) -> None:
    """Train for the plan's minutes, going on from what `cache` holds."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    reader, loaded = reader_from(source)
    drawing = Drawing(DiffusionImageDecoder(loaded.model.config), reader, plan)
    drawing.resume(cache)
    rng = np.random.default_rng([13, drawing.step])
    journal = Journal(cache / "drawing.jsonl", "drawing", 1)
    if drawing.step == 0:
        read(drawing, rng, Journal(journal.path, "reading", 1))
        drawing.save(cache)
    size = loaded.model.config.image_size
    material = Material(pixels("train", pictures, size, cache), scenes("train", pictures))
    draw(drawing, material, rng, journal, lambda: drawing.save(cache))


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
    save_file({k: v.contiguous() for k, v in decoder.state_dict().items()}, cache / TUNED_FILE)
    Journal(cache / "drawing.jsonl", "condition", 1).report(plan.steps, error=errors[-1])


def main() -> None:
    """Train, or fit the condition, as the command line says."""
    plan = DrawingPlan()
    parser = argparse.ArgumentParser(
        prog="python -m sensorium_training.drawing",
        description="Train the image decoder on the fixed text encoder of a checkpoint. "
        "Example: python -m sensorium_training.drawing --minutes 70",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--checkpoint", type=Path, default=Path("checkpoints/playroom"))
    parser.add_argument("--cache", type=Path, default=Path(".cache/training"))
    parser.add_argument("--pictures", type=int, default=80_000, help="training pictures to draw")
    parser.add_argument("--minutes", type=float, default=plan.minutes, help="CPU time")
    parser.add_argument("--batch", type=int, default=plan.batch, help="pictures a step")
    parser.add_argument(
        "--crowds", type=int, default=plan.crowds, help="crowded pictures among them"
    )
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
    train_drawing(given.checkpoint, given.cache, given.pictures, DrawingPlan(minutes=given.minutes))


if __name__ == "__main__":
    main()
