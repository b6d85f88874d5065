"""What drawing learns from: ordinary and crowded pictures, each with the layouts of its texts.

The layout is learned before and stays as it is, so that it is worked out once for all steps.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sensorium_export.models.diffusion import DiffusionImageDecoder
from sensorium_training.crowd import crowd_layout, draw_crowd
from sensorium_training.dataset import pixels, scenes
from sensorium_training.layout import prompt
from sensorium_training.reading import Reader
from sensorium_training.vision import pixel_values

_TEXTS = 2
_AT_ONCE = 100


@dataclass(frozen=True, slots=True)
class Amount:
    """How many pictures to learn from; things are dense in crowded ones, see `crowd.py`."""

    pictures: int = 12_000
    crowds: int = 24_000


@dataclass(frozen=True, slots=True)
class Material:
    """Pictures, and for each the layouts of some texts that describe it.

    Attributes:
        pictures: uint8, [pictures, side, side, 3].
        layouts: float16, [texts, pictures, layout, width].
    """

    pictures: Tensor
    layouts: Tensor

    def batch(self, size: int) -> tuple[Tensor, Tensor]:
        """Return some pictures, normalised, and a layout of each, by torch's own generator."""
        chosen = torch.randint(len(self.pictures), (size,))
        text = torch.randint(len(self.layouts), (size,))
        return pixel_values(self.pictures[chosen].numpy()), self.layouts[text, chosen].float()


def material(
    decoder: DiffusionImageDecoder,
    reader: Reader,
    amount: Amount,
    cache: Path,
    rng: np.random.Generator,
) -> Material:
    """Draw crowds, read pictures from `cache`, and read texts of all of them."""
    side = decoder.config.image_size
    crowds = [draw_crowd(rng) for _ in range(amount.crowds)]
    ordinary = scenes("train", amount.pictures)

    @torch.no_grad()
    def of_scenes(start: int) -> Tensor:
        texts = [prompt(rng, scene).words for scene in ordinary[start : start + _AT_ONCE]]
        return decoder.condition(*reader.tokens(texts))

    def of_crowds(start: int) -> Tensor:
        return crowd_layout(decoder, reader, crowds[start : start + _AT_ONCE])

    texts = [
        torch.cat([*_chunks(of_crowds, len(crowds)), *_chunks(of_scenes, len(ordinary))])
        for _ in range(_TEXTS)
    ]
    drawn = [crowd.picture(rng, side) for crowd in crowds]
    shown = np.concatenate([drawn, pixels("train", amount.pictures, side, cache)])
    return Material(torch.from_numpy(shown), torch.stack(texts))


def _chunks(layouts: Callable[[int], Tensor], count: int) -> Iterator[Tensor]:
    for start in range(0, count, _AT_ONCE):
        yield layouts(start).half()
