"""T5 (Raffel et al., 2020): a text to another. Stages: `text_encoder`, `text_decoder`.

Positions enter as a bias on the scores of self-attention, by the distance between two tokens; in
`step` each row has its own, because rows have come differently far.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import EncoderDecoderCache, T5ForConditionalGeneration
from transformers.modeling_outputs import BaseModelOutput

from sensorium_export.families.decoding import CachedDecoder, Generate, generating, slots_for
from sensorium_export.families.ensembles import other
from sensorium_export.families.generation import generation_from
from sensorium_export.families.source import FamilySource, loaded
from sensorium_export.families.texts import reading, text_recipe, text_tokenizer
from sensorium_export.recipe import TextRecipe, family_recipe, required

LONGEST = 512
"""Tokens of a text, where the tokenizer knows no limit: what T5 was trained with."""


class TextEncoder(nn.Module):
    """Words to tokens."""

    def __init__(self, t5: Any) -> None:  # noqa: ANN401 - transformers is untyped
        super().__init__()
        self.encoder = t5.encoder

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return text_tokens [batch, sequence, text_width]."""
        tokens: Tensor = self.encoder(
            input_ids=input_ids, attention_mask=attention_mask
        ).last_hidden_state
        return tokens


class TextDecoder(CachedDecoder):
    """T5's decoder."""

    def __init__(self, t5: Any) -> None:  # noqa: ANN401 - transformers is untyped
        super().__init__(t5.decoder.block)
        self.embed, self.norm, self.head = t5.shared, t5.decoder.final_layer_norm, t5.lm_head
        self.scale = t5.model_dim**-0.5 if t5.config.scale_decoder_outputs else 1.0

    def run(
        self,
        token_id: Tensor,
        position: Tensor,
        memory: Tensor | None,
        masks: tuple[Tensor | None, Tensor | None],
        cache: EncoderDecoderCache,
    ) -> Tensor:
        """Return the logits that follow a token."""
        states = self.embed(token_id)
        near = self._bias(position, 0 if masks[0] is None else masks[0].shape[-1] - 1)
        for layer in self.layers:
            states = layer(
                states,
                attention_mask=masks[0],
                position_bias=near,
                encoder_hidden_states=states if memory is None else memory,
                encoder_attention_mask=masks[1],
                cache=cache,
            )[0]
        logits: Tensor = self.head(self.norm(states) * self.scale)
        return logits[:, 0]

    def _bias(self, position: Tensor, past: int) -> Tensor:
        """Return the bias by distance, [batch, heads, 1, past + 1]."""
        first: Any = self.layers[0]
        attention = first.layer[0].SelfAttention
        before = torch.arange(past)[None] - position
        distance = torch.cat([before, torch.zeros_like(position)], dim=1)
        bucket = attention._relative_position_bucket(  # noqa: SLF001 - the library's own
            distance,
            bidirectional=False,
            num_buckets=attention.relative_attention_num_buckets,
            max_distance=attention.relative_attention_max_distance,
        )
        bias: Tensor = attention.relative_attention_bias(bucket)
        return bias.transpose(1, 2)[:, :, None, :]


def load(path: Path, bundle: str) -> FamilySource:
    """Load a `T5ForConditionalGeneration` with its tokenizer.

    Raises:
        ConfigurationError: Config, weights and tokenizer do not belong together.
    """
    t5 = loaded(T5ForConditionalGeneration, path)
    tokenizer, config = text_tokenizer(path), t5.config
    holder = nn.Module()
    holder.text_encoder, holder.text_decoder = TextEncoder(t5), TextDecoder(t5)
    sizes = {
        "text_width": config.d_model,
        "memory_width": config.d_model,
        "vocabulary": config.vocab_size,
        "kv_layers": 2 * config.num_decoder_layers,
        "heads": config.num_heads,
        "head_dim": config.d_kv,
    }
    recipe = family_recipe(
        bundle,
        other("text_generation"),
        sizes,
        text=text_recipe(
            tokenizer,
            min(tokenizer.model_max_length, LONGEST),
            **generation_from(t5.generation_config, slots=slots_for(sizes, LONGEST)),
        ),
    )
    return FamilySource(
        path,
        holder.eval(),
        recipe,
        read=reading(tokenizer),
        generate=_generate(t5.eval(), required(recipe.text)),
    )


def _generate(t5: Any, text: TextRecipe) -> Generate:  # noqa: ANN401 - transformers is untyped
    ask = generating(t5.generate, text)

    def generate(memory: Tensor, mask: Tensor) -> tuple[list[int], float]:
        return ask(encoder_outputs=BaseModelOutput(last_hidden_state=memory), attention_mask=mask)

    return generate
