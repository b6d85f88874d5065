"""wav2vec 2.0 (Baevski et al., 2020): speech to its text, or to tags. Stage: one audio encoder.

A checkpoint with a CTC head offers `speech_recognition`, one with a classifier's head
`audio_tagging`. The network hears the samples themselves. In a batch, what is padded is left out of
every mean, also of the first layer's, so that a sound's answer is that of the sound alone; the
library pads with silence there, which changes it.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import (
    Wav2Vec2CTCTokenizer,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2ForCTC,
    Wav2Vec2ForSequenceClassification,
)

from sensorium.errors import ConfigurationError
from sensorium_export.families.classifier import class_labels
from sensorium_export.families.ensembles import listening
from sensorium_export.families.sounds import Hear
from sensorium_export.families.source import CONFIG_FILE, FamilySource, loaded
from sensorium_export.recipe import CtcRecipe, WaveformRecipe, family_recipe
from sensorium_export.reference_input import mono_samples
from sensorium_export.seeded_inputs import LEAST

VOCABULARY_FILE = "vocab.json"
TOKENIZER_CONFIG = "tokenizer_config.json"
_SPACE = " "


class Speech(nn.Module):
    """Samples to the states of all layers, for each frame."""

    def __init__(self, model: Any) -> None:  # noqa: ANN401 - transformers is untyped
        super().__init__()
        self.convolutions = model.feature_extractor.conv_layers
        self.projection = model.feature_projection
        self.encoder = model.encoder
        self.is_stable = model.config.do_stable_layer_norm
        position = self.encoder.pos_conv_embed.conv
        nn.utils.parametrize.remove_parametrizations(position, "weight")

    def forward(self, waveform: Tensor, waveform_mask: Tensor) -> tuple[list[Tensor], Tensor]:
        """Return each layer's states [batch, speech_frames, width], and which frames are valid.

        Args:
            waveform: float, [batch, samples].
            waveform_mask: int64, [batch, samples]; 0 marks padding at the end.
        """
        features, lengths = waveform[:, None], waveform_mask.sum(1)
        for layer in self.convolutions:
            kernel, stride = layer.conv.kernel_size[0], layer.conv.stride[0]
            lengths = torch.div(lengths - kernel, stride, rounding_mode="floor") + 1
            norm = getattr(layer, "layer_norm", None)
            if isinstance(norm, nn.GroupNorm):
                features = layer.conv(features)
                features = _normalised(features, _valid(features.shape[2], lengths), norm)
                features = layer.activation(features)
            else:
                features = layer(features)
        valid = _valid(features.shape[2], lengths)
        state, _ = self.projection(features.transpose(1, 2))
        state = state * valid[..., None].to(state.dtype)
        state = state + self.encoder.pos_conv_embed(state)
        if not self.is_stable:
            state = self.encoder.layer_norm(state)
        hidden = torch.zeros_like(valid, dtype=state.dtype)
        hidden = hidden.masked_fill(~valid, torch.finfo(state.dtype).min)[:, None, None]
        states = [state]
        for layer in self.encoder.layers:
            states.append(layer(states[-1], attention_mask=hidden))
        return states, valid

    def last(self, states: list[Tensor]) -> Tensor:
        """Return the network's output, given the states of all layers."""
        last: Tensor = self.encoder.layer_norm(states[-1]) if self.is_stable else states[-1]
        return last


class Transcriber(nn.Module):
    """Samples to each frame's token."""

    def __init__(self, model: Any) -> None:  # noqa: ANN401 - transformers is untyped
        super().__init__()
        self.speech = Speech(model.wav2vec2)
        self.head = model.lm_head

    def forward(self, waveform: Tensor, waveform_mask: Tensor) -> tuple[Tensor, Tensor]:
        """Return ctc_logits [batch, speech_frames, vocabulary] and ctc_mask of samples."""
        states, valid = self.speech(waveform, waveform_mask)
        return self.head(self.speech.last(states)), valid.long()


class Classifier(nn.Module):
    """Samples to logits, by the mean of the frames' states."""

    def __init__(self, model: Any) -> None:  # noqa: ANN401 - transformers is untyped
        super().__init__()
        self.speech = Speech(model.wav2vec2)
        self.projector, self.head = model.projector, model.classifier
        weights = model.layer_weights if model.config.use_weighted_layer_sum else None
        self.layer_weights = weights

    def forward(self, waveform: Tensor, waveform_mask: Tensor) -> Tensor:
        """Return class_logits [batch, classes] of samples."""
        states, valid = self.speech(waveform, waveform_mask)
        if self.layer_weights is None:
            state = self.speech.last(states)
        else:
            shares = self.layer_weights.softmax(-1)
            state = (torch.stack(states, dim=1) * shares.view(-1, 1, 1)).sum(dim=1)
        shown = valid[..., None].to(state.dtype)
        logits: Tensor = self.head((self.projector(state) * shown).sum(1) / shown.sum(1))
        return logits


