"""The tracker: object slots of many frames become tracks that know what their object does.

The clearest slot of the clip starts a track; attention from it to the slots of every frame tells
where its object is and where it is out of sight; the slots so explained are struck out and the next
track starts. Attention with a place for "none of them" as in Bahdanau et al., "Neural Machine
Translation by Jointly Learning to Align and Translate" (2015), with a sentinel after Merity et al.,
"Pointer Sentinel Mixture Models" (2017); striking out as in greedy non-maximum suppression. What a
track shows over time is read by temporal convolutions (Lea et al., "Temporal Convolutional Networks
for Action Segmentation and Detection", 2017).
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sensorium_export.models.cnn import CHANNELS
from sensorium_export.models.config import ModelConfig

HIDDEN = 64
"""Features of what a track's object does."""

_LINK = 32
_READ = 16
_SCALE = 8.0
_EPSILON = 1e-3
_FRAME_COST = 1e-2
_STRIKE = 30.0
_NEAR = 0.05


@dataclass(frozen=True, slots=True)
class Slots:
    """All slots of a batch of clips, and what tracking needs to know of them.

    Attributes:
        features: float, [batch, frames, slots, CHANNELS].
        position: float, [batch, frames, slots, 2], x and y in [0, 1].
        strength: float, [batch, frames, slots], logit that it shows an object clearly.
        query: float, [batch, frames · slots, link], what it looks for in other frames.
        key: float, [batch, link, frames · slots], what it is found by.
    """

    features: Tensor
    position: Tensor
    strength: Tensor
    query: Tensor
    key: Tensor


@dataclass(frozen=True, slots=True)
class Tracks:
    """Tracks of a batch of clips.

    Attributes:
        links: float, [batch, tracks, frames, slots + 1], logarithms of the probabilities that a
            slot is the track's object; the last: that the object is out of sight.
        presence: float, [batch, tracks], logit that the track is one.
        features: float, [batch, tracks, CHANNELS], what the object looks like at first.
        first: float, [batch, tracks, 2], where it is at first, x and y in [0, 1].
        last: float, [batch, tracks, 2], where it is in the end.
        hidden: float, [batch, tracks, HIDDEN], what it does.
        actions: float, [batch, tracks, actions], logits.
        span: float, [batch, tracks, 2], start and end of its action as parts of the clip.
    """

    links: Tensor
    presence: Tensor
    features: Tensor
    first: Tensor
    last: Tensor
    hidden: Tensor
    actions: Tensor
    span: Tensor


