"""A BERT-style text encoder: token and position embeddings, then self-attention layers.

Source: Devlin et al., "BERT" (2019), section 3, with pre-LN blocks and no segment embeddings.
"""

import torch
from torch import Tensor, nn

from sensorium_export.models.attention import SelfAttentionBlock, key_mask
from sensorium_export.models.config import ModelConfig
from sensorium_export.models.contrastive import ContrastiveHead

EMBEDDING_STD = 0.4
"""Spread of fresh token embeddings: with less, words are told apart late in training."""


class TextEncoder(nn.Module):
    """Words to contextual tokens and to one vector in the shared space."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.embed = nn.Embedding(config.vocabulary, config.width)
        self.position = nn.Embedding(config.max_tokens, config.width)
        nn.init.normal_(self.embed.weight, std=EMBEDDING_STD)
        nn.init.normal_(self.position.weight, std=EMBEDDING_STD / 2)
        self.blocks = nn.ModuleList(
            SelfAttentionBlock(config.width, config.heads, config.feedforward)
            for _ in range(config.text_layers)
        )
        self.norm = nn.LayerNorm(config.width)
        self.head = ContrastiveHead(config.width, config.embedding_dim)

    def tokens(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return contextual tokens, float [batch, sequence, width]."""
        places = torch.arange(input_ids.shape[1], device=input_ids.device)
        x = self.embed(input_ids) + self.position(places)
        mask = key_mask(attention_mask)
        for block in self.blocks:
            x = block(x, mask)
        out: Tensor = self.norm(x)
        return out

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
        """Encode a batch of texts.

        Args:
            input_ids: int64, [batch, sequence].
            attention_mask: int64, [batch, sequence]; 0 marks padding.

        Returns:
            text_tokens [batch, sequence, width] and text_embedding [batch, embedding_dim].
        """
        tokens = self.tokens(input_ids, attention_mask)
        return tokens, self.head(tokens, attention_mask)
