"""GIT (Wang et al., 2022): a picture to a text by one transformer. Stages: two.

The picture's tokens look at each other alone, so their keys and values are computed once, as
`cross`; a word looks at them and at the words before it in one attention.
"""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache, GitForCausalLM

from sensorium_export.families.decoding import (
    Generate,
    added_mask,
    filled_cache,
    generating,
    shown_so_far,
    slots_for,
    stacked,
)
from sensorium_export.families.ensembles import native
from sensorium_export.families.generation import generation_from
from sensorium_export.families.images import image_processor, image_recipe, seeing
from sensorium_export.families.source import FamilySource, loaded
from sensorium_export.families.texts import reading, text_recipe, text_tokenizer
from sensorium_export.recipe import TextRecipe, family_recipe, required


class ImageEncoder(nn.Module):
    """Pixels to tokens as wide as words."""

    def __init__(self, git: Any) -> None:  # noqa: ANN401 - transformers is untyped
        super().__init__()
        self.image_encoder = git.git.image_encoder
        self.visual_projection = git.git.visual_projection

    def forward(self, pixel_values: Tensor) -> tuple[Tensor, Tensor]:
        """Return image_tokens [batch, image_tokens, media_width] and image_mask."""
        seen = self.image_encoder(pixel_values=pixel_values).last_hidden_state
        tokens = self.visual_projection(seen)
        return tokens, torch.ones(tokens.shape[:2], dtype=torch.long)


class TextDecoder(nn.Module):
    """GIT's transformer."""

    def __init__(self, git: Any) -> None:  # noqa: ANN401 - transformers is untyped
        super().__init__()
        self.embeddings, self.layers = git.git.embeddings, git.git.encoder.layer
        self.head = git.output

    def cross(self, memory: Tensor) -> Tensor:
        """Return cross [batch, kv_layers, heads, memory, head_dim] of a picture's tokens."""
        cache, states = DynamicCache(), memory
        for layer in self.layers:
            states = layer(states, None, cache=cache)
        return stacked(cache)

    def step(
        self, token_id: Tensor, position: Tensor, past: Tensor, cross: Tensor, memory_mask: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return logits [batch, vocabulary] and present; see `contract.DECODER_GRAPHS`."""
        cache = filled_cache(torch.cat([cross, past], dim=3))
        masks = [added_mask(memory_mask > 0), shown_so_far(position, past.shape[3])]
        states = self.embeddings(input_ids=token_id[:, None], position_ids=position[:, None])
        for layer in self.layers:
            states = layer(states, torch.cat(masks, dim=3), cache=cache)
        return self.head(states)[:, 0], stacked(cache)[:, :, :, -1]


class _Given(nn.Module):
    """Stands for an image encoder that has already run."""

    def __init__(self, tokens: Tensor) -> None:
        super().__init__()
        self.tokens = tokens

    def forward(self, *_: object, **__: object) -> SimpleNamespace:
        """Return the tokens."""
        return SimpleNamespace(last_hidden_state=self.tokens)


def load(path: Path, bundle: str) -> FamilySource:
    """Load a `GitForCausalLM` with its tokenizer and image processor.

    Raises:
        ConfigurationError: Config, weights and processor do not belong together.
    """
    git = loaded(GitForCausalLM, path)
    processor, tokenizer = image_processor(path), text_tokenizer(path)
    config, vision = git.config, git.config.vision_config
    holder = nn.Module()
    holder.image_encoder, holder.text_decoder = ImageEncoder(git), TextDecoder(git)
    sizes = {
        "image_size": vision.image_size,
        "image_tokens": (vision.image_size // vision.patch_size) ** 2 + 1,
        "media_width": config.hidden_size,
        "memory_width": config.hidden_size,
        "vocabulary": config.vocab_size,
        "kv_layers": 2 * config.num_hidden_layers,
        "heads": config.num_attention_heads,
        "head_dim": config.hidden_size // config.num_attention_heads,
    }
    recipe = family_recipe(
        bundle,
        native("image_captioning"),
        sizes,
        image=image_recipe(path, processor, vision.image_size),
        text=text_recipe(
            tokenizer,
            config.max_position_embeddings,
            **generation_from(git.generation_config, slots=slots_for(sizes, sizes["image_tokens"])),
        ),
    )
    return FamilySource(
        path,
        holder.eval(),
        recipe,
        see=seeing(processor, vision.image_size),
        read=reading(tokenizer),
        generate=_generate(git.eval(), required(recipe.text)),
    )


def _generate(git: Any, text: TextRecipe) -> Generate:  # noqa: ANN401 - transformers is untyped
    """Generate from a picture's tokens: the library would compute them again from its pixels."""
    ask = generating(git.generate, text)

    def generate(memory: Tensor, _mask: Tensor) -> tuple[list[int], float]:
        model = git.git
        kept = model.image_encoder, model.visual_projection
        model.image_encoder, model.visual_projection = _Given(memory), nn.Identity()
        try:
            return ask(pixel_values=torch.zeros(1, 3, 1, 1))
        finally:
            model.image_encoder, model.visual_projection = kept

    return generate
