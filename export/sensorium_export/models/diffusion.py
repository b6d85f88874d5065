"""The image decoder: a text becomes a layout of zones, and a small network draws it out of noise.

Diffusion with velocity prediction and the cosine schedule: Salimans and Ho, "Progressive
Distillation for Fast Sampling of Diffusion Models" (2022), appendix D. The picture is composed of
layers, each with its opacity: a backdrop and a sprite for each zone, as in Greff et al.,
"Multi-Object Representation Learning with Iterative Variational Inference" (2019), section 2.1.
Residual blocks whose normalised features are scaled and shifted: Peebles and Xie, "Scalable
Diffusion Models with Transformers" (2023), section 3.2.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sensorium_export.models.attention import CrossAttentionBlock, key_mask
from sensorium_export.models.config import ModelConfig

SPRITE_WIDTH = 176
"""Features of a sprite."""

SPRITE_FEEDFORWARD = 256
"""Features inside a sprite's residual block."""

SPRITE_BLOCKS = 3
"""Residual blocks that make out a sprite."""

INKS = 2
"""Mixtures of red, green and blue by which a window is looked at."""

READING_LAYERS = 2
"""Layers of cross-attention from the layout to the text."""

LEAST_NOISE = 0.1
"""Below this σ the noisy picture is itself a part of the prediction: ever more, with less noise."""

_BACKDROP_WIDTH = 64
_BACKDROP_CELL = 8
_BACKDROP_STOPS = 4
_WINDOW_STEP = 5 / 16
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


class Windows(nn.Module):
    """Cuts a picture into overlapping windows, one around each zone, and adds windows up again."""

    place: Tensor

    def __init__(self, side: int, zones: int) -> None:
        super().__init__()
        self.across = math.isqrt(zones)
        step = round(side * _WINDOW_STEP)
        self.side = side - (self.across - 1) * step
        start = torch.arange(self.across)[:, None] * step
        pixel = (start + torch.arange(self.side)).flatten()
        self.register_buffer("place", F.one_hot(pixel, side).float().T, persistent=False)

    def cut(self, picture: Tensor) -> Tensor:
        """Return [batch, zones, channels, pixels] of [batch, channels, side, side]."""
        grid = (self.place.T @ picture @ self.place).unflatten(3, (self.across, self.side))
        rows = grid.unflatten(2, (self.across, self.side)).permute(0, 2, 4, 1, 3, 5)
        return rows.flatten(4).flatten(1, 2)

    def add(self, windows: Tensor) -> Tensor:
        """Return [batch, channels, side, side], the sum of [batch, zones, channels, pixels]."""
        cells = windows.unflatten(3, (self.side, self.side)).unflatten(1, (self.across, -1))
        grid = cells.permute(0, 3, 1, 4, 2, 5).flatten(4).flatten(2, 3)
        return self.place @ grid @ self.place.T


