"""The audio encoder: a small network over time and frequency whose onset peaks become tokens.

Onsets are found as peaks of a heat map, one for each kind of sound, with the rest of the event
regressed at its peak, after Zhou et al., "Objects as Points" (2019). The temporal part is made of
dilated depthwise separable convolutions: Yu and Koltun, "Multi-Scale Context Aggregation by Dilated
Convolutions" (2016); Chollet, "Xception" (2017).
"""

from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sensorium_export.models.attention import MASKED, SelfAttentionBlock
from sensorium_export.models.cnn import fourier_features
from sensorium_export.models.config import ModelConfig
from sensorium_export.models.contrastive import ContrastiveHead

FEATURES = 72
"""Features of a mel frame."""

FRAME_S = 0.032
"""Seconds from one mel frame to the next: the hop of 512 samples at 16 kHz."""

_PLANES = (1, 16, 32, 40)
_KERNEL = 7
_DILATIONS = (1, 2, 4, 8)
_PEAK_FRAMES = 7
"""Only the strongest of so many neighbouring frames is an onset."""

_LEAST_LOGIT = -3.0
"""Weaker onsets leave their slot empty."""

_SCALE_S = 4.0
"""The time that position 1 of the Fourier features stands for."""


class Heard(NamedTuple):
    """What the network reads off each mel frame.

    Attributes:
        activity: float, [batch, frames, sounds], logits that a sound is heard.
        onset: float, [batch, frames, sounds], logits that a sound starts.
        start: float, [batch, frames], seconds from the frame to the start.
        duration: float, [batch, frames], seconds that a sound which starts here goes on.
    """

    activity: Tensor
    onset: Tensor
    start: Tensor
    duration: Tensor


class TimeBlock(nn.Module):
    """One dilated depthwise separable convolution along time, around an identity."""

    def __init__(self, channels: int, dilation: int) -> None:
        super().__init__()
        reach = dilation * (_KERNEL // 2)
        self.along = nn.Conv1d(
            channels, channels, _KERNEL, padding=reach, dilation=dilation, groups=channels
        )
        self.across = nn.Conv1d(channels, channels, 1, bias=False)
        self.norm = nn.BatchNorm1d(channels)

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        """Refine [batch, channels, frames] where `valid` [batch, 1, frames] is 1."""
        return F.relu(x + self.norm(self.across(self.along(x)))) * valid


class SoundNet(nn.Module):
    """Log-mel frames to features of each frame; padding never reaches a valid frame."""

    def __init__(self, mels: int) -> None:
        super().__init__()
        self.planes = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(inputs, outputs, 3, (1, 2), 1, bias=False),
                nn.BatchNorm2d(outputs),
                nn.ReLU(),
            )
            for inputs, outputs in pairwise(_PLANES)
        )
        bands = mels // 2 ** (len(_PLANES) - 1)
        self.join = nn.Sequential(
            nn.Conv1d(_PLANES[-1] * bands, FEATURES, 1, bias=False),
            nn.BatchNorm1d(FEATURES),
            nn.ReLU(),
        )
        self.blocks = nn.ModuleList(TimeBlock(FEATURES, dilation) for dilation in _DILATIONS)

    def forward(self, log_mel: Tensor, valid: Tensor) -> Tensor:
        """Return [batch, frames, FEATURES] from log-mel and float `valid` [batch, frames]."""
        plane = valid[:, None, :, None]
        grid = log_mel[:, None] * plane
        for layer in self.planes:
            grid = layer(grid) * plane
        row = valid[:, None]
        x = self.join(grid.transpose(2, 3).flatten(1, 2)) * row
        for block in self.blocks:
            x = block(x, row)
        return x.transpose(1, 2)


