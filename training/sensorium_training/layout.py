"""What a text says of each zone: prompts, dense labels, and the loss that teaches the layout.

Without this the decoder must learn from pixels alone which words belong to which zone. The heads
that read the labels off the layout are thrown away after training.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from sensorium_training.world.caption import caption, search_text
from sensorium_training.world.phrase import words_from_filter
from sensorium_training.world.scene import (
    BACKGROUNDS,
    COLORS,
    SHAPES,
    SIZES,
    TEXTURES,
    ZONES,
    Scene,
)

ZONE_CLASSES = {
    "presence": 2,
    "shape": len(SHAPES),
    "color": len(COLORS),
    "size": len(SIZES),
    "texture": len(TEXTURES),
}
"""What is read off each zone, and how many values it has."""

UNSAID = -100
"""Label of what a text leaves open; `cross_entropy` passes over it."""

_CAPTION_SHARE, _LOOSE_SHARE = 0.5, 0.25
_LEFT_OUT = {"size": 0.3, "color": 0.1, "texture": 0.3, "shape": 0.1}


@dataclass(frozen=True, slots=True)
class Prompt:
    """A text to draw, and what it says.

    Attributes:
        words: the text.
        zones: int64, [zones, attributes] in the order of `ZONE_CLASSES`, or `UNSAID`.
        background: its index, or `UNSAID`.
    """

    words: list[str]
    zones: NDArray[np.int64]
    background: int


def full_prompt(scene: Scene) -> Prompt:
    """Return the scene's caption, which says everything."""
    return Prompt(caption(scene), _labels(scene), scene.background)


def loose_prompt(rng: np.random.Generator, scene: Scene) -> Prompt:
    """Return all things in any order and in freer words, some without all their attributes."""
    zones = _labels(scene)
    words: list[str] = []
    for index in rng.permutation(len(scene.things)):
        thing = scene.things[int(index)]
        wanted = {"zone": thing.zone}
        for column, name in enumerate(ZONE_CLASSES):
            if name == "presence":
                continue
            if rng.random() < _LEFT_OUT[name]:
                zones[thing.zone, column] = UNSAID
            else:
                wanted[name] = getattr(thing, name)
        words += ["and"] if words else []
        words += ["a", *words_from_filter(rng, wanted)[0]]
    words += ["on", "a", BACKGROUNDS[scene.background], "background"]
    return Prompt(words, zones, scene.background)


def prompt(rng: np.random.Generator, scene: Scene) -> Prompt:
    """Return a text of a random kind: a caption, a loose one, or a search text."""
    kind = rng.random()
    if kind < _CAPTION_SHARE:
        return full_prompt(scene)
    if kind < _CAPTION_SHARE + _LOOSE_SHARE:
        return loose_prompt(rng, scene)
    nothing = np.full((len(ZONES), len(ZONE_CLASSES)), UNSAID)
    return Prompt(search_text(rng, scene).words, nothing, UNSAID)


def _labels(scene: Scene) -> NDArray[np.int64]:
    zones = np.full((len(ZONES), len(ZONE_CLASSES)), UNSAID)
    zones[:, 0] = 0
    for thing in scene.things:
        zones[thing.zone] = 1, thing.shape, thing.color, thing.size, thing.texture
    return zones


class LayoutHeads(nn.Module):
    """Linear heads that read attributes off each zone, and the background off the last vector."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.zone = nn.Linear(width, sum(ZONE_CLASSES.values()))
        self.background = nn.Linear(width, len(BACKGROUNDS))

    def loss(self, layout: Tensor, prompts: Sequence[Prompt]) -> tuple[Tensor, dict[str, float]]:
        """Return the loss of all that the prompts say, and each attribute's accuracy.

        Args:
            layout: float, [batch, zones + 1, width].
            prompts: of the same texts.
        """
        zones = torch.from_numpy(np.stack([one.zones for one in prompts]))
        background = torch.tensor([one.background for one in prompts])
        logits = self.zone(layout[:, :-1]).split(list(ZONE_CLASSES.values()), dim=-1)
        pairs = dict(zip(ZONE_CLASSES, zip(logits, zones.unbind(-1), strict=True), strict=True))
        pairs["background"] = (self.background(layout[:, -1]), background)
        loss, accuracy = layout.new_zeros(()), {}
        for name, (guess, truth) in pairs.items():
            said = truth != UNSAID
            total = F.cross_entropy(guess[said], truth[said], reduction="sum")
            loss = loss + total / said.sum().clamp(min=1)
            right = (guess.argmax(-1) == truth)[said]
            accuracy[name] = float(right.float().mean()) if len(right) else 1.0
        return loss, accuracy
