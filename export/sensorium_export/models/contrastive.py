"""The contrastive head: a set of tokens becomes one unit vector in the shared space.

Source: Radford et al., "Learning Transferable Visual Models From Natural Language Supervision"
(2021), section 2.3, with a per-token map before the mean (Zaheer et al., "Deep Sets", 2017).
"""

from torch import Tensor, nn
from torch.nn import functional as F


class ContrastiveHead(nn.Module):
    """Map tokens one by one, average those that count, project and normalise."""

    def __init__(self, width: int, embedding_dim: int) -> None:
        super().__init__()
        self.token = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU())
        self.project = nn.Linear(2 * width, embedding_dim)

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """Return [batch, embedding_dim] of L2 norm 1.

        Args:
            tokens: float, [batch, length, width].
            mask: int64, [batch, length]; 0 leaves a token out.
        """
        weight = mask[..., None].to(tokens.dtype)
        mean = (self.token(tokens) * weight).sum(1) / weight.sum(1).clamp(min=1)
        return F.normalize(self.project(mean), dim=-1)
