"""The image decoder: a text becomes a layout of zones, and a small U-Net draws it out of noise.

Diffusion with velocity prediction and the cosine schedule: Salimans and Ho, "Progressive
Distillation for Fast Sampling of Diffusion Models" (2022), appendix D. Residual blocks whose
normalised features are scaled and shifted: Dhariwal and Nichol, "Diffusion Models Beat GANs on
Image Synthesis" (2021), section 3. Here scale and shift differ from zone to zone, as in Park et
al., "Semantic Image Synthesis with Spatially-Adaptive Normalization" (2019).
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sensorium_export.models.attention import CrossAttentionBlock, key_mask
from sensorium_export.models.config import ModelConfig

PATCH = 4
"""Pixels to the side of a patch: the U-Net's finest grid is of patches."""

CHANNELS = 80
"""Features of a patch."""

COARSE_CHANNELS = 80
"""Features of a cell of two by two patches."""

READING_LAYERS = 2
"""Layers of cross-attention from the layout to the text."""

_GROUPS = 8
_OCTAVES = 16
_FASTEST = 256.0


class LayoutCondition(nn.Module):
    """Learned queries, one for each zone and one for the background, that read the text."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.queries = nn.Parameter(torch.randn(config.layout, config.width))
        self.unconditional = nn.Parameter(torch.randn(config.layout, config.width))
        self.blocks = nn.ModuleList(
            CrossAttentionBlock(config.width, config.heads, config.width)
            for _ in range(READING_LAYERS)
        )
        self.norm = nn.LayerNorm(config.width)

    def forward(self, text_tokens: Tensor, attention_mask: Tensor) -> Tensor:
        """Return [batch, layout, width]; a text of mask zeros alone is no text."""
        x = self.queries.expand(text_tokens.shape[0], -1, -1)
        for block in self.blocks:
            x = block(x, text_tokens, None, key_mask(attention_mask))
        said = (attention_mask.sum(1) > 0)[:, None, None]
        return torch.where(said, self.norm(x), self.unconditional)


class NoiseLevel(nn.Module):
    """The noise level as sines and cosines, then two linear layers."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.up = nn.Linear(2 * _OCTAVES, width)
        self.down = nn.Linear(width, width)

    def forward(self, noise_level: Tensor) -> Tensor:
        """Return [batch, 1, width] from [batch] in [0, 1]."""
        step = torch.arange(_OCTAVES, device=noise_level.device) / (_OCTAVES - 1)
        angles = noise_level[:, None] * math.pi * _FASTEST**step
        waves = torch.cat([angles.sin(), angles.cos()], dim=-1)
        out: Tensor = self.down(F.silu(self.up(waves)))
        return out[:, None]


class ZoneMap(nn.Module):
    """Lays zone vectors over a grid: each cell gets its zone's, and all get the background's."""

    share: Tensor

    def __init__(self, side: int, layout: int) -> None:
        super().__init__()
        self.side = side
        across = math.isqrt(layout - 1)
        third = ((torch.arange(side) + 0.5) * across / side).long()
        zone = (third[:, None] * across + third[None]).flatten()
        share = F.one_hot(zone, layout).float()
        share[:, -1] = 1
        self.register_buffer("share", share, persistent=False)

    def forward(self, vectors: Tensor) -> Tensor:
        """Return [batch, features, side, side] from [batch, layout, features]."""
        grid = self.share @ vectors
        return grid.unflatten(1, (self.side, self.side)).permute(0, 3, 1, 2)


class ResidualBlock(nn.Module):
    """Two 3 × 3 convolutions around an identity, told by scale and shift what to draw where."""

    def __init__(self, channels: int, width: int, zone_map: ZoneMap) -> None:
        super().__init__()
        self.norm_first = nn.GroupNorm(_GROUPS, channels)
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.film = nn.Linear(width, 2 * channels)
        self.zone_map = zone_map
        self.norm_second = nn.GroupNorm(_GROUPS, channels)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)
        nn.init.zeros_(self.second.weight)

    def forward(self, x: Tensor, layout: Tensor) -> Tensor:
        """Refine [batch, channels, side, side] under [batch, layout, width]."""
        scale, shift = self.zone_map(self.film(layout)).chunk(2, dim=1)
        hidden = self.norm_second(self.first(F.silu(self.norm_first(x))))
        out: Tensor = x + self.second(F.silu(hidden * (1 + scale) + shift))
        return out


class DiffusionImageDecoder(nn.Module):
    """Text tokens to pictures, by many calls of `denoise`: see `contract.DIFFUSION_GRAPHS`."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        side, width = config.image_size // PATCH, config.width
        fine, coarse = ZoneMap(side, config.layout), ZoneMap(side // 2, config.layout)
        self.layout = LayoutCondition(config)
        self.zone = nn.Linear(width, width)
        self.noise_level = NoiseLevel(width)
        self.patch = nn.Conv2d(3 * PATCH**2, CHANNELS, 3, padding=1)
        self.place = nn.Parameter(torch.zeros(CHANNELS, side, side))
        self.before = ResidualBlock(CHANNELS, width, fine)
        self.shrink = nn.Conv2d(4 * CHANNELS, COARSE_CHANNELS, 1)
        self.middle = ResidualBlock(COARSE_CHANNELS, width, coarse)
        self.grow = nn.Conv2d(COARSE_CHANNELS, 4 * CHANNELS, 1)
        self.after = nn.ModuleList(ResidualBlock(CHANNELS, width, fine) for _ in range(2))
        self.norm = nn.GroupNorm(_GROUPS, CHANNELS)
        self.pixels = nn.Conv2d(CHANNELS, 3 * PATCH**2, 3, padding=1)
        nn.init.zeros_(self.pixels.weight)

    def condition(self, text_tokens: Tensor, attention_mask: Tensor) -> Tensor:
        """Read what to draw where.

        Args:
            text_tokens: float, [batch, sequence, width], from the text encoder.
            attention_mask: int64, [batch, sequence]; 0 marks padding, all zeros mean "anything".

        Returns:
            condition [batch, layout, width]: the zones in reading order, then the background.
        """
        out: Tensor = self.layout(text_tokens, attention_mask)
        return out

    def denoise(self, noisy: Tensor, noise_level: Tensor, condition: Tensor) -> Tensor:
        """Predict the velocity of a batch of noisy pictures.

        Args:
            noisy: float, [batch, 3, image_size, image_size].
            noise_level: float, [batch], the time in [0, 1]: 1 is noise alone.
            condition: float, [batch, layout, width], what `condition` gave.

        Returns:
            velocity, shaped like `noisy`.
        """
        layout = F.silu(self.zone(condition) + self.noise_level(noise_level))
        x = self.before(self.patch(F.pixel_unshuffle(noisy, PATCH)) + self.place, layout)
        coarse = self.middle(self.shrink(F.pixel_unshuffle(x, 2)), layout)
        x = x + F.pixel_shuffle(self.grow(coarse), 2)
        for block in self.after:
            x = block(x, layout)
        return F.pixel_shuffle(self.pixels(F.silu(self.norm(x))), PATCH)
