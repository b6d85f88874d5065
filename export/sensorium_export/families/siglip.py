"""SigLIP: a picture and a text in one space (Zhai et al., 2023). Stages: two encoders.

The text tower reads its padding: every text is padded to the length that it was trained with, no
position is masked, and the last one is the embedding. Both are L2-normalised, as SigLIP does before
it compares them.
"""

from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F
from transformers import SiglipModel

from sensorium_export.families.ensembles import native
from sensorium_export.families.images import image_processor, image_recipe, seeing
from sensorium_export.families.source import FamilySource, loaded
from sensorium_export.families.texts import reading, text_recipe, text_tokenizer
from sensorium_export.recipe import family_recipe


class ImageEncoder(nn.Module):
    """Pixels to an embedding."""

    def __init__(self, siglip: Any) -> None:  # noqa: ANN401 - transformers is untyped
        super().__init__()
        self.vision_model = siglip.vision_model

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Return image_embedding [batch, embedding_dim] of [batch, 3, image_size, image_size]."""
        return F.normalize(self.vision_model(pixel_values=pixel_values).pooler_output, dim=-1)


class TextEncoder(nn.Module):
    """Tokens to an embedding."""

    def __init__(self, siglip: Any, pad_id: int) -> None:  # noqa: ANN401 - transformers is untyped
        super().__init__()
        self.text_model, self.pad_id = siglip.text_model, pad_id

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return text_embedding [batch, embedding_dim] of ids and mask [batch, sequence]."""
        ids = input_ids.where(attention_mask > 0, self.pad_id)
        return F.normalize(self.text_model(input_ids=ids).pooler_output, dim=-1)


class DualEncoder(nn.Module):
    """The two encoders by the names of their stages."""

    def __init__(self, siglip: nn.Module, pad_id: int) -> None:
        super().__init__()
        self.image_encoder, self.text_encoder = ImageEncoder(siglip), TextEncoder(siglip, pad_id)


def load(path: Path, bundle: str) -> FamilySource:
    """Load a `SiglipModel` with its tokenizer and image processor.

    Raises:
        ConfigurationError: Config, weights and processor do not belong together.
    """
    siglip = loaded(SiglipModel, path)
    processor, tokenizer = image_processor(path), text_tokenizer(path)
    vision, text = siglip.config.vision_config, siglip.config.text_config
    length = text.max_position_embeddings
    reads = text_recipe(tokenizer, length, pad_to=length)
    recipe = family_recipe(
        bundle,
        native("text_embedding", "image_embedding"),
        sizes={
            "image_size": vision.image_size,
            "embedding_dim": text.projection_size,
            "vocabulary": text.vocab_size,
            "sequence": length,
        },
        image=image_recipe(path, processor, vision.image_size),
        text=reads,
    )
    return FamilySource(
        path,
        DualEncoder(siglip, reads.pad_id).eval(),
        recipe,
        see=seeing(processor, vision.image_size),
        read=reading(tokenizer),
    )
