"""CLIP: a picture and a text in one space (Radford et al., 2021). Stages: two encoders.

`CLIPModel` splits into `vision_model` with `visual_projection` and `text_model` with
`text_projection`; both embeddings are L2-normalised, as CLIP itself does before it compares them.
"""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import CLIPModel, CLIPTokenizer
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from sensorium.errors import ConfigurationError
from sensorium_export.families.source import PREPROCESSOR_FILE, FamilySource, loaded
from sensorium_export.recipe import ImageRecipe, TextRecipe, family_recipe

TASKS = ("text_embedding", "image_embedding")
_FILTERS = {2: "bilinear", 3: "bicubic", 1: "lanczos"}


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
    processor = CLIPImageProcessorPil.from_pretrained(path, local_files_only=True)
    tokenizer = CLIPTokenizer.from_pretrained(path, local_files_only=True)
    image_size = clip.config.vision_config.image_size
    recipe = family_recipe(
        bundle,
        TASKS,
        sizes={
            "image_size": image_size,
            "embedding_dim": clip.config.projection_dim,
            "vocabulary": clip.config.text_config.vocab_size,
        },
        image=image_recipe(path, processor, image_size),
        text=TextRecipe(
            max_tokens=clip.config.text_config.max_position_embeddings,
            pad_id=tokenizer.pad_token_id,
            unk_id=tokenizer.unk_token_id,
            bos_id=tokenizer.bos_token_id,
            eos_id=tokenizer.eos_token_id,
            max_new_tokens=1,
        ),
    )

    def see(picture: Image.Image) -> NDArray[np.float32]:
        pixels: NDArray[np.float32] = processor(images=picture, return_tensors="np").pixel_values
        return pixels

    def read(text: str) -> list[int]:
        ids: list[int] = tokenizer(text).input_ids
        return ids

    return FamilySource(path, DualEncoder(clip).eval(), recipe, see, read)


def image_recipe(path: Path, processor: Any, image_size: int) -> ImageRecipe:  # noqa: ANN401
    """Return what the image processor does as the stage's parameters.

    Raises:
        ConfigurationError: It does something that the stage cannot.
    """
    crop = {"height": image_size, "width": image_size}
    wanted = {
        "do_resize": True,
        "do_center_crop": True,
        "do_rescale": True,
        "do_normalize": True,
        "size": {"shortest_edge": image_size},
        "crop_size": crop,
        "rescale_factor": 1 / 255,
    }
    found = {name: getattr(processor, name) for name in wanted}
    found |= {name: _plain(found[name]) for name in ("size", "crop_size")}
    problems = [f"{name} = {found[name]}" for name in wanted if found[name] != wanted[name]]
    if int(processor.resample) not in _FILTERS:
        problems.append(f"resample = {processor.resample}")
    if problems:
        raise ConfigurationError(
            f"{path.name}/{PREPROCESSOR_FILE}: {'; '.join(problems)} cannot be served; "
            f"needed: {wanted}, resample 1, 2 or 3"
        )
    return ImageRecipe(
        image_size,
        _FILTERS[int(processor.resample)],
        tuple(processor.image_mean),
        tuple(processor.image_std),
        "center_crop",
    )


def _plain(size: Any) -> dict[str, int]:  # noqa: ANN401 - transformers' SizeDict
    return {name: value for name, value in dict(size).items() if value is not None}
