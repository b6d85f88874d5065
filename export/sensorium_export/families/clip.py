"""CLIP: a picture and a text in one space (Radford et al., 2021). Stages: two encoders.

`CLIPModel` splits into `vision_model` with `visual_projection` and `text_model` with
`text_projection`; both embeddings are L2-normalised, as CLIP itself does before it compares them.
"""

from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F
from transformers import CLIPModel

from sensorium_export.families.ensembles import native
from sensorium_export.families.images import image_processor, image_recipe, seeing
from sensorium_export.families.source import FamilySource, loaded
from sensorium_export.families.texts import reading, text_recipe, text_tokenizer
from sensorium_export.recipe import family_recipe


class ImageEncoder(nn.Module):
    """Pixels to an embedding."""

    def __init__(self, clip: Any) -> None:  # noqa: ANN401 - transformers is untyped
        super().__init__()
        self.vision_model, self.visual_projection = clip.vision_model, clip.visual_projection

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Return image_embedding [batch, embedding_dim] of [batch, 3, image_size, image_size]."""
        pooled = self.vision_model(pixel_values=pixel_values).pooler_output
        return F.normalize(self.visual_projection(pooled), dim=-1)


class TextEncoder(nn.Module):
    """Tokens to an embedding."""

    def __init__(self, clip: Any) -> None:  # noqa: ANN401 - transformers is untyped
        super().__init__()
        self.text_model, self.text_projection = clip.text_model, clip.text_projection

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return text_embedding [batch, embedding_dim] of ids and mask [batch, sequence]."""
        pooled = self.text_model(input_ids=input_ids, attention_mask=attention_mask).pooler_output
        return F.normalize(self.text_projection(pooled), dim=-1)


class DualEncoder(nn.Module):
    """The two encoders by the names of their stages."""

    def __init__(self, clip: nn.Module) -> None:
        super().__init__()
        self.image_encoder, self.text_encoder = ImageEncoder(clip), TextEncoder(clip)


def load(path: Path, bundle: str) -> FamilySource:
    """Load a `CLIPModel` with its tokenizer and image processor.

    Raises:
        ConfigurationError: Config, weights and processor do not belong together.
    """
    clip = loaded(CLIPModel, path)
    processor, tokenizer = image_processor(path), text_tokenizer(path)
    vision, text = clip.config.vision_config, clip.config.text_config
    recipe = family_recipe(
        bundle,
        native("text_embedding", "image_embedding"),
        sizes={
            "image_size": vision.image_size,
            "embedding_dim": clip.config.projection_dim,
            "vocabulary": text.vocab_size,
        },
        image=image_recipe(path, processor, vision.image_size),
        text=text_recipe(tokenizer, text.max_position_embeddings),
    )
    return FamilySource(
        path,
        DualEncoder(clip).eval(),
        recipe,
        see=seeing(processor, vision.image_size),
        read=reading(tokenizer),
    )
