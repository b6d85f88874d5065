"""The losses of language: answers, captions, retrieval and what nouns and relations refer to."""

from torch import Tensor, nn
from torch.nn import functional as F

from sensorium_training.entities import ATTRIBUTES, PLACES, Entities
from sensorium_training.tokenizer import PAD_ID
from sensorium_training.world.scene import MAX_OBJECTS


def next_token_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the cross-entropy of the next token, averaged over tokens that are not padding.

    Args:
        logits: float, [batch, length, vocabulary].
        targets: int64, [batch, length]; `PAD_ID` where there is none.
    """
    return F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=PAD_ID)


def info_nce(queries: Tensor, keys: Tensor, positive: Tensor, log_scale: Tensor) -> Tensor:
    """Return InfoNCE in both directions, with any number of positives.

    Source: van den Oord et al., "Representation Learning with Contrastive Predictive Coding"
    (2018), equation 4; several positives share a query's loss as in Khosla et al., "Supervised
    Contrastive Learning" (2020), equation 2.

    Args:
        queries: float, [queries, embedding_dim], unit vectors.
        keys: float, [keys, embedding_dim], unit vectors.
        positive: bool, [queries, keys].
        log_scale: the logarithm of the inverse temperature.
    """
    logits = queries @ keys.T * log_scale.exp().clamp(max=100)
    weight = positive.float()
    forward = -(F.log_softmax(logits, 1) * weight).sum(1) / weight.sum(1).clamp(min=1)
    backward = -(F.log_softmax(logits, 0) * weight).sum(0) / weight.sum(0).clamp(min=1)
    return (forward.mean() + backward.mean()) / 2


class Grounding(nn.Module):
    """Heads that make each noun of one modality say what it refers to.

    Without them questions about two things stay at chance for long; they are thrown away after.
    """

    def __init__(self, width: int, modality: str) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.count = nn.Linear(width, MAX_OBJECTS + 1)
        self.place = nn.Linear(width, PLACES[modality])
        self.attributes = nn.ModuleDict(
            {name: nn.Linear(width, len(names)) for name, names in ATTRIBUTES[modality].items()}
        )

    def forward(self, tokens: Tensor, matched: Tensor, known: Entities) -> Tensor:
        """Return how badly nouns tell the count, and if it is one, the thing they refer to.

        Args:
            tokens: float, [nouns, width].
            matched: bool, [nouns, entities].
            known: the entities of each noun's world.
        """
        tokens = self.norm(tokens)
        count = matched.sum(1)
        loss = F.cross_entropy(self.count(tokens), count)
        single = count == 1
        if not single.any():
            return loss
        rows = single.nonzero()[:, 0]
        entity = matched[single].float().argmax(1)
        tokens = tokens[single]
        place = known.places[rows, entity]
        loss = loss + 2 * place.shape[-1] * (self.place(tokens) - place).abs().mean()
        for i, head in enumerate(self.attributes.values()):
            truth = known.attributes[rows, entity, i]
            loss = loss + 0.5 * F.cross_entropy(head(tokens), truth)
        return loss


class Comparing(nn.Module):
    """A head that makes each comparing word tell the difference it is about."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.difference = nn.Linear(width, 2)

    def forward(self, tokens: Tensor, difference: Tensor) -> Tensor:
        """Return how badly comparing words [n, width] tell the difference [n, 2]."""
        error: Tensor = (self.difference(tokens) - difference).abs().mean()
        return 4 * error