class TemporalBlock(nn.Module):
    """A convolution over time around an identity."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.conv = nn.Conv1d(channels, channels, 5, padding=2)

    def forward(self, x: Tensor) -> Tensor:
        """Refine [batch, frames, channels]."""
        return x + F.gelu(self.conv(self.norm(x).transpose(1, 2)).transpose(1, 2))


class Tracker(nn.Module):
    """Slots to tracks."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.frames, self.tracks = config.frames, config.tracks
        self.strength = nn.Linear(CHANNELS, 1)
        self.query = nn.Linear(CHANNELS, _LINK)
        self.key = nn.Linear(CHANNELS, _LINK)
        self.unseen = nn.Parameter(torch.zeros(()))
        self.trust = nn.Parameter(torch.ones(()))
        self.inertia = nn.Parameter(4 - torch.arange(config.frames).float().log1p())
        self.read = nn.Linear(CHANNELS, _READ)
        self.enter = nn.Linear(_READ + 4, HIDDEN)
        self.blocks = nn.ModuleList(TemporalBlock(HIDDEN) for _ in range(2))
        self.moments = nn.Linear(HIDDEN, 2)
        self.gather = nn.Linear(HIDDEN * config.frames, HIDDEN)
        self.presence = nn.Linear(HIDDEN + 1, 1)
        self.action = nn.Linear(HIDDEN, config.actions)
        self.span = nn.Linear(HIDDEN, 2)

    def forward(self, features: Tensor, position: Tensor) -> Tracks:
        """Track the objects of a batch of clips; arguments as in `look`."""
        seen = self.look(features, position)
        picked, clearness = self.pick(seen, seen.strength)
        return self.describe(seen, self.follow(seen, picked), clearness)

    def look(self, features: Tensor, position: Tensor) -> Slots:
        """Return what tracking needs to know of all slots.

        Args:
            features: float, [batch, frames, slots, CHANNELS].
            position: float, [batch, frames, slots, 2], x and y in [0, 1].
        """
        strength = self.strength(features)[..., 0]
        query, key = (linear(features).flatten(1, 2) for linear in (self.query, self.key))
        return Slots(features, position, strength, query, key.transpose(1, 2))

    def pick(self, seen: Slots, strength: Tensor) -> tuple[Tensor, Tensor]:
        """Choose the slots that start a track, one after the other, by `strength`.

        Returns:
            int64 [batch, tracks]: which of the frames · slots, frame by frame; float [batch,
            tracks]: how strong the slot was after the earlier tracks' were struck out.
        """
        frame = torch.arange(self.frames, device=strength.device)[:, None]
        # Of equal frames the first is taken, whatever the rounding.
        left = (strength - _FRAME_COST * frame).flatten(1)
        picked, clearness = [], []
        for _ in range(self.tracks):
            slot = left.argmax(dim=1, keepdim=True)
            clearness.append(left.gather(1, slot))
            picked.append(slot)
            place, shown = _places(self.follow(seen, slot), seen.position)
            away = (seen.position - place[:, 0, :, None]).square().sum(-1)
            near = (-away / (2 * _NEAR**2)).exp() * shown[:, 0]
            left = left - _STRIKE * near.flatten(1)
        return torch.cat(picked, dim=1), torch.cat(clearness, dim=1)

    def follow(self, seen: Slots, picked: Tensor) -> Tensor:
        """Return `Tracks.links` of the tracks that start at the slots `picked` [batch, tracks]."""
        slots = seen.position.shape[2]
        index = picked[..., None]
        query = seen.query.gather(1, index.expand(-1, -1, _LINK))
        start = seen.position.flatten(1, 2).gather(1, index.expand(-1, -1, 2))
        frame = torch.arange(self.frames, device=picked.device)
        gap = (picked.div(slots, rounding_mode="floor")[..., None] - frame).abs()
        alike = (query @ seen.key).unflatten(-1, (self.frames, slots)) / math.sqrt(_LINK)
        away = (start[:, :, None, None] - seen.position[:, None]).square().sum(-1)
        held = self.inertia.exp()[gap][..., None]
        scores = alike + self.trust * seen.strength[:, None] - held * away
        unseen = self.unseen.expand_as(scores[..., :1])
        return torch.cat([scores, unseen], dim=-1).log_softmax(-1)

    def describe(self, seen: Slots, links: Tensor, clearness: Tensor) -> Tracks:
        """Read off what the followed objects look like and do."""
        place, shown = _places(links, seen.position)
        sight = links[..., :-1].exp()
        looks = torch.einsum("bnts,btsc->bntc", sight, seen.features)
        firm = (sight * seen.strength.sigmoid()[:, None]).sum(-1, keepdim=True)
        middle = (place * shown).sum(2, keepdim=True) / (shown.sum(2, keepdim=True) + _EPSILON)
        moved = (place - middle) * shown * _SCALE
        x = self.enter(torch.cat([moved, shown, firm, self.read(looks)], dim=-1)).flatten(0, 1)
        for block in self.blocks:
            x = block(x)
        x = x.unflatten(0, (-1, self.tracks))
        hidden = F.gelu(self.gather(x.flatten(2)))
        presence = self.presence(torch.cat([hidden, clearness[..., None] / _SCALE], dim=-1))
        # What starts at a slot that is no object says nothing: all of it fades with the presence.
        hidden = hidden * presence.sigmoid()
        moment = (self.moments(x) + (shown + _EPSILON).log()).softmax(2)
        first, last = ((place * weight).sum(2) for weight in moment.split(1, dim=-1))
        features = (looks / (shown + _EPSILON) * moment[..., :1]).sum(2)
        return Tracks(
            links, presence[..., 0], features, first, last, hidden, self.action(hidden),
            self.span(hidden).sigmoid(),
        )  # fmt: skip


def _places(links: Tensor, position: Tensor) -> tuple[Tensor, Tensor]:
    """Return where each track's object is, [b, n, frames, 2], and whether, [b, n, frames, 1].

    Where it is out of sight the place means nothing.
    """
    sight = links[..., :-1].exp()
    shown = sight.sum(-1, keepdim=True)
    place = torch.einsum("bnts,btsp->bntp", sight, position)
    return place / (shown + _EPSILON), shown
