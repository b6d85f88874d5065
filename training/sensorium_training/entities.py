"""What nouns can refer to, as tensors: things in scenes, sounds in recordings, actors in clips."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import torch
from torch import Tensor

from sensorium_training.world.motion import ACTIONS, Clip
from sensorium_training.world.scene import COLORS, MAX_OBJECTS, SHAPES, SIZES, TEXTURES, Scene
from sensorium_training.world.sound import CLIP_S, SOUNDS, SoundScene

IMAGE, VIDEO, AUDIO = MODALITIES = ("image", "video", "audio")
"""In the order in which `media_join` puts their tokens."""

ATTRIBUTES: Mapping[str, Mapping[str, Sequence[str]]] = MappingProxyType(
    {
        IMAGE: {"shape": SHAPES, "color": COLORS, "size": SIZES, "texture": TEXTURES},
        VIDEO: {"shape": SHAPES, "color": COLORS, "size": SIZES, "action": ACTIONS},
        AUDIO: {"kind": SOUNDS},
    }
)
PLACES: Mapping[str, int] = MappingProxyType({IMAGE: 2, VIDEO: 4, AUDIO: 2})
"""Numbers that say where an entity is: x and y; x, y, start and end; start and end."""


@dataclass(frozen=True, slots=True)
class Entities:
    """The entities of many worlds of one modality, padded to `MAX_OBJECTS`.

    Attributes:
        attributes: int64, [worlds, entities, attributes], in the order of `ATTRIBUTES`.
        places: float, [worlds, entities, PLACES]; lengths in picture sides, times in clips.
    """

    attributes: Tensor
    places: Tensor

    def __getitem__(self, index: Tensor) -> "Entities":
        """Return the entities of some worlds."""
        return Entities(self.attributes[index], self.places[index])


Described = tuple[tuple[int, ...], tuple[float, ...]]


def _things(scene: Scene) -> list[Described]:
    return [((t.shape, t.color, t.size, t.texture), (t.x, t.y)) for t in scene.things]


def _actors(clip: Clip) -> list[Described]:
    return [
        (
            (a.thing.shape, a.thing.color, a.thing.size, a.action),
            (a.thing.x, a.thing.y, a.start_s / CLIP_S, a.end_s / CLIP_S),
        )
        for a in clip.actors
    ]


def _sounds(scene: SoundScene) -> list[Described]:
    return [((e.kind,), (e.start_s / CLIP_S, e.end_s / CLIP_S)) for e in scene.events]


_OF = {IMAGE: _things, VIDEO: _actors, AUDIO: _sounds}


def entities(
    modality: str, worlds: Sequence[Scene] | Sequence[Clip] | Sequence[SoundScene]
) -> Entities:
    """Collect the entities of `worlds`, all of one modality."""
    shape = (len(worlds), MAX_OBJECTS)
    attributes = np.zeros((*shape, len(ATTRIBUTES[modality])), np.int64)
    places = np.zeros((*shape, PLACES[modality]), np.float32)
    for row, world in enumerate(worlds):
        for column, (values, place) in enumerate(_OF[modality](world)):  # type: ignore[operator]
            attributes[row, column] = values
            places[row, column] = place
    return Entities(torch.from_numpy(attributes), torch.from_numpy(places))
