"""The autoregressive text decoder with a KV cache.

Layers follow Vaswani et al. (2017), section 3.1, pre-LN; output weights are the embeddings (Press
and Wolf, "Using the Output Embedding to Improve Language Models", 2017). The cache is the caller's:
`step` gets the keys and values of earlier tokens and gives back only its own token's, so rows at
different positions share a batch and nothing is copied but what is new.
"""

from collections.abc import Iterable
from typing import cast

import torch
from torch import Tensor, nn

from sensorium_export.models.attention import (
    CrossAttentionBlock,
    key_mask,
    scaled_dot_product_attention,
)
from sensorium_export.models.config import ModelConfig
from sensorium_export.models.text_encoder import EMBEDDING_STD


class DecoderBlock(CrossAttentionBlock):
    """One layer: causal self-attention, cross-attention to the memory, feed-forward."""

    def after_self(
        self, x: Tensor, cross_key: Tensor, cross_value: Tensor, memory_mask: Tensor
    ) -> Tensor:
        """Run the parts after self-attention on `x` [batch, queries, width]."""
        normed = self.norm_cross(x)
        x = x + self.cross_attention.attend(normed, cross_key, cross_value, memory_mask)
        return x + self.feedforward(self.norm_feedforward(x))


class TextDecoder(nn.Module):
    """Memory to words: an answer or a caption, whichever the memory calls for."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.embed = nn.Embedding(config.vocabulary, config.width)
        self.position = nn.Embedding(config.max_new_tokens, config.width)
        nn.init.normal_(self.embed.weight, std=EMBEDDING_STD / 4)
        nn.init.normal_(self.position.weight, std=EMBEDDING_STD / 4)
        self.blocks = nn.ModuleList(
            DecoderBlock(config.width, config.heads, config.feedforward)
            for _ in range(config.decoder_layers)
        )
        self.norm = nn.LayerNorm(config.width)

    @property
    def layers(self) -> Iterable[DecoderBlock]:
        """The blocks, as what they are."""
        return cast("Iterable[DecoderBlock]", self.blocks)

    def logits(self, x: Tensor) -> Tensor:
        """Return vocabulary logits of [..., width]."""
        out: Tensor = self.norm(x) @ self.embed.weight.T
        return out

    def forward(self, token_ids: Tensor, memory: Tensor, memory_mask: Tensor) -> Tensor:
        """Return logits for every position at once, as training needs them.

        Args:
            token_ids: int64, [batch, length], beginning with the start token.
            memory: float, [batch, memory, width].
            memory_mask: int64, [batch, memory]; 0 hides a memory token.

        Returns:
            [batch, length, vocabulary]: at i, the scores of token i + 1.
        """
        length = token_ids.shape[1]
        places = torch.arange(length, device=token_ids.device)
        causal = places[:, None] >= places[None, :]
        cross_mask = key_mask(memory_mask)
        x = self.embed(token_ids) + self.position(places)
        for block in self.layers:
            x = block(x, memory, causal, cross_mask)
        return self.logits(x)

    def cross(self, memory: Tensor) -> Tensor:
        """Return the memory's keys and values for all layers.

        Args:
            memory: float, [batch, memory, width].

        Returns:
            [batch, kv_layers, heads, memory, head_dim]; layer l's key at 2l, its value at 2l + 1.
        """
        planes = [
            plane
            for block in self.layers
            for plane in block.cross_attention.keys_and_values(memory)
        ]
        return torch.stack(planes, dim=1)

    def step(
        self, token_id: Tensor, position: Tensor, past: Tensor, cross: Tensor, memory_mask: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Decode one more token in every row.

        Args:
            token_id: int64, [batch], the latest token.
            position: int64, [batch], how many tokens came before it: valid entries of `past`.
            past: float, [batch, kv_layers, heads, past, head_dim], rows padded to one length.
            cross: float, [batch, kv_layers, heads, memory, head_dim], from `cross`.
            memory_mask: int64, [batch, memory].

        Returns:
            logits [batch, vocabulary] and present [batch, kv_layers, heads, head_dim].
        """
        earlier = torch.arange(past.shape[3], device=past.device)[None, :] < position[:, None]
        itself = torch.ones_like(position[:, None], dtype=torch.bool)
        self_mask = torch.cat([earlier, itself], dim=1)[:, None, None, :]
        cross_mask = key_mask(memory_mask)
        x = (self.embed(token_id) + self.position(position))[:, None]
        present = []
        for layer, block in enumerate(self.layers):
            attention = block.self_attention
            normed = block.norm_self(x)
            key, value = attention.keys_and_values(normed)
            present += [key[:, :, 0], value[:, :, 0]]
            mixed = scaled_dot_product_attention(
                attention.split(attention.query(normed)),
                torch.cat([past[:, 2 * layer], key], dim=2),
                torch.cat([past[:, 2 * layer + 1], value], dim=2),
                self_mask,
            )
            x = x + attention.output(mixed.transpose(1, 2).flatten(2))
            x = block.after_self(x, cross[:, 2 * layer], cross[:, 2 * layer + 1], cross_mask)
        return self.logits(x[:, 0]), torch.stack(present, dim=1)
