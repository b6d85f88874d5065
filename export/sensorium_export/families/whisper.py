"""Whisper (Radford et al., 2022): speech to its text. Stages: `audio_encoder`, `text_decoder`.

The first tokens tell language and task. A multilingual checkpoint must say its language, in
`generation_config.json`: the library else guesses one for each sound.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    EncoderDecoderCache,
    GenerationMixin,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
)
from transformers.modeling_outputs import BaseModelOutput

from sensorium.errors import ConfigurationError
from sensorium_export.families.decoding import CachedDecoder, Generate, generating, slots_for
from sensorium_export.families.ensembles import other
from sensorium_export.families.generation import generation_from
from sensorium_export.families.sounds import check_extractor, hearing
from sensorium_export.families.source import GENERATION_FILE, FamilySource, loaded
from sensorium_export.families.texts import text_recipe, text_tokenizer
from sensorium_export.recipe import AudioRecipe, TextRecipe, family_recipe, required

_MAX_HZ = 8000.0


class AudioEncoder(nn.Module):
    """A spectrogram to tokens."""

    def __init__(self, model: Any) -> None:  # noqa: ANN401 - transformers is untyped
        super().__init__()
        self.encoder = model.model.encoder

    def forward(self, log_mel: Tensor) -> tuple[Tensor, Tensor]:
        """Return audio_tokens [batch, audio_tokens, media_width] and audio_mask."""
        tokens = self.encoder(input_features=log_mel.transpose(1, 2)).last_hidden_state
        return tokens, torch.ones(tokens.shape[:2], dtype=torch.long)


class TextDecoder(CachedDecoder):
    """Whisper's decoder."""

    def __init__(self, model: Any) -> None:  # noqa: ANN401 - transformers is untyped
        decoder = model.model.decoder
        super().__init__(decoder.layers)
        self.words, self.places = decoder.embed_tokens, decoder.embed_positions
        self.norm, self.head = decoder.layer_norm, model.proj_out

    def run(
        self,
        token_id: Tensor,
        position: Tensor,
        memory: Tensor | None,
        masks: tuple[Tensor | None, Tensor | None],
        cache: EncoderDecoderCache,
    ) -> Tensor:
        """Return the logits that follow a token."""
        places: Any = self.places
        states = self.words(token_id) + places.weight[position]
        for layer in self.layers:
            found = layer(
                states,
                attention_mask=masks[0],
                encoder_hidden_states=states if memory is None else memory,
                encoder_attention_mask=masks[1],
                cache=cache,
            )
            states = found[0] if isinstance(found, tuple) else found
        logits: Tensor = self.head(self.norm(states))
        return logits[:, 0]


def load(path: Path, bundle: str) -> FamilySource:
    """Load a `WhisperForConditionalGeneration` with its tokenizer and feature extractor.

    Raises:
        ConfigurationError: Config, weights and extractor do not belong together, or no language is
            set.
    """
    model = loaded(WhisperForConditionalGeneration, path)
    tokenizer, config = text_tokenizer(path), model.config
    extractor: Any = WhisperFeatureExtractor.from_pretrained(path, local_files_only=True)
    frames = extractor.nb_max_frames
    check_extractor(
        path,
        extractor,
        {"feature_size": config.num_mel_bins, "nb_max_frames": 2 * config.max_source_positions}
        | {"dither": 0.0, "padding_value": 0.0},
    )
    holder = nn.Module()
    holder.audio_encoder, holder.text_decoder = AudioEncoder(model), TextDecoder(model)
    sizes = _sizes(config, frames)
    prompt = _prompt(path, model.generation_config)
    settings = model.generation_config
    settings.language = settings.task = None  # they are in the prompt
    recipe = family_recipe(
        bundle,
        other("speech_recognition"),
        sizes,
        text=text_recipe(
            tokenizer,
            config.max_target_positions,
            **generation_from(
                settings, prompt_ids=prompt, slots=slots_for(sizes, sizes["audio_tokens"])
            ),
        ),
        audio=AudioRecipe(
            extractor.sampling_rate,
            extractor.n_fft,
            extractor.hop_length,
            extractor.feature_size,
            *(0.0, _MAX_HZ, 0.0, 1.0),
            features="whisper",
            window=extractor.n_samples,
        ),
    )

    def extract(samples: Any) -> Any:  # noqa: ANN401 - transformers is untyped
        silent = torch.nn.functional.pad(
            torch.from_numpy(samples), (0, extractor.n_samples - len(samples))
        )
        spectrogram = extractor._np_extract_fbank_features  # noqa: SLF001 - in double precision
        return spectrogram(silent.numpy()[None], "cpu").transpose(0, 2, 1)

    return FamilySource(
        path,
        holder.eval(),
        recipe,
        hear=hearing(extract, extractor.sampling_rate),
        generate=_generate(model.eval(), required(recipe.text), prompt),
    )


def _sizes(config: Any, frames: int) -> dict[str, int]:  # noqa: ANN401 - untyped
    return {
        "mel_frames": frames,
        "mels": config.num_mel_bins,
        "audio_tokens": config.max_source_positions,
        "media_width": config.d_model,
        "memory_width": config.d_model,
        "vocabulary": config.vocab_size,
        "kv_layers": 2 * config.decoder_layers,
        "heads": config.decoder_attention_heads,
        "head_dim": config.d_model // config.decoder_attention_heads,
    }


def _prompt(path: Path, settings: Any) -> tuple[int, ...]:  # noqa: ANN401 - untyped
    """Return the first tokens: start, language and task where there are several, no timestamps."""
    tokens = [settings.decoder_start_token_id]
    languages = getattr(settings, "lang_to_id", None)
    if getattr(settings, "is_multilingual", False) and languages:
        language = str(getattr(settings, "language", None) or "").strip("<|>")
        if f"<|{language}|>" not in languages:
            known = ", ".join(sorted(name.strip("<|>") for name in languages)[:8])
            raise ConfigurationError(
                f'{path.name}/{GENERATION_FILE}: language = "{language}" is none of the '
                f"checkpoint's ({known}, …), which would be guessed for each sound. Set one."
            )
        task = getattr(settings, "task", None) or "transcribe"
        tokens += [languages[f"<|{language}|>"], settings.task_to_id[task]]
    silent = getattr(settings, "no_timestamps_token_id", None)
    return (*tokens, silent) if silent is not None else tuple(tokens)


def _generate(model: Any, text: TextRecipe, prompt: tuple[int, ...]) -> Generate:  # noqa: ANN401
    def plain(**given: Any) -> Any:  # noqa: ANN401
        """Generate for one window: Whisper's own `generate` would cut a sound into several."""
        return GenerationMixin.generate(model, **given)

    ask = generating(plain, text)

    def generate(memory: Tensor, _mask: Tensor) -> tuple[list[int], float]:
        return ask(
            encoder_outputs=BaseModelOutput(last_hidden_state=memory),
            decoder_input_ids=torch.tensor([prompt]),
        )

    return generate
