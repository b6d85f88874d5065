"""CLAP (Wu et al., 2023): a sound and a text in one space. Stages: two encoders.

Only checkpoints without fusion: those take random parts of a longer sound. Of a longer sound the
library takes a random window too; here it is the first, so that the same file has one answer.
"""

from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F
from transformers import ClapFeatureExtractor, ClapModel

from sensorium.errors import ConfigurationError
from sensorium_export.families.ensembles import native, other
from sensorium_export.families.sounds import check_extractor, hearing
from sensorium_export.families.source import CONFIG_FILE, FamilySource, loaded
from sensorium_export.families.texts import reading, text_recipe, text_tokenizer
from sensorium_export.recipe import AudioRecipe, family_recipe


class AudioEncoder(nn.Module):
    """A spectrogram to an embedding."""

    def __init__(self, clap: Any) -> None:  # noqa: ANN401 - transformers is untyped
        super().__init__()
        self.audio_model, self.audio_projection = clap.audio_model, clap.audio_projection

    def forward(self, log_mel: Tensor) -> Tensor:
        """Return audio_embedding [batch, embedding_dim] of log_mel [batch, mel_frames, mels]."""
        pooled = self.audio_model(input_features=log_mel[:, None]).pooler_output
        return F.normalize(self.audio_projection(pooled), dim=-1)


class TextEncoder(nn.Module):
    """Tokens to an embedding."""

    def __init__(self, clap: Any) -> None:  # noqa: ANN401 - transformers is untyped
        super().__init__()
        self.text_model, self.text_projection = clap.text_model, clap.text_projection

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return text_embedding [batch, embedding_dim] of ids and mask [batch, sequence]."""
        pad = self.text_model.config.pad_token_id
        ids = input_ids.where(attention_mask > 0, pad)
        pooled = self.text_model(input_ids=ids, attention_mask=attention_mask).pooler_output
        return F.normalize(self.text_projection(pooled), dim=-1)


def load(path: Path, bundle: str) -> FamilySource:
    """Load a `ClapModel` with its tokenizer and feature extractor.

    Raises:
        ConfigurationError: Config, weights and extractor do not belong together, or sounds are
            fused of random parts.
    """
    clap = loaded(ClapModel, path)
    if clap.config.audio_config.enable_fusion:
        raise ConfigurationError(
            f"{path.name}/{CONFIG_FILE}: audio_config.enable_fusion = true hears random parts of a "
            f"longer sound, which has no one answer. Use a checkpoint without fusion."
        )
    tokenizer = text_tokenizer(path)
    extractor: Any = ClapFeatureExtractor.from_pretrained(path, local_files_only=True)
    check_extractor(
        path, extractor, {"truncation": "rand_trunc", "padding": "repeatpad", "top_db": None}
    )
    holder, text = nn.Module(), clap.config.text_config
    holder.audio_encoder, holder.text_encoder = AudioEncoder(clap), TextEncoder(clap)
    rate, window = extractor.sampling_rate, int(extractor.nb_max_samples)
    recipe = family_recipe(
        bundle,
        native("text_embedding") | other("audio_embedding"),
        sizes={
            "mel_frames": window // extractor.hop_length + 1,
            "mels": extractor.feature_size,
            "embedding_dim": clap.config.projection_dim,
            "vocabulary": text.vocab_size,
        },
        text=text_recipe(tokenizer, text.max_position_embeddings - text.pad_token_id - 1),
        audio=AudioRecipe(
            rate,
            extractor.fft_window_size,
            extractor.hop_length,
            extractor.feature_size,
            float(extractor.frequency_min),
            float(extractor.frequency_max),
            mean=0.0,
            std=1.0,
            features="clap",
            window=window,
        ),
    )

    def extract(samples: Any) -> Any:  # noqa: ANN401 - transformers is untyped
        heard = samples[:window]
        return extractor(heard, sampling_rate=rate, return_tensors="np")["input_features"][:, 0]

    return FamilySource(
        path, holder.eval(), recipe, read=reading(tokenizer), hear=hearing(extract, rate)
    )
