"""The stages of the model: shapes by the contract, for every choice of the config."""

import itertools

import pytest
import torch

from sensorium.errors import ConfigurationError
from sensorium_export.models import ModelConfig, MultimodalModel
from sensorium_export.models.config import CHOICES

SMALL = {
    "vocabulary": 20, "width": 32, "embedding_dim": 16, "heads": 2, "feedforward": 48,
    "text_layers": 1, "fusion_layers": 2,
}  # fmt: skip


def small(**changes: object) -> MultimodalModel:
    """Build a small random model."""
    torch.manual_seed(0)
    return MultimodalModel(ModelConfig.from_dict(SMALL | changes)).eval()


@pytest.mark.parametrize(
    ("encoder", "fusion"), [*itertools.product(CHOICES["image_encoder"], CHOICES["fusion"])]
)
def test_every_choice_gives_the_contracts_shapes(encoder: str, fusion: str) -> None:
    """Each encoder and each fusion can stand in for the other."""
    model = small(image_encoder=encoder, fusion=fusion)
    config = model.config
    ids = torch.randint(5, 20, (3, 7))
    mask = torch.ones_like(ids)

    image_tokens, image_mask, image_embedding = model.image_encoder(torch.randn(3, 3, 64, 64))
    text_tokens, text_embedding = model.text_encoder(ids, mask)
    fused = model.fusion(text_tokens, mask, image_tokens, image_mask)

    assert image_tokens.shape == (3, config.image_tokens, 32)
    assert image_mask.shape == (3, config.image_tokens)
    assert text_tokens.shape == fused.shape == (3, 7, 32)
    for embedding in (image_embedding, text_embedding):
        torch.testing.assert_close(embedding.norm(dim=1), torch.ones(3))


@pytest.mark.parametrize(
    ("part", "choice"),
    [("audio_encoder", "cnn"), ("video_encoder", "tracks"), ("image_decoder", "diffusion")],
)
def test_parts_are_there_only_if_the_config_says_so(part: str, choice: str) -> None:
    """A model of text and images carries no weights for sound, video and drawing."""
    assert hasattr(small(**{part: choice}), part)
    assert not hasattr(small(), part)


def test_cached_steps_equal_the_whole_sequence() -> None:
    """Decoding token by token with the KV cache gives the logits of decoding at once."""
    decoder = small().text_decoder
    ids = torch.randint(0, 20, (2, 6))
    memory, mask = torch.randn(2, 4, 32), torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]])

    whole = decoder(ids, memory, mask)

    cross = decoder.cross(memory)
    past = torch.zeros(2, 4, 2, 6, 16)
    for at in range(6):
        logits, past[:, :, :, at] = decoder.step(
            ids[:, at], torch.full((2,), at), past, cross, mask
        )
        torch.testing.assert_close(logits, whole[:, at], atol=1e-5, rtol=1e-4)


def test_rows_at_different_positions_share_a_step() -> None:
    """A row's logits do not depend on how far the other rows of the batch are."""
    decoder = small().text_decoder
    memory, mask = torch.randn(2, 4, 32), torch.ones(2, 4, dtype=torch.int64)
    cross, past = decoder.cross(memory), torch.randn(2, 4, 2, 5, 16)
    token, position = torch.tensor([7, 8]), torch.tensor([5, 2])

    both, _ = decoder.step(token, position, past, cross, mask)
    alone, _ = decoder.step(token[1:], position[1:], past[1:, :, :, :2], cross[1:], mask[1:])

    torch.testing.assert_close(both[1:], alone, atol=1e-5, rtol=1e-4)


def test_unknown_choice_names_the_known_ones() -> None:
    """A config that asks for an encoder we lack says which there are."""
    with pytest.raises(ConfigurationError, match=r"resnet.*cnn, vit"):
        small(image_encoder="resnet")


def test_unknown_key_is_refused() -> None:
    """A typo in the config is an error, not a default."""
    with pytest.raises(ConfigurationError, match="widht"):
        small(widht=3)


def test_heads_must_divide_the_width() -> None:
    """A width that heads cannot share is refused when the config is read."""
    with pytest.raises(ConfigurationError, match=r"width = 32.*heads = 5"):
        small(heads=5)
