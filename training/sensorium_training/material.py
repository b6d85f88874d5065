"""What language is about: worlds of one modality, and what the fixed network sees in them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sensorium_training.entities import AUDIO, IMAGE, MODALITIES, VIDEO, Entities, entities
from sensorium_training.world.caption import caption, search_text
from sensorium_training.world.clip_caption import clip_caption, clip_search_text
from sensorium_training.world.question import Question
from sensorium_training.world.sound_caption import sound_caption, sound_search_text

Rng = np.random.Generator
Encoded = tuple[Tensor, Tensor, Tensor]
"""Tokens [n, tokens, width], mask [n, tokens] and embedding [n, embedding_dim]."""


class Seen(Protocol):
    """What a fixed network sees in many inputs."""

    def __getitem__(self, index: Tensor, /) -> tuple[Tensor, ...]:
        """Return some inputs as the encoder's `encode` takes them."""


class Describes(Protocol):
    """A partial description of a world, with its words."""

    @property
    def words(self) -> list[str]:
        """What it says."""

    def describes(self, world: Any, /) -> bool:  # noqa: ANN401 - each modality has worlds of its own
        """Return whether it is true of `world`."""


CAPTION: dict[str, Callable[[Any], list[str]]] = {
    IMAGE: caption, VIDEO: clip_caption, AUDIO: sound_caption,
}  # fmt: skip
SEARCH_TEXT: dict[str, Callable[[Rng, Any], Describes]] = {
    IMAGE: search_text, VIDEO: clip_search_text, AUDIO: sound_search_text,
}  # fmt: skip


@dataclass(frozen=True)
class Material:
    """All worlds of one modality; row i of `seen` is what the network sees of world i."""

    modality: str
    worlds: Sequence[Any]
    seen: Seen
    encode: Callable[..., Encoded]
    entities: Entities

    @classmethod
    def of(
        cls, modality: str, worlds: Sequence[Any], seen: Seen, encode: Callable[..., Encoded]
    ) -> "Material":
        """Collect the entities of `worlds` and keep all together."""
        return cls(modality, worlds, seen, encode, entities(modality, worlds))


@dataclass(frozen=True)
class Drawn:
    """Some worlds of one modality, as a step uses them."""

    material: Material
    index: Tensor
    tokens: Tensor
    mask: Tensor
    embedding: Tensor

    def world(self, row: int) -> Any:  # noqa: ANN401 - each modality has worlds of its own
        """Return the world of a row."""
        return self.material.worlds[int(self.index[row])]

    def worlds(self, count: int | None = None) -> list[Any]:
        """Return the worlds of the first `count` rows, or of all."""
        return [self.world(row) for row in range(len(self.index))[:count]]

    @classmethod
    def from_index(cls, material: Material, index: NDArray[np.int64]) -> "Drawn":
        """Encode the worlds `index`."""
        rows = torch.from_numpy(index)
        return cls(material, rows, *material.encode(*material.seen[rows]))


@dataclass(frozen=True, slots=True)
class Posed:
    """A question, and the row of each modality that it is asked about."""

    question: Question
    rows: dict[str, int]


def joined(
    posed: Sequence[Posed], media: dict[str, tuple[Tensor, Tensor]]
) -> tuple[Tensor, Tensor]:
    """Return each question's media tokens and mask, joined as `media_join` does.

    Args:
        posed: questions.
        media: tokens and mask of each modality's rows.

    Returns:
        [questions, media, width] and int64 [questions, media]; what a question lacks is masked.
    """
    tokens, masks = [], []
    for modality in MODALITIES:
        rows = torch.tensor([one.rows.get(modality, -1) for one in posed])
        if (rows < 0).all():
            continue
        all_tokens, all_masks = media[modality]
        has = rows >= 0
        tokens.append(all_tokens[rows.clamp(0)] * has[:, None, None])
        masks.append(all_masks[rows.clamp(0)] * has[:, None])
    return torch.cat(tokens, 1), torch.cat(masks, 1)
