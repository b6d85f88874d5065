"""The fixed text encoder that drawing reads by, and how to change it for another.

A text encoder that has learned on gives other tokens for the same words. `match_condition` fits
the layout to them until it says what it said before; the denoiser never notices.
"""

from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor, nn

from sensorium_export import checkpoint
from sensorium_export.models.diffusion import DiffusionImageDecoder
from sensorium_export.models.text_encoder import TextEncoder
from sensorium_training.examples import Words
from sensorium_training.layout import prompt
from sensorium_training.world.scene import draw_scene


@dataclass(frozen=True, slots=True)
class Reader:
    """A fixed text encoder and its vocabulary."""

    encoder: TextEncoder
    words: Words

    @torch.no_grad()
    def tokens(self, texts: list[list[str]]) -> tuple[Tensor, Tensor]:
        """Return text_tokens and attention_mask of lists of words."""
        input_ids, mask = self.words.texts(texts)
        return self.encoder.tokens(input_ids, mask), mask


def reader_from(path: Path) -> tuple[Reader, checkpoint.Checkpoint]:
    """Return the text encoder of the checkpoint in `path`, and the checkpoint."""
    loaded = checkpoint.load(path)
    ids = Tokenizer.from_file(str(loaded.tokenizer_path)).get_vocab()
    return Reader(loaded.model.text_encoder, Words(ids)), loaded


@dataclass(frozen=True, slots=True)
class MatchPlan:
    """How long and how fast the layout learns the new tokens."""

    steps: int = 600
    batch: int = 64
    learning_rate: float = 1.5e-3


def match_condition(
    old: Reader, new: Reader, decoder: DiffusionImageDecoder, plan: MatchPlan
) -> list[float]:
    """Fit the decoder's layout in place: from new tokens, what it made of the old ones.

    This is distillation of the decoder's own layout, by the mean squared error over texts of every
    kind. The condition of no text stays as it is.

    Returns:
        The error of each step, as a share of the condition's variance.
    """
    torch.manual_seed(0)
    rng = np.random.default_rng(17)
    teacher = deepcopy(decoder).eval().requires_grad_(requires_grad=False)
    learner = [*decoder.layout.blocks.parameters(), *decoder.layout.norm.parameters()]
    learner.append(decoder.layout.queries)
    optimizer = torch.optim.AdamW(learner, plan.learning_rate, weight_decay=0.0, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, plan.learning_rate, plan.steps, pct_start=0.1
    )
    errors = []
    for _ in range(plan.steps):
        texts = [prompt(rng, draw_scene(rng)).words for _ in range(plan.batch)]
        wanted = teacher.condition(*old.tokens(texts))
        error = (decoder.condition(*new.tokens(texts)) - wanted).square().mean() / wanted.var()
        optimizer.zero_grad()
        torch.autograd.backward(error)
        nn.utils.clip_grad_norm_(learner, 1.0)
        optimizer.step()
        schedule.step()
        errors.append(float(error.detach()))
    return errors
