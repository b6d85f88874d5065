"""ViT (Dosovitskiy et al., 2021) and DINOv2 (Oquab et al., 2023): a picture to a vector or a class.

The vector is the last state of the class token, as both libraries' users take it. A checkpoint with
a classifier's head offers `image_classification` too.
"""

import json
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from transformers import (
    Dinov2ForImageClassification,
    Dinov2Model,
    ViTForImageClassification,
    ViTModel,
)

from sensorium_export.families.classifier import class_labels
from sensorium_export.families.ensembles import native, other
from sensorium_export.families.images import image_processor, image_recipe, seeing
from sensorium_export.families.source import CONFIG_FILE, FamilySource, loaded
from sensorium_export.recipe import family_recipe

_CLASSIFIERS = {"vit": ViTForImageClassification, "dinov2": Dinov2ForImageClassification}
_BACKBONES = {"vit": ViTModel, "dinov2": Dinov2Model}


class Backbone(nn.Module):
    """Pixels to the state of the class token."""

    def __init__(self, model: Any) -> None:  # noqa: ANN401 - transformers is untyped
        super().__init__()
        self.model = model

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Return image_embedding [batch, embedding_dim] of [batch, 3, image_size, image_size]."""
        states: Tensor = self.model(pixel_values=pixel_values).last_hidden_state
        return states[:, 0]


class Classifier(nn.Module):
    """Pixels to the state of the class token and to logits."""

    def __init__(self, model: Any, kind: str) -> None:  # noqa: ANN401 - transformers is untyped
        super().__init__()
        self.model, self.kind = model, kind

    def forward(self, pixel_values: Tensor) -> tuple[Tensor, Tensor]:
        """Return image_embedding [batch, embedding_dim] and class_logits [batch, classes]."""
        found = self.model(pixel_values=pixel_values, output_hidden_states=True)
        norm = getattr(self.model, self.kind).layernorm
        return norm(found.hidden_states[-1])[:, 0], found.logits


def load(path: Path, bundle: str) -> FamilySource:
    """Load a ViT or DINOv2, with or without a classifier's head, with its image processor.

    Raises:
        ConfigurationError: Config, weights and processor do not belong together.
    """
    config = json.loads((path / CONFIG_FILE).read_text(encoding="utf-8"))
    kind, chains, sections = config["model_type"], native("image_embedding"), {}
    holder = nn.Module()
    if "ForImageClassification" in config.get("architectures", [""])[0]:
        model = loaded(_CLASSIFIERS[kind], path)
        chains |= other("image_classification")
        sections["class_labels"] = class_labels(path, model.config)
        holder.image_encoder = Classifier(model, kind)
    else:
        model = loaded(_BACKBONES[kind], path)
        holder.image_encoder = Backbone(model)
    processor = image_processor(path)
    image_size = _input_size(processor, model.config.image_size)
    recipe = family_recipe(
        bundle,
        chains,
        sizes={
            "image_size": image_size,
            "embedding_dim": model.config.hidden_size,
            "classes": len(sections.get("class_labels", ())),
        },
        image=image_recipe(path, processor, image_size),
        **sections,
    )
    return FamilySource(path, holder.eval(), recipe, see=seeing(processor, image_size))


def _input_size(processor: Any, trained: int) -> int:  # noqa: ANN401 - transformers is untyped
    """Return the edge that the processor crops to: DINOv2 is used at less than its training's."""
    if processor.do_center_crop:
        cropped: int = processor.crop_size["height"]
        return cropped
    return trained
