"""A library's decoder as the two graphs of `text_decoder`: `cross` once a request, `step` a token.

The library's own layers run on a cache that is laid out by hand: keys and values of the memory,
and of the tokens so far, of which each row has as many as its `position` says.
"""

from abc import abstractmethod
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache, EncoderDecoderCache

from sensorium_export.recipe import TextRecipe

Generate = Callable[[Tensor, Tensor], tuple[list[int], float]]
Asked = Callable[..., tuple[list[int], float]]

_HIDDEN = torch.finfo(torch.float32).min


class CachedDecoder(nn.Module):
    """What all decoders with cross-attention share; a subclass runs its library's layers."""

    def __init__(self, layers: Iterable[nn.Module]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    @abstractmethod
    def run(
        self,
        token_id: Tensor,
        position: Tensor,
        memory: Tensor | None,
        masks: tuple[Tensor | None, Tensor | None],
        cache: EncoderDecoderCache,
    ) -> Tensor:
        """Return the logits [batch, vocabulary] that follow a token.

        Args:
            token_id: [batch, 1].
            position: How many tokens came before, [batch, 1].
            memory: [batch, memory, memory_width]; None when the cache has its keys and values.
            masks: What is added to the scores of the tokens so far, [batch, 1, 1, past + 1], and
                of the memory, [batch, 1, 1, memory]; None shows all.
            cache: The library's, which the layers read and write.
        """

    def cross(self, memory: Tensor) -> Tensor:
        """Return cross [batch, kv_layers, heads, memory, head_dim] of a memory."""
        cache = EncoderDecoderCache(DynamicCache(), DynamicCache())
        first = torch.zeros((memory.shape[0], 1), dtype=torch.long)
        self.run(first, first, memory, (None, None), cache)
        return stacked(cache.cross_attention_cache)

    def step(
        self, token_id: Tensor, position: Tensor, past: Tensor, cross: Tensor, memory_mask: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return logits [batch, vocabulary] and present; see `contract.DECODER_GRAPHS`."""
        layers = range(len(self.layers))
        cache = EncoderDecoderCache(filled_cache(past), filled_cache(cross))
        cache.is_updated = dict.fromkeys(layers, True)
        masks = (shown_so_far(position, past.shape[3]), added_mask(memory_mask > 0))
        logits = self.run(token_id[:, None], position[:, None], None, masks, cache)
        return logits, stacked(cache.self_attention_cache)[:, :, :, -1]


def filled_cache(planes: Tensor) -> DynamicCache:
    """Return a cache with the keys and values [batch, kv_layers, heads, n, head_dim]."""
    cache = DynamicCache()
    for layer in range(planes.shape[1] // 2):
        cache.update(planes[:, 2 * layer], planes[:, 2 * layer + 1], layer)
    return cache


def shown_so_far(position: Tensor, past: int) -> Tensor:
    """Return the mask of the tokens so far and the new one, [batch, 1, 1, past + 1]."""
    shown = torch.arange(past)[None] < position[:, None]
    return added_mask(torch.cat([shown, torch.ones_like(position[:, None]).bool()], dim=1))


def added_mask(shown: Tensor) -> Tensor:
    """Return what is added to scores, [batch, 1, 1, n]: 0 where shown, or the least."""
    hidden = torch.zeros(shown.shape).masked_fill(~shown, _HIDDEN)
    return hidden[:, None, None, :]


def generating(generate: Callable[..., Any], text: TextRecipe, **options: Any) -> Asked:  # noqa: ANN401
    """Return what asks the library to generate, for one row; see `FamilySource.generate`.

    Args:
        generate: The library's `generate`.
        text: Where its texts start and end.
        options: Further arguments of `generate`.
    """
    prompt = len(text.generation.prompt_ids) or 1
    ends = set(text.generation.eos_ids or (text.eos_id,))
    options |= {"max_new_tokens": text.max_new_tokens}

    def asked(**given: Any) -> tuple[list[int], float]:  # noqa: ANN401
        with torch.no_grad():
            found = generate(**given, **options, return_dict_in_generate=True, output_logits=True)
        tokens = found.sequences[0, prompt:].tolist()
        beams = getattr(found, "beam_indices", None)
        rows = [0] * len(tokens) if beams is None else beams[0].tolist()
        chances = [
            float(logits[row].double().log_softmax(dim=-1)[token])
            for token, row, logits in zip(tokens, rows, found.logits, strict=False)
            if row >= 0
        ]
        spoken = tokens[:-1] if tokens and tokens[-1] in ends else tokens
        return spoken, float(torch.tensor(chances, dtype=torch.float64).sum().exp())

    return asked


def stacked(cache: DynamicCache) -> Tensor:
    """Return keys and values of all layers, [batch, kv_layers, heads, n, head_dim]."""
    layers: list[Any] = cache.layers
    planes = [plane for layer in layers for plane in (layer.keys, layer.values)]
    return torch.stack(planes, dim=1)
