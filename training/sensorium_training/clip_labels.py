"""Dense labels of clips: where every actor is in every sampled frame, and what it does."""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor

from sensorium_training.labels import ATTRIBUTES
from sensorium_training.world.motion import MAX_ACTORS, Clip
from sensorium_training.world.sound import CLIP_S

_REACH = 0.07
"""Greatest distance of a slot from its object's true place."""

_FAINT = 0.15
"""Least opacity of what can be seen."""

_DOUBT = 0.1
"""Least objectness of a slot that is an object's."""


@dataclass(frozen=True, slots=True)
class ClipLabels:
    """Labels of many clips; actors are padded to `MAX_ACTORS`, absent ones are masked.

    Attributes:
        present: bool, [clips, actors].
        attributes: int64, [clips, actors, 4], in the order of `ATTRIBUTES`, at first.
        action: int64, [clips, actors].
        span: float, [clips, actors, 2], start and end of the action as parts of the clip.
        ends: float, [clips, actors, 4], x and y at first and in the end.
        place: float, [clips, actors, frames, 2], x and y.
        visible: float, [clips, actors, frames], opacity.
    """

    present: Tensor
    attributes: Tensor
    action: Tensor
    span: Tensor
    ends: Tensor
    place: Tensor
    visible: Tensor

    def __getitem__(self, index: Tensor) -> "ClipLabels":
        """Return the labels of some clips."""
        return ClipLabels(*(getattr(self, field.name)[index] for field in fields(self)))

    def slots(self, position: Tensor, objectness: Tensor) -> Tensor:
        """Return which slot shows each actor, int64 [clips, actors, frames].

        The number of slots stands for "none". Of the slots near an actor's place the first is
        taken, because slots are sorted by objectness.

        Args:
            position: float, [clips, frames, slots, 2].
            objectness: float, [clips, frames, slots], in [0, 1].
        """
        away = (self.place[:, :, :, None] - position[:, None]).norm(dim=-1)
        fits = (away < _REACH) & (objectness[:, None] > _DOUBT)
        fits &= (self.visible > _FAINT)[..., None] & self.present[:, :, None, None]
        none = torch.full_like(fits[..., 0].long(), fits.shape[-1])
        return torch.where(fits.any(-1), fits.int().argmax(-1), none)


def labels_from_clips(clips: Sequence[Clip], frames: int) -> ClipLabels:
    """Collect the labels of `clips`, of which `frames` frames are looked at."""
    shape = (len(clips), MAX_ACTORS)
    present, action = np.zeros(shape, bool), np.zeros(shape, np.int64)
    attributes = np.zeros((*shape, len(ATTRIBUTES)), np.int64)
    span, ends = np.zeros((*shape, 2), np.float32), np.zeros((*shape, 4), np.float32)
    place = np.zeros((*shape, frames, 2), np.float32)
    visible = np.zeros((*shape, frames), np.float32)
    times = [(i + 0.5) / frames * CLIP_S for i in range(frames)]
    for row, clip in enumerate(clips):
        there = slice(len(clip.actors))
        present[row, there] = True
        action[row, there] = [actor.action for actor in clip.actors]
        attributes[row, there] = [
            [getattr(actor.thing, name) for name in ATTRIBUTES] for actor in clip.actors
        ]
        span[row, there] = [(a.start_s / CLIP_S, a.end_s / CLIP_S) for a in clip.actors]
        first, last = np.array(clip.poses(0)), np.array(clip.poses(CLIP_S))
        ends[row, there] = np.concatenate([first[:, :2], last[:, :2]], axis=1)
        poses = np.array([clip.poses(t) for t in times]).transpose(1, 0, 2)
        place[row, there], visible[row, there] = poses[..., :2], poses[..., 3]
    arrays = (present, attributes, action, span, ends, place, visible)
    return ClipLabels(*(torch.from_numpy(array) for array in arrays))
