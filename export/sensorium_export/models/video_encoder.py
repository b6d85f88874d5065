"""The video encoder: the image encoder looks at every frame, the tracker links what it sees.

Each object of the clip becomes a token: how it looks, where it starts, what it does and when.
"""

import torch
from torch import Tensor, nn

from sensorium_export.models.attention import SelfAttentionBlock
from sensorium_export.models.cnn import CHANNELS, CnnImageEncoder, fourier_features
from sensorium_export.models.config import ModelConfig
from sensorium_export.models.contrastive import ContrastiveHead
from sensorium_export.models.tracker import HIDDEN, Tracker

_FOURIER = 18


class VideoEncoder(nn.Module):
    """Frames to track tokens, to one vector in the shared space, and to actions with their times.

    `image_encoder` is the model's own: its weights are shared, not copied.
    """

    def __init__(self, config: ModelConfig, image_encoder: CnnImageEncoder) -> None:
        super().__init__()
        self.image_encoder = image_encoder
        self.tracker = Tracker(config)
        self.parts = (CHANNELS, 2, 2, 3, config.actions, HIDDEN)
        self.track = nn.Linear(CHANNELS + 3 * _FOURIER + 1 + config.actions + HIDDEN, config.width)
        self.whole = nn.Linear(CHANNELS, config.width)
        self.block = SelfAttentionBlock(config.width, config.heads, config.feedforward)
        self.norm = nn.LayerNorm(config.width)
        self.head = ContrastiveHead(config.width, config.embedding_dim)

    def slots(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Look at each frame on its own.

        Args:
            frames: float, [batch, frames, 3, image_size, image_size], normalised.

        Returns:
            [batch, frames, objects, CHANNELS + 3]: `ObjectTokens.select` of each frame;
            [batch, CHANNELS]: the mean cell of the clip.
        """
        cells = self.image_encoder.network(frames.flatten(0, 1))
        described, mean = self.image_encoder.object_tokens.select(cells)
        shape = (-1, self.tracker.frames)
        return described.unflatten(0, shape), mean.unflatten(0, shape).mean(1)

    def track_slots(self, slots: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return tracks, actions and spans as `select` does, from what `slots` gave."""
        features, position, _ = slots.split([CHANNELS, 2, 1], dim=-1)
        tracks = self.tracker(features, position)
        actions = tracks.actions.softmax(-1)
        presence = tracks.presence.sigmoid()[..., None]
        spans = torch.cat([presence, tracks.span], dim=-1)
        described = [tracks.features, tracks.first, tracks.last, spans, actions, tracks.hidden]
        return torch.cat(described, dim=-1), actions, spans

    def select(self, frames: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return what `encode` needs, and what the tracks do.

        Returns:
            described [batch, tracks, sum(parts)]: features, first and last x and y, presence and
            span, action probabilities, hidden; mean cell [batch, CHANNELS]; action probabilities
            [batch, tracks, actions]; presence, start and end [batch, tracks, 3].
        """
        slots, mean = self.slots(frames)
        described, actions, spans = self.track_slots(slots)
        return described, mean, actions, spans

    def encode(self, described: Tensor, mean: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return video_tokens, video_mask and video_embedding from what `select` gave."""
        features, first, last, spans, actions, hidden = described.split(self.parts, dim=-1)
        presence, span = spans.split([1, 2], dim=-1)
        known = [fourier_features(part) for part in (first, last, span)]
        rows = self.track(torch.cat([features, *known, presence, actions, hidden], dim=-1))
        x = self.block(torch.cat([self.whole(mean)[:, None], rows], dim=1))
        tokens = self.norm(x)
        mask = torch.ones_like(tokens[..., 0], dtype=torch.int64)
        return tokens, mask, self.head(tokens, mask)

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Encode a batch of clips.

        Args:
            frames: float, [batch, frames, 3, image_size, image_size], normalised.

        Returns:
            video_tokens [batch, tracks + 1, width], video_mask [batch, tracks + 1],
            video_embedding [batch, embedding_dim], track_actions [batch, tracks, actions] and
            track_spans [batch, tracks, 3].
        """
        described, mean, actions, spans = self.select(frames)
        return *self.encode(described, mean), actions, spans
