"""SigLIP and SigLIP2: a picture and a text in one space (Zhai et al., 2023). Stages: two encoders.

The text tower reads its padding: every text is padded to the length that it was trained with, on
the side that the tokenizer says, no position is masked, and the last one is the embedding. Both are
L2-normalised, as SigLIP does before it compares them. SigLIP2 (Tschannen et al., 2025) of a fixed
resolution is a SigLIP with Gemma's tokenizer, which pads on the left if its files say nothing.
"""

from pathlib import Path
from typing import Any

import torch
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

    def __init__(
        self,
        siglip: Any,  # noqa: ANN401 - transformers is untyped
        pad_id: int,
        *,
        pad_left: bool = False,
    ) -> None:
        super().__init__()
        self.text_model, self.pad_id, self.pad_left = siglip.text_model, pad_id, pad_left

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return text_embedding [batch, embedding_dim] of ids and mask [batch, sequence]."""
        ids = input_ids.where(attention_mask > 0, self.pad_id)
        if self.pad_left:
            length = ids.shape[1]
            first = attention_mask.sum(dim=1, keepdim=True)
            ids = ids.gather(1, (torch.arange(length) + first) % length)
        return F.normalize(self.text_model(input_ids=ids).pooler_output, dim=-1)


class DualEncoder(nn.Module):
    """The two encoders by the names of their stages."""

    def __init__(self, siglip: nn.Module, pad_id: int, *, pad_left: bool) -> None:
        super().__init__()
        self.image_encoder = ImageEncoder(siglip)
        self.text_encoder = TextEncoder(siglip, pad_id, pad_left=pad_left)


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
        DualEncoder(siglip, reads.pad_id, pad_left=tokenizer.padding_side == "left").eval(),
        recipe,
        see=seeing(processor, vision.image_size),
        read=reading(tokenizer),
    )
