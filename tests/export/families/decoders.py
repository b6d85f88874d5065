"""Small text decoders of transformers with random weights, and their `cross` and `step`."""

import os
from typing import Any

import numpy as np
import torch

os.environ.setdefault("HF_HUB_OFFLINE", "1")

from transformers import (
    BlipTextConfig,
    GenerationMixin,
    GPT2Config,
    GPT2LMHeadModel,
    T5Config,
    WhisperConfig,
    WhisperForConditionalGeneration,
)
from transformers.cache_utils import DynamicCache, EncoderDecoderCache
from transformers.modeling_outputs import BaseModelOutput
from transformers.models.blip.modeling_blip_text import BlipTextLMHeadModel
from transformers.models.t5.modeling_t5 import T5ForConditionalGeneration

VOCABULARY = 60
WIDTH = 32
HEADS = 4
LAYERS = 2
CACHE_SHAPE = (2 * LAYERS, HEADS, WIDTH // HEADS)
PAD, BOS, EOS = 0, 1, 2

_IDS: dict[str, Any] = {"bos_token_id": BOS, "eos_token_id": EOS, "pad_token_id": PAD}


class SmallDecoder:
    """A decoder of the library, asked for one token as a bundle's graphs are, or for all."""

    def __init__(self, kind: str, seed: int) -> None:
        torch.manual_seed(seed)
        self._encoded = kind in {"t5", "whisper"}
        self.masks = kind != "whisper"
        """Whether it takes a mask of its memory; where not, all of it is always seen."""
        self._options = {"is_decoder": True} if kind == "blip" else {}
        self.model: Any = {"blip": _blip, "gpt2": _gpt2, "t5": _t5, "whisper": _whisper}[kind]()
        with torch.no_grad():
            # As initialised, all tokens would be about as likely.
            for weight in self.model.parameters():
                weight.add_(torch.randn_like(weight) * 0.25)
        self.model.eval()

    def generate(self, prompt: Any, memory: Any, mask: Any, **options: Any) -> list[list[int]]:  # noqa: ANN401
        """Return the library's own texts, without the prompt."""
        ids = torch.tensor([prompt] * len(memory))
        named = self._named(ids, torch.from_numpy(memory), torch.from_numpy(mask))
        with torch.no_grad():
            made = GenerationMixin.generate(self.model, **named, **options, pad_token_id=PAD)
        texts: list[list[int]] = made[:, len(prompt) :].tolist()
        return texts

    def cross(self, memory: Any) -> Any:  # noqa: ANN401 - arrays
        """Return the keys and values of memories [n,memory,width]."""
        states = torch.from_numpy(memory)
        mask = torch.ones(states.shape[:2], dtype=torch.long)
        cache: Any = EncoderDecoderCache(DynamicCache(), DynamicCache())
        self._asked(torch.full((len(memory), 1), BOS), states, mask, cache)
        return _stacked(cache.cross_attention_cache).numpy()

    def step(self, token: Any, position: Any, past: Any, cross: Any, mask: Any) -> Any:  # noqa: ANN401
        """Return logits and present, one row after the other, each with a cache of its own."""
        rows = zip(token, position, past, cross, mask, strict=True)
        answers = [self._row(*map(torch.as_tensor, row)) for row in rows]
        return tuple(np.stack(part) for part in zip(*answers, strict=True))

    def _row(self, token: Any, position: Any, past: Any, cross: Any, mask: Any) -> Any:  # noqa: ANN401
        cache: Any = EncoderDecoderCache(DynamicCache(), DynamicCache())
        for layer in range(LAYERS):
            key, value = past[None, 2 * layer : 2 * layer + 2, :, :position].unbind(1)
            if position:
                cache.self_attention_cache.update(key, value, layer)
            key, value = cross[None, 2 * layer : 2 * layer + 2].unbind(1)
            cache.cross_attention_cache.update(key, value, layer)
            cache.is_updated[layer] = True
        unseen = torch.zeros(1, len(mask), WIDTH)
        out = self._asked(token[None, None], unseen, mask[None], cache)
        return out.logits[0, -1].numpy(), _stacked(cache.self_attention_cache)[0, :, :, -1].numpy()

    def _asked(self, ids: Any, memory: Any, mask: Any, cache: Any) -> Any:  # noqa: ANN401
        with torch.no_grad():
            return self.model(
                **self._named(ids, memory, mask),
                **self._options,
                cache=cache,
                use_cache=True,
            )

    def _named(self, ids: Any, memory: Any, mask: Any) -> dict[str, Any]:  # noqa: ANN401
        if self._encoded:
            encoded = BaseModelOutput(memory)
            given = {"decoder_input_ids": ids, "encoder_outputs": encoded}
            return given | ({"attention_mask": mask} if self.masks else {})
        return {
            "input_ids": ids,
            "encoder_hidden_states": memory,
            "encoder_attention_mask": mask,
        }


def _stacked(cache: Any) -> Any:  # noqa: ANN401 - a cache of the library, a tensor
    """Return keys and values as the contract has them, [n,kv_layers,heads,length,head_dim]."""
    return torch.stack([part for one in cache.layers for part in (one.keys, one.values)], dim=1)


def _blip() -> Any:  # noqa: ANN401 - transformers is untyped
    return BlipTextLMHeadModel(
        BlipTextConfig(
            **_IDS,
            vocab_size=VOCABULARY,
            hidden_size=WIDTH,
            encoder_hidden_size=WIDTH,
            intermediate_size=64,
            num_hidden_layers=LAYERS,
            num_attention_heads=HEADS,
            max_position_embeddings=64,
            sep_token_id=EOS,
            is_decoder=True,
        )
    )


def _gpt2() -> Any:  # noqa: ANN401 - transformers is untyped
    return GPT2LMHeadModel(
        GPT2Config(
            **_IDS,
            vocab_size=VOCABULARY,
            n_embd=WIDTH,
            n_layer=LAYERS,
            n_head=HEADS,
            n_positions=64,
            add_cross_attention=True,
        )
    )


def _t5() -> Any:  # noqa: ANN401 - transformers is untyped
    return T5ForConditionalGeneration(
        T5Config(
            **_IDS,
            vocab_size=VOCABULARY,
            d_model=WIDTH,
            d_kv=WIDTH // HEADS,
            d_ff=64,
            num_layers=LAYERS,
            num_heads=HEADS,
        )
    )


def _whisper() -> Any:  # noqa: ANN401 - transformers is untyped
    return WhisperForConditionalGeneration(
        WhisperConfig(
            **_IDS,
            vocab_size=VOCABULARY,
            d_model=WIDTH,
            encoder_layers=1,
            decoder_layers=LAYERS,
            encoder_attention_heads=HEADS,
            decoder_attention_heads=HEADS,
            encoder_ffn_dim=64,
            decoder_ffn_dim=64,
            max_target_positions=64,
            num_mel_bins=8,
            decoder_start_token_id=BOS,
        )
    )
