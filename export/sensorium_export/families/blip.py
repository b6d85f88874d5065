"""BLIP (Li et al., 2022): captions, and answers to questions about a picture.

`BlipForConditionalGeneration`: `image_encoder`, `text_decoder`. `BlipForQuestionAnswering`: the
question's words are embedded by `text_encoder`, `fusion` is the text model that looks at the
picture, and `text_decoder` puts the answer into words.
"""

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    BlipForConditionalGeneration,
    BlipForQuestionAnswering,
    EncoderDecoderCache,
)

from sensorium_export.families.decoding import (
    CachedDecoder,
    Generate,
    added_mask,
    generating,
    slots_for,
)
from sensorium_export.families.ensembles import native
from sensorium_export.families.generation import generation_from
from sensorium_export.families.images import image_processor, image_recipe, seeing
from sensorium_export.families.source import CONFIG_FILE, FamilySource, loaded
from sensorium_export.families.texts import reading, text_recipe, text_tokenizer
from sensorium_export.recipe import TextRecipe, family_recipe, required


class ImageEncoder(nn.Module):
    """Pixels to tokens."""

    def __init__(self, blip: Any) -> None:  # noqa: ANN401 - transformers is untyped
        super().__init__()
        self.vision_model = blip.vision_model

    def forward(self, pixel_values: Tensor) -> tuple[Tensor, Tensor]:
        """Return image_tokens [batch, image_tokens, media_width] and image_mask."""
        tokens = self.vision_model(pixel_values=pixel_values).last_hidden_state
        return tokens, torch.ones(tokens.shape[:2], dtype=torch.long)


class TextEncoder(nn.Module):
    """Words to their embeddings."""

    def __init__(self, blip: Any) -> None:  # noqa: ANN401 - transformers is untyped
        super().__init__()
        self.embeddings = blip.text_encoder.embeddings

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
        """Return text_tokens [batch, sequence, text_width], and the first as text_embedding."""
        tokens = self.embeddings(input_ids=input_ids) * attention_mask[..., None]
        return tokens, tokens[:, 0]


class Fusion(nn.Module):
    """Words that look at a picture."""

    def __init__(self, blip: Any) -> None:  # noqa: ANN401 - transformers is untyped
        super().__init__()
        self.layers = blip.text_encoder.encoder.layer

    def forward(
        self, text_tokens: Tensor, attention_mask: Tensor, media_tokens: Tensor, media_mask: Tensor
    ) -> Tensor:
        """Return fused_tokens [batch, sequence, text_width]."""
        masks = (added_mask(attention_mask > 0), added_mask(media_mask > 0))
        states = text_tokens
        for layer in self.layers:
            states = _looked(layer, states, media_tokens, masks)
        return states


def _looked(
    layer: Any,  # noqa: ANN401 - transformers is untyped
    states: Tensor,
    seen: Tensor,
    masks: tuple[Tensor | None, Tensor | None],
    cache: EncoderDecoderCache | None = None,
) -> Tensor:
    """Run a layer as the library does, but hide what is masked of what is seen.

    `BlipTextLayer` of transformers 5.24 loses the mask of its cross-attention on the way.
    """
    states, _ = layer.attention(states, attention_mask=masks[0], cache=cache)
    context, _ = layer.crossattention.self(
        states,
        encoder_hidden_states=seen,
        encoder_attention_mask=masks[1],
        cache=cache,
    )
    states = layer.crossattention.output(context, states)
    looked: Tensor = layer.feed_forward_chunk(states)
    return looked


class TextDecoder(CachedDecoder):
    """BLIP's text decoder."""

    def __init__(self, decoder: Any) -> None:  # noqa: ANN401 - transformers is untyped
        super().__init__(decoder.bert.encoder.layer)
        self.embeddings, self.head = decoder.bert.embeddings, decoder.cls

    def run(
        self,
        token_id: Tensor,
        position: Tensor,
        memory: Tensor | None,
        masks: tuple[Tensor | None, Tensor | None],
        cache: EncoderDecoderCache,
    ) -> Tensor:
        """Return the logits that follow a token."""
        states = self.embeddings(input_ids=token_id, position_ids=position)
        seen = states if memory is None else memory
        for layer in self.layers:
            states = _looked(layer, states, seen, masks, cache)
        logits: Tensor = self.head(states)
        return logits[:, 0]


def load(path: Path, bundle: str) -> FamilySource:
    """Load a BLIP that captions or one that answers, with its tokenizer and image processor.

    Raises:
        ConfigurationError: Config, weights and processor do not belong together.
    """
    config = json.loads((path / CONFIG_FILE).read_text(encoding="utf-8"))
    answers = config.get("architectures") == ["BlipForQuestionAnswering"]
    blip = loaded(BlipForQuestionAnswering if answers else BlipForConditionalGeneration, path)
    processor, tokenizer = image_processor(path), text_tokenizer(path)
    vision, text = blip.config.vision_config, blip.config.text_config
    holder = nn.Module()
    holder.image_encoder, holder.text_decoder = ImageEncoder(blip), TextDecoder(blip.text_decoder)
    if answers:
        holder.text_encoder, holder.fusion = TextEncoder(blip), Fusion(blip)
    sizes = {
        "image_size": vision.image_size,
        "image_tokens": (vision.image_size // vision.patch_size) ** 2 + 1,
        "media_width": vision.hidden_size,
        "text_width": text.hidden_size,
        "embedding_dim": text.hidden_size,
        "memory_width": text.hidden_size if answers else vision.hidden_size,
        "vocabulary": text.vocab_size,
        "kv_layers": 2 * text.num_hidden_layers,
        "heads": text.num_attention_heads,
        "head_dim": text.hidden_size // text.num_attention_heads,
    }
    longest = max(sizes["image_tokens"], text.max_position_embeddings if answers else 0)
    recipe = family_recipe(
        bundle,
        native("visual_question_answering" if answers else "image_captioning"),
        sizes,
        image=image_recipe(path, processor, vision.image_size),
        text=text_recipe(
            tokenizer,
            text.max_position_embeddings,
            **generation_from(
                blip.text_decoder.generation_config,
                prompt_ids=(text.bos_token_id,),
                eos_ids=(text.sep_token_id,),
                slots=slots_for(sizes, longest),
            ),
        ),
    )
    return FamilySource(
        path,
        holder.eval(),
        recipe,
        see=seeing(processor, vision.image_size),
        read=reading(tokenizer),
        generate=_generate(blip.text_decoder.eval(), required(recipe.text)),
    )


def _generate(decoder: Any, text: TextRecipe) -> Generate:  # noqa: ANN401 - transformers is untyped
    """Generate as `BlipForConditionalGeneration` and `BlipForQuestionAnswering` do."""
    ask = generating(decoder.generate, text, eos_token_id=text.eos_id, pad_token_id=text.pad_id)

    def generate(memory: Tensor, mask: Tensor) -> tuple[list[int], float]:
        begun = torch.full((1, 1), text.bos_id)
        return ask(input_ids=begun, encoder_hidden_states=memory, encoder_attention_mask=mask)

    return generate
