"""AST (Gong et al., 2021): a sound to a vector or to tags. Stage: one audio encoder.

The vector is the model's pooled output. A checkpoint with a classifier's head offers
`audio_tagging` instead: classes exclude each other unless the config's `problem_type` is
`multi_label_classification`, as in transformers' pipeline.
"""

import json
import warnings
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from transformers import ASTFeatureExtractor, ASTForAudioClassification, ASTModel

from sensorium_export.families.classifier import class_labels
from sensorium_export.families.ensembles import other
from sensorium_export.families.sounds import check_extractor, hearing
from sensorium_export.families.source import CONFIG_FILE, FamilySource, loaded
from sensorium_export.recipe import AudioRecipe, family_recipe

_HOP = 160
_FFT = 512
_MIN_HZ = 20.0


class Backbone(nn.Module):
    """A spectrogram to a vector."""

    def __init__(self, model: Any) -> None:  # noqa: ANN401 - transformers is untyped
        super().__init__()
        self.model = model

    def forward(self, log_mel: Tensor) -> Tensor:
        """Return audio_embedding [batch, embedding_dim] of log_mel [batch, mel_frames, mels]."""
        pooled: Tensor = self.model(input_values=log_mel).pooler_output
        return pooled


class Classifier(nn.Module):
    """A spectrogram to logits."""

    def __init__(self, model: Any) -> None:  # noqa: ANN401 - transformers is untyped
        super().__init__()
        self.model = model

    def forward(self, log_mel: Tensor) -> Tensor:
        """Return class_logits [batch, classes] of log_mel [batch, mel_frames, mels]."""
        logits: Tensor = self.model(input_values=log_mel).logits
        return logits


def load(path: Path, bundle: str) -> FamilySource:
    """Load an AST, with or without a classifier's head, with its feature extractor.

    Raises:
        ConfigurationError: Config, weights and extractor do not belong together.
    """
    config = json.loads((path / CONFIG_FILE).read_text(encoding="utf-8"))
    holder, sections = nn.Module(), dict[str, Any]()
    if "ForAudioClassification" in config.get("architectures", [""])[0]:
        model = loaded(ASTForAudioClassification, path)
        chains = other("audio_tagging")
        many = model.config.problem_type == "multi_label_classification"
        sections["class_labels"] = class_labels(path, model.config)
        sections["activation"] = "sigmoid" if many else "softmax"
        holder.audio_encoder = Classifier(model)
    else:
        model = loaded(ASTModel, path)
        chains = other("audio_embedding")
        holder.audio_encoder = Backbone(model)
    with warnings.catch_warnings():
        # It has a band with no frequency in it, as the networks were trained.
        warnings.filterwarnings("ignore", "At least one mel filter")
        extractor: Any = ASTFeatureExtractor.from_pretrained(path, local_files_only=True)
    frames, mels = model.config.max_length, model.config.num_mel_bins
    check_extractor(
        path, extractor, {"max_length": frames, "num_mel_bins": mels, "do_normalize": True}
    )
    rate, classes = extractor.sampling_rate, len(sections.get("class_labels", ()))
    recipe = family_recipe(
        bundle,
        chains,
        sizes={
            "mel_frames": frames,
            "mels": mels,
            "embedding_dim": model.config.hidden_size,
            "classes": classes,
            "sounds": classes,
        },
        audio=AudioRecipe(
            *(rate, _FFT, _HOP, mels, _MIN_HZ, float(rate // 2), extractor.mean, extractor.std),
            features="ast",
            window=frames,
        ),
        **sections,
    )

    def extract(samples: Any) -> Any:  # noqa: ANN401 - transformers is untyped
        return extractor(samples, sampling_rate=rate, return_tensors="np")["input_values"]

    return FamilySource(path, holder.eval(), recipe, hear=hearing(extract, rate))
