"""Dense labels of recordings: what the synthesiser knows of every mel frame."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from sensorium_export.models.audio_encoder import FRAME_S
from sensorium_training.world.sound import MAX_SOUNDS, SOUNDS, SoundScene


@dataclass(frozen=True, slots=True)
class FrameTargets:
    """What the network should read off each frame.

    Attributes:
        activity: float, [recordings, frames, sounds], 1 where a sound is heard.
        onset: float, [recordings, frames, sounds], a Gaussian of one frame about each start.
        near: bool, [recordings, frames], whether a start is within a frame of this one.
        start: float, [recordings, frames], seconds from the frame to that start.
        duration: float, [recordings, frames], seconds that its sound goes on.
    """

    activity: Tensor
    onset: Tensor
    near: Tensor
    start: Tensor
    duration: Tensor


@dataclass(frozen=True, slots=True)
class SoundLabels:
    """Labels of many scenes; events are padded to `MAX_SOUNDS`, absent ones are masked.

    Attributes:
        present: bool, [scenes, events].
        kind: int64, [scenes, events].
        start_s: float, [scenes, events].
        end_s: float, [scenes, events].
    """

    present: Tensor
    kind: Tensor
    start_s: Tensor
    end_s: Tensor

    def __getitem__(self, index: Tensor) -> "SoundLabels":
        """Return the labels of some scenes."""
        return SoundLabels(
            self.present[index], self.kind[index], self.start_s[index], self.end_s[index]
        )

    def targets(self, frames: int) -> FrameTargets:
        """Return the targets of each of `frames` mel frames."""
        time = torch.arange(frames) * FRAME_S
        start, end = self.start_s[..., None], self.end_s[..., None]
        one_hot = F.one_hot(self.kind, len(SOUNDS)) * self.present[..., None].float()
        since = time - start
        inside = ((since >= 0) & (time < end)).float()
        heat = torch.exp(-((since / FRAME_S) ** 2) / 2)
        near = (since.abs() <= FRAME_S) & self.present[..., None]
        return FrameTargets(
            activity=torch.einsum("bet,bek->btk", inside, one_hot),
            onset=torch.einsum("bet,bek->btk", heat, one_hot),
            near=near.any(1),
            start=(near * -since).sum(1),
            duration=(near * (end - start)).sum(1),
        )


def labels_from_sounds(scenes: Sequence[SoundScene]) -> SoundLabels:
    """Collect the labels of `scenes`."""
    shape = (len(scenes), MAX_SOUNDS)
    present, kind = np.zeros(shape, bool), np.zeros(shape, np.int64)
    span = np.zeros((*shape, 2), np.float32)
    for i, scene in enumerate(scenes):
        for j, event in enumerate(scene.events):
            present[i, j], kind[i, j] = True, event.kind
            span[i, j] = event.start_s, event.end_s
    start_s, end_s = torch.from_numpy(span).unbind(-1)
    return SoundLabels(torch.from_numpy(present), torch.from_numpy(kind), start_s, end_s)
