"""The ViT image encoder: patches as tokens, with a class token for the whole.

Source: Dosovitskiy et al., "An Image is Worth 16x16 Words" (2021), section 3.1.
"""

import torch
from torch import Tensor, nn

from sensorium_export.models.attention import SelfAttentionBlock
from sensorium_export.models.config import ModelConfig
from sensorium_export.models.contrastive import ContrastiveHead


class VitImageEncoder(nn.Module):
    """Pixels to patch tokens and to one vector in the shared space."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, config.width, config.patch_size, config.patch_size)
        self.whole = nn.Parameter(torch.randn(1, 1, config.width) * 0.02)
        self.position = nn.Parameter(torch.randn(1, config.image_tokens, config.width) * 0.02)
        self.blocks = nn.ModuleList(
            SelfAttentionBlock(config.width, config.heads, config.feedforward)
            for _ in range(config.image_layers)
        )
        self.norm = nn.LayerNorm(config.width)
        self.head = ContrastiveHead(config.width, config.embedding_dim)

    def forward(self, pixel_values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Encode a batch of pictures.

        Args:
            pixel_values: float, [batch, 3, image_size, image_size], normalised.

        Returns:
            image_tokens [batch, patches + 1, width], image_mask [batch, patches + 1] and
            image_embedding [batch, embedding_dim].
        """
        patches = self.patches(pixel_values).flatten(2).transpose(1, 2)
        whole = self.whole.expand(pixel_values.shape[0], -1, -1)
        x = torch.cat([whole, patches], dim=1) + self.position
        for block in self.blocks:
            x = block(x)
        tokens = self.norm(x)
        mask = torch.ones_like(tokens[..., 0], dtype=torch.int64)
        return tokens, mask, self.head(tokens, mask)
