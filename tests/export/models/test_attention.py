"""Attention against PyTorch's own, and masks that really hide."""

import torch
from torch.nn import functional as F

from sensorium_export.models.attention import (
    CrossAttentionBlock,
    SelfAttentionBlock,
    key_mask,
    scaled_dot_product_attention,
)


def test_attention_equals_the_formula_of_the_paper() -> None:
    """softmax(QKᵀ/√d_k)V agrees with PyTorch's own kernel."""
    query, key, value = (torch.randn(2, 3, 5, 8) for _ in range(3))
    mask = torch.rand(2, 1, 5, 5) > 0.3
    mask[..., 0] = True

    expected = F.scaled_dot_product_attention(query, key, value, mask)
    actual = scaled_dot_product_attention(query, key, value, mask)

    torch.testing.assert_close(actual, expected)


def test_padding_cannot_change_other_positions() -> None:
    """What stands at masked positions does not reach the others."""
    block = SelfAttentionBlock(16, 2, 32)
    mask = key_mask(torch.tensor([[1, 1, 1, 0, 0]]))
    x = torch.randn(1, 5, 16)
    other = x.clone()
    other[:, 3:] = 1e3

    torch.testing.assert_close(block(x, mask)[:, :3], block(other, mask)[:, :3])


def test_masked_context_cannot_change_the_result() -> None:
    """A hidden context token is ignored, whatever it holds."""
    block = CrossAttentionBlock(16, 2, 32)
    x, context = torch.randn(1, 4, 16), torch.randn(1, 3, 16)
    mask = key_mask(torch.tensor([[1, 0, 1]]))
    other = context.clone()
    other[:, 1] = -1e3

    torch.testing.assert_close(block(x, context, None, mask), block(x, other, None, mask))
