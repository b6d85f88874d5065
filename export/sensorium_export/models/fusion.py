"""Fusions: how text tokens learn what the media show.

`ConcatFusion` is concat(T, V)·W; `CrossAttentionFusion` attends from each text token to the media
tokens (Lu et al., "ViLBERT", 2019, section 3.1, the text side of its co-attention).
"""

import torch
from torch import Tensor, nn

from sensorium_export.models.attention import CrossAttentionBlock, key_mask
from sensorium_export.models.config import ModelConfig


class ConcatFusion(nn.Module):
    """concat(T, V)·W: every text token beside the mean media token, through one linear map."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.linear = nn.Linear(2 * config.width, config.width)

    def forward(
        self, text_tokens: Tensor, attention_mask: Tensor, media_tokens: Tensor, media_mask: Tensor
    ) -> Tensor:
        """Return fused_tokens [batch, sequence, width]; arguments as in `CrossAttentionFusion`."""
        weight = media_mask[..., None].to(media_tokens.dtype)
        media = (media_tokens * weight).sum(1, keepdim=True) / weight.sum(1, keepdim=True)
        both = torch.cat([text_tokens, media.expand_as(text_tokens)], dim=-1)
        fused: Tensor = self.linear(both)
        return fused * attention_mask[..., None].to(fused.dtype)


class CrossAttentionFusion(nn.Module):
    """Layers of self-attention over the text and cross-attention to pictures, sounds or clips."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            CrossAttentionBlock(config.width, config.heads, config.feedforward)
            for _ in range(config.fusion_layers)
        )
        self.norm = nn.LayerNorm(config.width)

    def forward(
        self, text_tokens: Tensor, attention_mask: Tensor, media_tokens: Tensor, media_mask: Tensor
    ) -> Tensor:
        """Fuse a batch of texts with their media.

        Args:
            text_tokens: float, [batch, sequence, width].
            attention_mask: int64, [batch, sequence]; 0 marks padding.
            media_tokens: float, [batch, media, width].
            media_mask: int64, [batch, media]; 0 hides a token.

        Returns:
            fused_tokens [batch, sequence, width].
        """
        self_mask, cross_mask = key_mask(attention_mask), key_mask(media_mask)
        x = text_tokens
        for block in self.blocks:
            x = block(x, media_tokens, self_mask, cross_mask)
        out: Tensor = self.norm(x)
        return out
