"""The CNN image encoder: a small residual network whose most object-like cells become tokens.

Residual blocks: He et al., "Deep Residual Learning" (2016), section 3. Fourier features of
positions: Tancik et al., "Fourier Features Let Networks Learn High Frequency Functions" (2020).
Taking the strongest cells as object tokens follows the centre heat map of Zhou et al., "Objects as
Points" (2019).
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sensorium_export.models.attention import SelfAttentionBlock
from sensorium_export.models.config import ModelConfig
from sensorium_export.models.contrastive import ContrastiveHead

CHANNELS = 128
"""Features of a grid cell."""

STRIDE = 8
"""Pixels to a grid cell's side."""

_OCTAVES = 4


def _conv(inputs: int, outputs: int, kernel: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False),
        nn.BatchNorm2d(outputs),
    )


class ResidualBlock(nn.Module):
    """Two 3 × 3 convolutions around an identity."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = _conv(channels, channels, 3, 1)
        self.second = _conv(channels, channels, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Refine [batch, channels, height, width]."""
        return F.relu(x + self.second(F.relu(self.first(x))))


class ConvNet(nn.Module):
    """Pixels to a grid of cell features."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            _conv(3, 32, 5, 2), nn.ReLU(),
            _conv(32, 64, 3, 2), nn.ReLU(),
            ResidualBlock(64),
            _conv(64, CHANNELS, 3, 2), nn.ReLU(),
            ResidualBlock(CHANNELS),
        )  # fmt: skip

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Return [batch, cells, CHANNELS], cells in reading order."""
        grid: Tensor = self.layers(pixel_values)
        return grid.flatten(2).transpose(1, 2)


def fourier_features(position: Tensor) -> Tensor:
    """Return sines and cosines of positions [..., 2] in [0, 1] at four octaves: [..., 18]."""
    octaves = math.pi * 2.0 ** torch.arange(_OCTAVES, device=position.device)
    angles = (position[..., None] * octaves).flatten(-2)
    return torch.cat([position, angles.sin(), angles.cos()], dim=-1)


class ObjectTokens(nn.Module):
    """The strongest cells of a grid, with their exact positions, and one token for the whole."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.objects = config.objects
        self.side = config.image_size // STRIDE
        self.locate = nn.Linear(CHANNELS, 3)
        self.object = nn.Linear(CHANNELS + 2 + 4 * _OCTAVES + 1, config.width)
        self.whole = nn.Linear(CHANNELS, config.width)

    def positions(self, located: Tensor) -> Tensor:
        """Return each cell's object centre, [batch, cells, 2] as x and y in [0, 1].

        Args:
            located: float, [batch, cells, 3]: objectness logit and offset from the cell's centre.
        """
        cell = torch.arange(self.side * self.side, device=located.device)
        corner = torch.stack([cell % self.side, cell // self.side], dim=-1).to(located.dtype)
        return (corner + 0.5 + located[..., 1:]) / self.side

    def select(self, cells: Tensor) -> tuple[Tensor, Tensor]:
        """Return the strongest cells' descriptions and the mean cell.

        Args:
            cells: float, [batch, cells, CHANNELS].

        Returns:
            [batch, objects, CHANNELS + 3]: features, x, y, objectness in [0, 1]; [batch, CHANNELS].
        """
        located = self.locate(cells)
        objectness = located[..., 0].sigmoid()
        described = torch.cat([cells, self.positions(located), objectness[..., None]], dim=-1)
        # By logit: the sigmoid presses strong cells together until rounding decides their order.
        strongest = located[..., 0].topk(self.objects, dim=1).indices
        index = strongest[..., None].expand(-1, -1, described.shape[-1])
        return described.gather(1, index), cells.mean(1)

    def forward(self, described: Tensor, mean: Tensor) -> Tensor:
        """Return tokens [batch, objects + 1, width] from what `select` gave."""
        features, position, objectness = described.split([CHANNELS, 2, 1], dim=-1)
        rows = self.object(torch.cat([features, fourier_features(position), objectness], dim=-1))
        return torch.cat([self.whole(mean)[:, None], rows], dim=1)


class CnnImageEncoder(nn.Module):
    """Pixels to object tokens and to one vector in the shared space."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.network = ConvNet()
        self.object_tokens = ObjectTokens(config)
        self.blocks = nn.ModuleList(
            SelfAttentionBlock(config.width, config.heads, config.feedforward)
            for _ in range(config.image_layers)
        )
        self.norm = nn.LayerNorm(config.width)
        self.head = ContrastiveHead(config.width, config.embedding_dim)

    def encode(self, described: Tensor, mean: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the encoder's outputs from what `ObjectTokens.select` gave."""
        x = self.object_tokens(described, mean)
        for block in self.blocks:
            x = block(x)
        tokens = self.norm(x)
        mask = torch.ones_like(tokens[..., 0], dtype=torch.int64)
        return tokens, mask, self.head(tokens, mask)

    def forward(self, pixel_values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Encode a batch of pictures.

        Args:
            pixel_values: float, [batch, 3, image_size, image_size], normalised.

        Returns:
            image_tokens [batch, objects + 1, width], image_mask [batch, objects + 1] and
            image_embedding [batch, embedding_dim].
        """
        return self.encode(*self.object_tokens.select(self.network(pixel_values)))
