"""ResNet (He et al., 2016): a picture to a vector or a class. Stage: one convolutional encoder.

The vector is the mean over all places of the last stage. A checkpoint with a classifier's head
offers `image_classification` too.
"""

import json
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from transformers import ResNetForImageClassification, ResNetModel

from sensorium_export.families.classifier import class_labels
from sensorium_export.families.ensembles import native, other
from sensorium_export.families.images import image_processor, image_recipe, seeing
from sensorium_export.families.source import CONFIG_FILE, FamilySource, loaded
from sensorium_export.recipe import family_recipe


class Backbone(nn.Module):
    """Pixels to the mean of the last stage."""

    def __init__(self, model: Any) -> None:  # noqa: ANN401 - transformers is untyped
        super().__init__()
        self.model = model

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Return image_embedding [batch, embedding_dim] of [batch, 3, image_size, image_size]."""
        pooled: Tensor = self.model(pixel_values=pixel_values).pooler_output
        return pooled.flatten(1)


class Classifier(nn.Module):
    """Pixels to the mean of the last stage and to logits."""

    def __init__(self, model: Any) -> None:  # noqa: ANN401 - transformers is untyped
        super().__init__()
        self.backbone, self.classifier = Backbone(model.resnet), model.classifier

    def forward(self, pixel_values: Tensor) -> tuple[Tensor, Tensor]:
        """Return image_embedding [batch, embedding_dim] and class_logits [batch, classes]."""
        pooled = self.backbone(pixel_values)
        return pooled, self.classifier(pooled)


def load(path: Path, bundle: str) -> FamilySource:
    """Load a ResNet, with or without a classifier's head, with its image processor.

    Raises:
        ConfigurationError: Config, weights and processor do not belong together.
    """
    config = json.loads((path / CONFIG_FILE).read_text(encoding="utf-8"))
    chains, sections, holder = native("image_embedding"), {}, nn.Module()
    if "ForImageClassification" in config.get("architectures", [""])[0]:
        model = loaded(ResNetForImageClassification, path)
        chains |= other("image_classification")
        sections["class_labels"] = class_labels(path, model.config)
        holder.image_encoder = Classifier(model)
    else:
        model = loaded(ResNetModel, path)
        holder.image_encoder = Backbone(model)
    processor = image_processor(path)
    image_size = processor.size["shortest_edge"]
    recipe = family_recipe(
        bundle,
        chains,
        sizes={
            "image_size": image_size,
            "embedding_dim": model.config.hidden_sizes[-1],
            "classes": len(sections.get("class_labels", ())),
        },
        image=image_recipe(path, processor, image_size),
        **sections,
    )
    return FamilySource(path, holder.eval(), recipe, see=seeing(processor, image_size))
