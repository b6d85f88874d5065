"""Dense labels: what the renderer knows of every grid cell of every picture."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sensorium_training.world.scene import MAX_OBJECTS, Scene

ATTRIBUTES = ("shape", "color", "size", "texture")


@dataclass(frozen=True, slots=True)
class SceneLabels:
    """Labels of many scenes; things are padded to `MAX_OBJECTS`, absent ones are masked.

    Attributes:
        present: bool, [scenes, things].
        attributes: int64, [scenes, things, 4], in the order of `ATTRIBUTES`.
        position: float, [scenes, things, 2], x and y in [0, 1].
        background: int64, [scenes].
    """

    present: Tensor
    attributes: Tensor
    position: Tensor
    background: Tensor

    def __getitem__(self, index: Tensor) -> "SceneLabels":
        """Return the labels of some scenes."""
        return SceneLabels(
            self.present[index],
            self.attributes[index],
            self.position[index],
            self.background[index],
        )

    def cells(self, side: int) -> Tensor:
        """Return the grid cell of each thing, int64 [scenes, things]."""
        column, row = (self.position * side).long().clamp(0, side - 1).unbind(-1)
        return row * side + column


def labels_from_scenes(scenes: Sequence[Scene]) -> SceneLabels:
    """Collect the labels of `scenes`."""
    shape = (len(scenes), MAX_OBJECTS)
    present = np.zeros(shape, bool)
    attributes = np.zeros((*shape, len(ATTRIBUTES)), np.int64)
    position = np.zeros((*shape, 2), np.float32)
    for i, scene in enumerate(scenes):
        for j, thing in enumerate(scene.things):
            present[i, j] = True
            attributes[i, j] = [getattr(thing, name) for name in ATTRIBUTES]
            position[i, j] = thing.x, thing.y
    background = np.array([scene.background for scene in scenes])
    return SceneLabels(*(torch.from_numpy(a) for a in (present, attributes, position, background)))
