"""`VisionEncoderDecoderModel`: a picture to a text, such as ViT with GPT-2. Stages: the two.

The encoder is any that gives tokens of one length; the decoder is GPT-2 (Radford et al., 2019) with
cross-attention. Where their widths differ, the projection between them is part of `cross`.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import EncoderDecoderCache, VisionEncoderDecoderModel
from transformers.modeling_outputs import BaseModelOutput

from sensorium.errors import ConfigurationError
from sensorium_export.families.decoding import CachedDecoder, Generate, generating, slots_for
from sensorium_export.families.ensembles import native
from sensorium_export.families.generation import generation_from
from sensorium_export.families.images import image_processor, image_recipe, seeing
from sensorium_export.families.source import CONFIG_FILE, FamilySource, loaded
from sensorium_export.families.texts import reading, text_recipe, text_tokenizer
from sensorium_export.recipe import TextRecipe, family_recipe, required

DECODERS = ("gpt2",)


class ImageEncoder(nn.Module):
    """Pixels to tokens."""

    def __init__(self, model: Any) -> None:  # noqa: ANN401 - transformers is untyped
        super().__init__()
        self.encoder = model.encoder

    def forward(self, pixel_values: Tensor) -> tuple[Tensor, Tensor]:
        """Return image_tokens [batch, image_tokens, media_width] and image_mask."""
        tokens = self.encoder(pixel_values=pixel_values).last_hidden_state
        return tokens, torch.ones(tokens.shape[:2], dtype=torch.long)


class TextDecoder(CachedDecoder):
    """GPT-2 with cross-attention."""

    def __init__(self, model: Any) -> None:  # noqa: ANN401 - transformers is untyped
        super().__init__(model.decoder.transformer.h)
        transformer = model.decoder.transformer
        self.wte, self.wpe, self.ln_f = transformer.wte, transformer.wpe, transformer.ln_f
        self.head = model.decoder.lm_head
        self.projection = getattr(model, "enc_to_dec_proj", nn.Identity())

    def run(
        self,
        token_id: Tensor,
        position: Tensor,
        memory: Tensor | None,
        masks: tuple[Tensor | None, Tensor | None],
        cache: EncoderDecoderCache,
    ) -> Tensor:
        """Return the logits that follow a token."""
        states = self.wte(token_id) + self.wpe(position)
        seen = None if memory is None else self.projection(memory)
        for layer in self.layers:
            states = layer(
                states,
                cache=cache,
                attention_mask=masks[0],
                encoder_hidden_states=states if seen is None else seen,
                encoder_attention_mask=masks[1],
            )
        logits: Tensor = self.head(self.ln_f(states))
        return logits[:, 0]


def load(path: Path, bundle: str) -> FamilySource:
    """Load the two with their tokenizer and image processor.

    Raises:
        ConfigurationError: Config, weights and processor do not belong together, or the decoder is
            none of `DECODERS`.
    """
    model = loaded(VisionEncoderDecoderModel, path)
    vision, text = model.config.encoder, model.config.decoder
    if text.model_type not in DECODERS:
        raise ConfigurationError(
            f'{path.name}/{CONFIG_FILE}: decoder.model_type = "{text.model_type}" cannot be '
            f"exported; those are: {', '.join(DECODERS)}"
        )
    processor, tokenizer = image_processor(path), text_tokenizer(path)
    holder = nn.Module()
    holder.image_encoder, holder.text_decoder = ImageEncoder(model), TextDecoder(model)
    with torch.no_grad():
        seen, _ = holder.image_encoder(torch.zeros(1, 3, vision.image_size, vision.image_size))
    sizes = {
        "image_size": vision.image_size,
        "image_tokens": seen.shape[1],
        "media_width": seen.shape[2],
        "memory_width": seen.shape[2],
        "vocabulary": text.vocab_size,
        "kv_layers": 2 * text.n_layer,
        "heads": text.n_head,
        "head_dim": text.n_embd // text.n_head,
    }
    recipe = family_recipe(
        bundle,
        native("image_captioning"),
        sizes,
        image=image_recipe(path, processor, vision.image_size),
        text=text_recipe(
            tokenizer,
            text.n_positions,
            **generation_from(
                model.generation_config, slots=slots_for(sizes, sizes["image_tokens"])
            ),
        ),
    )
    return FamilySource(
        path,
        holder.eval(),
        recipe,
        see=seeing(processor, vision.image_size),
        read=reading(tokenizer),
        generate=_generate(model.eval(), required(recipe.text)),
    )


def _generate(model: Any, text: TextRecipe) -> Generate:  # noqa: ANN401 - transformers is untyped
    ask = generating(model.generate, text)

    def generate(memory: Tensor, _mask: Tensor) -> tuple[list[int], float]:
        return ask(encoder_outputs=BaseModelOutput(last_hidden_state=memory))

    return generate