def load(path: Path, bundle: str) -> FamilySource:
    """Load a wav2vec 2.0 with a head, its feature extractor, and the tokenizer of a CTC head.

    Raises:
        ConfigurationError: There is no such head, or config, weights, extractor and tokenizer do
            not belong together or cannot be served.
    """
    config = json.loads((path / CONFIG_FILE).read_text(encoding="utf-8"))
    architecture = config.get("architectures", [""])[0]
    holder, sections, sizes = nn.Module(), dict[str, Any](), dict[str, int]()
    transcribe = None
    if architecture == "Wav2Vec2ForCTC":
        model = _loaded(Wav2Vec2ForCTC, path)
        holder.audio_encoder = Transcriber(model)
        chains = listening("speech_recognition")
        sections["ctc"], transcribe = _ctc(path, model.config.vocab_size)
        sizes["vocabulary"] = model.config.vocab_size
    elif architecture == "Wav2Vec2ForSequenceClassification":
        model = _loaded(Wav2Vec2ForSequenceClassification, path)
        holder.audio_encoder = Classifier(model)
        chains = listening("audio_tagging")
        sections["class_labels"] = class_labels(path, model.config)
        sizes["classes"] = sizes["sounds"] = len(sections["class_labels"])
    else:
        raise ConfigurationError(
            f'{path.name}/{CONFIG_FILE}: architectures = "{architecture}" has no task; those that '
            f"have one are Wav2Vec2ForCTC and Wav2Vec2ForSequenceClassification"
        )
    extractor: Any = Wav2Vec2FeatureExtractor.from_pretrained(path, local_files_only=True)
    waveform = WaveformRecipe(extractor.sampling_rate, normalize=extractor.do_normalize)
    recipe = family_recipe(bundle, chains, sizes=sizes, waveform=waveform, **sections)
    return FamilySource(
        path,
        holder.eval(),
        recipe,
        hear=_hearing(extractor),
        transcribe=transcribe,
        parts=(*FamilySource.parts, VOCABULARY_FILE, TOKENIZER_CONFIG),
    )


def _normalised(features: Tensor, valid: Tensor, norm: nn.GroupNorm) -> Tensor:
    """Normalise each channel over the frames that are valid (Wu and He, 2018, groups of one)."""
    shown = valid[:, None].to(features.dtype)
    count = shown.sum(2, keepdim=True)
    mean = (features * shown).sum(2, keepdim=True) / count
    spread = (features - mean) * shown
    variance = spread.square().sum(2, keepdim=True) / count
    scaled = spread * torch.rsqrt(variance + norm.eps)
    return scaled * norm.weight[:, None] + norm.bias[:, None]


def _valid(frames: int, lengths: Tensor) -> Tensor:
    return torch.arange(frames, device=lengths.device)[None] < lengths[:, None]


def _loaded(kind: Any, path: Path) -> Any:  # noqa: ANN401 - transformers is untyped
    """Load a model that hears as `Speech` does.

    Raises:
        ConfigurationError: It has adapters, or hears less than the server's shortest sound not.
    """
    model = loaded(kind, path, attn_implementation="eager")
    config = model.config
    if config.add_adapter or config.adapter_attn_dim is not None:
        raise ConfigurationError(
            f"{path.name}/{CONFIG_FILE}: adapters (add_adapter, adapter_attn_dim) are not served"
        )
    frames = LEAST["samples"]
    for kernel, stride in zip(config.conv_kernel, config.conv_stride, strict=True):
        frames = (frames - kernel) // stride + 1
    if frames < 1:
        raise ConfigurationError(
            f"{path.name}/{CONFIG_FILE}: conv_kernel = {config.conv_kernel} with conv_stride = "
            f"{config.conv_stride} hears nothing in {LEAST['samples']} samples, which are served"
        )
    return model


def _hearing(extractor: Any) -> Hear:  # noqa: ANN401 - transformers is untyped
    """Return what gives the samples of a sound's file as the library's extractor does."""

    def hear(data: bytes) -> dict[str, NDArray[Any]]:
        rate = extractor.sampling_rate
        heard = extractor(mono_samples(data, rate), sampling_rate=rate, return_tensors="np")
        values = np.asarray(heard["input_values"], np.float32)
        return {"waveform": values, "waveform_mask": np.ones(values.shape, np.int64)}

    return hear


def _ctc(path: Path, vocabulary: int) -> tuple[CtcRecipe, Any]:
    """Return how tokens become text, and the library's own way."""
    if not (path / VOCABULARY_FILE).is_file():
        raise ConfigurationError(
            f"{path.name} lacks {VOCABULARY_FILE}. Save the tokenizer into it by save_pretrained."
        )
    tokenizer: Any = Wav2Vec2CTCTokenizer.from_pretrained(path, local_files_only=True)
    if tokenizer.target_lang is not None or tokenizer.replace_word_delimiter_char != _SPACE:
        raise ConfigurationError(
            f"{path.name}/{TOKENIZER_CONFIG}: target_lang = {tokenizer.target_lang}, "
            f'replace_word_delimiter_char = "{tokenizer.replace_word_delimiter_char}" cannot be '
            f'served; needed: none, and a space ("{_SPACE}")'
        )
    tokens = tuple(map(str, tokenizer.convert_ids_to_tokens(range(vocabulary))))
    if len(tokenizer) > vocabulary or tokenizer.pad_token not in tokens:
        raise ConfigurationError(
            f"{path.name}/{VOCABULARY_FILE} names {len(tokenizer)} tokens, the blank "
            f'"{tokenizer.pad_token}" among them; the network of {CONFIG_FILE} knows {vocabulary}: '
            f"they are not of one checkpoint."
        )
    recipe = CtcRecipe(
        tokens,
        tokenizer.pad_token,
        tokenizer.word_delimiter_token,
        lower_case=bool(tokenizer.do_lower_case),
        clean_up=bool(tokenizer.clean_up_tokenization_spaces),
    )

    def transcribe(tokens: list[int]) -> str:
        return str(tokenizer.decode(tokens))

    return recipe, transcribe
