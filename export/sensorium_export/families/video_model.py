"""What networks share that take the frames of a clip at once: VideoMAE and TimeSformer."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from sensorium_export.families.classifier import class_labels
from sensorium_export.families.ensembles import native, other
from sensorium_export.families.images import image_processor, image_recipe
from sensorium_export.families.source import CONFIG_FILE, FamilySource, loaded
from sensorium_export.families.videos import watching
from sensorium_export.recipe import VideoRecipe, family_recipe


@dataclass(frozen=True, slots=True)
class Kinds:
    """The library's classes without and with a head, and what makes a vector of the states."""

    backbone: Any
    classifier: Any
    pooled: Callable[[Tensor], Tensor]


class Backbone(nn.Module):
    """Frames to a vector."""

    def __init__(self, model: Any, pooled: Callable[[Tensor], Tensor]) -> None:  # noqa: ANN401
        super().__init__()
        self.model, self.pooled = model, pooled

    def forward(self, frames: Tensor) -> Tensor:
        """Return video_embedding [batch, embedding_dim] of frames."""
        return self.pooled(self.model(pixel_values=frames).last_hidden_state)


class Classifier(nn.Module):
    """Frames to logits."""

    def __init__(self, model: Any) -> None:  # noqa: ANN401 - transformers is untyped
        super().__init__()
        self.model = model

    def forward(self, frames: Tensor) -> Tensor:
        """Return class_logits [batch, classes] of frames."""
        logits: Tensor = self.model(pixel_values=frames).logits
        return logits


def video_source(path: Path, bundle: str, kinds: Kinds) -> FamilySource:
    """Load a checkpoint of one of two classes with its processor.

    Raises:
        ConfigurationError: Config, weights and processor do not belong together.
    """
    config = json.loads((path / CONFIG_FILE).read_text(encoding="utf-8"))
    holder, sections = nn.Module(), {}
    if "ForVideoClassification" in config.get("architectures", [""])[0]:
        model = loaded(kinds.classifier, path)
        chains = other("action_recognition")
        sections["class_labels"] = class_labels(path, model.config)
        holder.video_encoder = Classifier(model)
    else:
        model = loaded(kinds.backbone, path)
        chains = native("video_embedding")
        holder.video_encoder = Backbone(model, kinds.pooled)
    processor, video = image_processor(path), VideoRecipe(model.config.num_frames)
    classes = len(sections.get("class_labels", ()))
    recipe = family_recipe(
        bundle,
        chains,
        sizes={
            "image_size": model.config.image_size,
            "frames": model.config.num_frames,
            "embedding_dim": model.config.hidden_size,
            "classes": classes,
            "actions": classes,
        },
        image=image_recipe(path, processor, model.config.image_size),
        video=video,
        **sections,
    )
    return FamilySource(path, holder.eval(), recipe, watch=watching(processor, video))