class SpriteBlock(nn.Module):
    """A feed-forward block around an identity, told by scale and shift what to make out."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(SPRITE_WIDTH, elementwise_affine=False)
        self.film = nn.Linear(width, 2 * SPRITE_WIDTH)
        self.up = nn.Linear(SPRITE_WIDTH, SPRITE_FEEDFORWARD)
        self.down = nn.Linear(SPRITE_FEEDFORWARD, SPRITE_WIDTH)
        nn.init.zeros_(self.down.weight)

    def forward(self, x: Tensor, zone: Tensor) -> Tensor:
        """Refine [batch, zones, SPRITE_WIDTH] under [batch, zones, width]."""
        scale, shift = self.film(zone).chunk(2, dim=-1)
        out: Tensor = x + self.down(F.silu(self.up(self.norm(x) * (1 + scale) + shift)))
        return out


class Sprites(nn.Module):
    """What stands in each zone: how opaque each pixel of its window is, its shade and its ink."""

    def __init__(self, width: int, pixels: int) -> None:
        super().__init__()
        self.mix = nn.Linear(width, INKS * 3)
        self.look = nn.Linear(INKS * pixels, SPRITE_WIDTH)
        self.blocks = nn.ModuleList(SpriteBlock(width) for _ in range(SPRITE_BLOCKS))
        self.norm = nn.LayerNorm(SPRITE_WIDTH)
        self.sprite = nn.Linear(SPRITE_WIDTH, 2 * pixels)
        self.ink = nn.Linear(SPRITE_WIDTH, 3)
        start = torch.tensor([-2.0, 1.0]).repeat_interleave(pixels)
        self.sprite.bias = nn.Parameter(start)
        nn.init.normal_(self.sprite.weight, std=0.01)

    def forward(self, windows: Tensor, zone: Tensor) -> tuple[Tensor, Tensor]:
        """Return the opacity [batch, zones, 1, pixels] and the paint [batch, zones, 3, pixels]."""
        mixed = self.mix(zone).unflatten(-1, (INKS, 3)) @ windows
        x = self.look(mixed.flatten(2))
        for block in self.blocks:
            x = block(x, zone)
        x = self.norm(x)
        opacity, shade = self.sprite(x).unflatten(-1, (2, 1, -1)).unbind(2)
        return opacity.sigmoid(), (self.ink(x) + 1)[..., None] * shade - 1


class Backdrop(nn.Module):
    """The background: a colour at some heights, and between them the way from one to the next."""

    between: Tensor

    def __init__(self, side: int, width: int) -> None:
        super().__init__()
        cells = (side // _BACKDROP_CELL) ** 2
        self.look = nn.Linear(3 * cells, _BACKDROP_WIDTH)
        self.told = nn.Linear(width, _BACKDROP_WIDTH)
        self.stops = nn.Linear(_BACKDROP_WIDTH, 3 * _BACKDROP_STOPS)
        stops = torch.eye(_BACKDROP_STOPS)[None]
        between = F.interpolate(stops, size=side, mode="linear", align_corners=True)[0]
        self.register_buffer("between", between, persistent=False)

    def forward(self, noisy: Tensor, background: Tensor) -> Tensor:
        """Return a picture shaped like `noisy`, under [batch, width]."""
        seen = self.look(F.avg_pool2d(noisy, _BACKDROP_CELL).flatten(1))
        stops = self.stops(F.silu(seen + self.told(background)))
        heights = stops.unflatten(1, (3, _BACKDROP_STOPS)) @ self.between
        return heights[..., None].expand(-1, -1, -1, heights.shape[2])


class DiffusionImageDecoder(nn.Module):
    """Text tokens to pictures, by many calls of `denoise`: see `contract.DIFFUSION_GRAPHS`."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.layout = LayoutCondition(config)
        self.zone = nn.Linear(config.width, config.width)
        self.noise_level = NoiseLevel(config.width)
        self.windows = Windows(config.image_size, config.layout - 1)
        self.sprites = Sprites(config.width, self.windows.side**2)
        self.backdrop = Backdrop(config.image_size, config.width)

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
            velocity, shaped like `noisy`: (α·noisy - picture) / σ, σ being at least `LEAST_NOISE`.
        """
        angle = (noise_level * (math.pi / 2))[:, None, None, None]
        picture = self.picture(noisy, self.zone(condition) + self.noise_level(noise_level))
        return (angle.cos() * noisy - picture) / angle.sin().clamp(min=LEAST_NOISE)

    def picture(self, noisy: Tensor, told: Tensor) -> Tensor:
        """Predict the picture without its noise: the sprites over the backdrop."""
        zones, background = told[:, :-1], told[:, -1]
        backdrop = self.backdrop(noisy, F.silu(background))
        opacity, paint = self.sprites(self.windows.cut(noisy), F.silu(zones + background[:, None]))
        return backdrop + self.windows.add(opacity * (paint - self.windows.cut(backdrop)))