class AudioEncoder(nn.Module):
    """Log-mel frames to event tokens, one vector in the shared space, and each frame's sounds."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.sounds = config.sounds
        self.slots = config.heard_events
        self.network = SoundNet(config.mels)
        self.locate = nn.Linear(FEATURES, 2 * config.sounds + 2)
        self.event = nn.Linear(FEATURES + config.sounds + 18 + 1, config.width)
        self.whole = nn.Linear(FEATURES, config.width)
        self.block = SelfAttentionBlock(config.width, config.heads, config.feedforward)
        self.norm = nn.LayerNorm(config.width)
        self.head = ContrastiveHead(config.width, config.embedding_dim)

    def heard(self, features: Tensor) -> Heard:
        """Read the heads off features [batch, frames, FEATURES]."""
        sizes = [self.sounds, self.sounds, 1, 1]
        activity, onset, start, duration = self.locate(features).split(sizes, dim=-1)
        return Heard(activity, onset, start[..., 0] * FRAME_S, F.softplus(duration[..., 0]))

    def select(self, log_mel: Tensor, log_mel_mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the strongest onsets' descriptions, the mean frame and each frame's sounds.

        Args:
            log_mel: float, [batch, frames, mels], normalised.
            log_mel_mask: int64, [batch, frames]; 0 marks padding.

        Returns:
            described [batch, slots, FEATURES + sounds + 3]: features, kind (one-hot), start and
            duration in seconds, probability; zeros in an empty slot. Mean [batch, FEATURES].
            Activity [batch, frames, sounds]: probabilities, 0 in padding.
        """
        valid = log_mel_mask.to(log_mel.dtype)
        features = self.network(log_mel, valid)
        heard = self.heard(features)
        frames = features.sum(1) / valid.sum(1, keepdim=True).clamp(min=1)
        activity = heard.activity.sigmoid() * valid[..., None]
        return self._events(features, heard, log_mel_mask != 0), frames, activity

    def _events(self, features: Tensor, heard: Heard, valid: Tensor) -> Tensor:
        onset = heard.onset.masked_fill(~valid[..., None], MASKED)
        reach = _PEAK_FRAMES // 2
        # In two dimensions, because the one-dimensional pool cannot be exported at every length.
        highest = F.max_pool2d(onset[:, None], (_PEAK_FRAMES, 1), 1, (reach, 0))[:, 0]
        found = (onset >= highest) & (onset > _LEAST_LOGIT)
        logit, place = onset.masked_fill(~found, MASKED).flatten(1).topk(self.slots, dim=1)
        frame, kind = place // self.sounds, place % self.sounds
        start = frame * FRAME_S + heard.start.gather(1, frame)
        duration = heard.duration.gather(1, frame)
        numbers = torch.stack([start, duration, logit.sigmoid()], dim=-1)
        one_hot = (kind[..., None] == torch.arange(self.sounds, device=kind.device)).to(start.dtype)
        index = frame[..., None].expand(-1, -1, FEATURES)
        described = torch.cat([features.gather(1, index), one_hot, numbers], dim=-1)
        return described * (logit > _LEAST_LOGIT)[..., None].to(described.dtype)

    def encode(
        self, described: Tensor, mean: Tensor, present: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return audio_tokens, audio_mask and audio_embedding from what `select` gave.

        Args:
            described: float, [batch, slots, FEATURES + sounds + 3].
            mean: float, [batch, FEATURES].
            present: int64, [batch]; 0 says that there is no sound track.
        """
        sizes = [FEATURES + self.sounds, 1, 1, 1]
        what, start, duration, probability = described.split(sizes, dim=-1)
        span = fourier_features(torch.cat([start, start + duration], dim=-1) / _SCALE_S)
        events = self.event(torch.cat([what, span, probability], dim=-1))
        x = self.block(torch.cat([self.whole(mean)[:, None], events], dim=1))
        tokens = self.norm(x)
        mask = torch.ones_like(tokens[..., 0], dtype=torch.int64) * present[:, None]
        return tokens, mask, self.head(tokens, mask)

    def forward(
        self, log_mel: Tensor, log_mel_mask: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Encode a batch of sounds; arguments as in `select`.

        Returns:
            audio_tokens [batch, slots + 1, width], audio_mask [batch, slots + 1], which is 0 where
            a sound has no valid frame, audio_embedding [batch, embedding_dim] and sound_activity
            [batch, frames, sounds].
        """
        described, mean, activity = self.select(log_mel, log_mel_mask)
        present = log_mel_mask.amax(1)
        return *self.encode(described, mean, present), activity
