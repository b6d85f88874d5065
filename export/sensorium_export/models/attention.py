"""Attention: softmax(QKᵀ/√d_k)V, its multi-head form and the blocks built from it.

Source: Vaswani et al., "Attention Is All You Need" (2017), sections 3.2.1, 3.2.2 and 3.3. Blocks
normalise before each part (pre-LN), after Xiong et al., "On Layer Normalization in the Transformer
Architecture" (2020).
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

MASKED = -6e4
"""Score of a masked position: finite, and inside the range of FP16."""


def scaled_dot_product_attention(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None
) -> Tensor:
    """Return softmax(QKᵀ/√d_k)V.

    Args:
        query: float, [..., queries, d_k].
        key: float, [..., keys, d_k].
        value: float, [..., keys, d_v].
        mask: bool, broadcastable to [..., queries, keys]; False hides a key.
    """
    scores = query @ key.transpose(-2, -1) * (1 / math.sqrt(query.shape[-1]))
    if mask is not None:
        scores = scores.masked_fill(~mask, MASKED)
    return torch.softmax(scores, dim=-1) @ value


class MultiHeadAttention(nn.Module):
    """Attention from one sequence to another (or itself) in several heads."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.output = nn.Linear(width, width)

    def split(self, x: Tensor) -> Tensor:
        """Return [batch, length, width] as [batch, heads, length, head_dim]."""
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def keys_and_values(self, context: Tensor) -> tuple[Tensor, Tensor]:
        """Return keys and values of `context`, each [batch, heads, length, head_dim]."""
        key, value = self.key_value(context).chunk(2, dim=-1)
        return self.split(key), self.split(value)

    def attend(self, x: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        """Attend from `x` [batch, queries, width] to given keys and values."""
        mixed = scaled_dot_product_attention(self.split(self.query(x)), key, value, mask)
        out: Tensor = self.output(mixed.transpose(1, 2).flatten(2))
        return out

    def forward(self, x: Tensor, context: Tensor, mask: Tensor | None = None) -> Tensor:
        """Attend from `x` [batch, queries, width] to `context` [batch, keys, width]."""
        return self.attend(x, *self.keys_and_values(context), mask)


class FeedForward(nn.Module):
    """Two linear layers with a GELU between."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.up = nn.Linear(width, hidden)
        self.down = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """Map each position of [..., width] on its own."""
        out: Tensor = self.down(F.gelu(self.up(x)))
        return out


class SelfAttentionBlock(nn.Module):
    """One pre-LN encoder layer."""

    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.norm_attention = nn.LayerNorm(width)
        self.attention = MultiHeadAttention(width, heads)
        self.norm_feedforward = nn.LayerNorm(width)
        self.feedforward = FeedForward(width, hidden)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Mix [batch, length, width] with itself under `mask`."""
        normed = self.norm_attention(x)
        x = x + self.attention(normed, normed, mask)
        return x + self.feedforward(self.norm_feedforward(x))


class CrossAttentionBlock(nn.Module):
    """One pre-LN layer that attends to itself, then to a context, then feeds forward."""

    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.norm_self = nn.LayerNorm(width)
        self.self_attention = MultiHeadAttention(width, heads)
        self.norm_cross = nn.LayerNorm(width)
        self.cross_attention = MultiHeadAttention(width, heads)
        self.norm_feedforward = nn.LayerNorm(width)
        self.feedforward = FeedForward(width, hidden)

    def forward(
        self, x: Tensor, context: Tensor, self_mask: Tensor | None, cross_mask: Tensor | None
    ) -> Tensor:
        """Return `x` [batch, length, width] informed by `context` [batch, keys, width]."""
        normed = self.norm_self(x)
        x = x + self.self_attention(normed, normed, self_mask)
        x = x + self.cross_attention(self.norm_cross(x), context, cross_mask)
        return x + self.feedforward(self.norm_feedforward(x))


def key_mask(mask: Tensor) -> Tensor:
    """Return an integer mask [batch, keys] as a bool one that broadcasts over heads and queries."""
    return mask[:, None, None, :] != 0
