"""X-CLIP (Ni et al., 2022): a clip and a text in one space. Stages: two encoders.

The vectors are those of `get_video_features` and `get_text_features`, of length 1. The library's
`forward` also lets each clip bend the texts that it is compared with, by prompts: that needs both
at once and is not served.
"""

from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F
from transformers import XCLIPModel

from sensorium_export.families.ensembles import native
from sensorium_export.families.images import image_processor, image_recipe
from sensorium_export.families.source import FamilySource, loaded
from sensorium_export.families.texts import reading, text_recipe, text_tokenizer
from sensorium_export.families.videos import watching
from sensorium_export.recipe import VideoRecipe, family_recipe


class VideoEncoder(nn.Module):
    """Frames to an embedding."""

    def __init__(self, xclip: Any) -> None:  # noqa: ANN401 - transformers is untyped
        super().__init__()
        self.vision_model, self.visual_projection = xclip.vision_model, xclip.visual_projection
        self.mit = xclip.mit

    def forward(self, frames: Tensor) -> Tensor:
        """Return video_embedding [batch, embedding_dim] of frames."""
        pooled = self.vision_model(pixel_values=frames.flatten(0, 1)).pooler_output
        seen = self.visual_projection(pooled).unflatten(0, frames.shape[:2])
        return F.normalize(self.mit(seen).pooler_output, dim=-1)


class TextEncoder(nn.Module):
    """Tokens to an embedding, by the state of the greatest id: the end of the text."""

    def __init__(self, xclip: Any) -> None:  # noqa: ANN401 - transformers is untyped
        super().__init__()
        self.text_model, self.text_projection = xclip.text_model, xclip.text_projection

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return text_embedding [batch, embedding_dim] of ids and mask [batch, sequence]."""
        ids = input_ids.where(attention_mask > 0, 0)
        pooled = self.text_model(input_ids=ids, attention_mask=attention_mask).pooler_output
        return F.normalize(self.text_projection(pooled), dim=-1)


class DualEncoder(nn.Module):
    """The two encoders by the names of their stages."""

    def __init__(self, xclip: nn.Module) -> None:
        super().__init__()
        self.video_encoder, self.text_encoder = VideoEncoder(xclip), TextEncoder(xclip)


def load(path: Path, bundle: str) -> FamilySource:
    """Load an `XCLIPModel` with its tokenizer and processor.

    Raises:
        ConfigurationError: Config, weights and processor do not belong together.
    """
    xclip = loaded(XCLIPModel, path)
    processor, tokenizer = image_processor(path), text_tokenizer(path)
    vision, text = xclip.config.vision_config, xclip.config.text_config
    video = VideoRecipe(vision.num_frames)
    recipe = family_recipe(
        bundle,
        native("text_embedding", "video_embedding"),
        sizes={
            "image_size": vision.image_size,
            "frames": vision.num_frames,
            "embedding_dim": xclip.config.projection_dim,
            "vocabulary": text.vocab_size,
        },
        image=image_recipe(path, processor, vision.image_size),
        text=text_recipe(tokenizer, text.max_position_embeddings),
        video=video,
    )
    return FamilySource(
        path,
        DualEncoder(xclip).eval(),
        recipe,
        read=reading(tokenizer),
        watch=watching(processor, video),
    )
