"""ViLT (Kim et al., 2021): answers to questions about a picture, chosen among those it was taught.

One transformer reads words and patches together, so the encoders only embed: `text_encoder` the
words, `image_encoder` the patches. `fusion` is the transformer with its classifier, and
`answer_postprocess` names the likeliest answer.

A picture keeps its shape: it is fitted into a square canvas, and patches outside are masked. The
library interpolates the table of positions to each picture's own grid; here each grid's height and
width picks rows of a matrix that does the same.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import ViltForQuestionAnswering

from sensorium.errors import ConfigurationError
from sensorium_export.families.classifier import class_labels
from sensorium_export.families.decoding import added_mask
from sensorium_export.families.ensembles import other
from sensorium_export.families.images import canvas_of, image_processor, image_recipe, seeing
from sensorium_export.families.source import CONFIG_FILE, FamilySource, loaded
from sensorium_export.families.texts import reading, text_recipe, text_tokenizer
from sensorium_export.recipe import family_recipe


class ImageEncoder(nn.Module):
    """Pixels to embedded patches."""

    table: Tensor

    def __init__(self, vilt: Any, canvas: int) -> None:  # noqa: ANN401 - transformers is untyped
        super().__init__()
        embeddings, config = vilt.embeddings, vilt.config
        self.patches, self.cls_token = embeddings.patch_embeddings, embeddings.cls_token
        self.positions = embeddings.position_embeddings
        self.kinds = embeddings.token_type_embeddings
        self.patch_size, self.grid = config.patch_size, canvas // config.patch_size
        self.trained = config.image_size // config.patch_size
        self.register_buffer("table", _interpolation(self.trained, self.grid), persistent=False)

    def forward(self, pixel_values: Tensor, image_extent: Tensor) -> tuple[Tensor, Tensor]:
        """Return image_tokens [batch, image_tokens, media_width] and image_mask."""
        extent = (image_extent // self.patch_size).clamp(1, self.grid)
        patches = self.patches(pixel_values).flatten(2).transpose(1, 2)
        tokens = patches + self._placed(extent)
        first = (self.cls_token + self.positions[:, :1]).expand(patches.shape[0], -1, -1)
        inside = torch.arange(self.grid)[None] < extent[:, :, None]
        shown = (inside[:, 0, :, None] & inside[:, 1, None, :]).flatten(1)
        mask = torch.cat([torch.ones_like(shown[:, :1]), shown], dim=1).long()
        tokens = torch.cat([first, tokens], dim=1) + self.kinds.weight[1]
        return tokens * mask[..., None], mask

    def _placed(self, extent: Tensor) -> Tensor:
        """Return the position of each patch of each grid, [batch, grid * grid, media_width]."""
        trained = self.positions[0, 1:].unflatten(0, (self.trained, self.trained))
        down = torch.einsum("bhi,ijd->bhjd", self.table[extent[:, 0]], trained)
        return torch.einsum("bwj,bhjd->bhwd", self.table[extent[:, 1]], down).flatten(1, 2)


class TextEncoder(nn.Module):
    """Words to their embeddings."""

    def __init__(self, vilt: Any) -> None:  # noqa: ANN401 - transformers is untyped
        super().__init__()
        self.embeddings = vilt.embeddings.text_embeddings
        self.kinds = vilt.embeddings.token_type_embeddings

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
        """Return text_tokens [batch, sequence, text_width], and the first as text_embedding."""
        tokens = self.embeddings(input_ids=input_ids) + self.kinds.weight[0]
        tokens = tokens * attention_mask[..., None]
        return tokens, tokens[:, 0]


class Fusion(nn.Module):
    """Words and patches to the scores of the answers."""

    def __init__(self, model: Any) -> None:  # noqa: ANN401 - transformers is untyped
        super().__init__()
        vilt = model.vilt
        self.encoder, self.layernorm, self.pooler = vilt.encoder, vilt.layernorm, vilt.pooler
        self.classifier = model.classifier

    def forward(
        self, text_tokens: Tensor, attention_mask: Tensor, media_tokens: Tensor, media_mask: Tensor
    ) -> Tensor:
        """Return class_logits [batch, classes]."""
        tokens = torch.cat([text_tokens, media_tokens], dim=1)
        shown = torch.cat([attention_mask, media_mask], dim=1) > 0
        states = self.encoder(tokens, attention_mask=added_mask(shown)).last_hidden_state
        logits: Tensor = self.classifier(self.pooler(self.layernorm(states)))
        return logits


def _interpolation(trained: int, grid: int) -> Tensor:
    """Return, for each length from 0 to `grid`, the matrix that stretches `trained` positions.

    [grid + 1, grid, trained], bilinear with aligned corners; rows behind the length are zeros.
    """
    table = torch.zeros(grid + 1, grid, trained)
    for length in range(1, grid + 1):
        stretched = F.interpolate(
            torch.eye(trained)[None], size=length, mode="linear", align_corners=True
        )
        table[length, :length] = stretched[0].T
    return table


def load(path: Path, bundle: str) -> FamilySource:
    """Load a `ViltForQuestionAnswering` with its tokenizer and image processor.

    Raises:
        ConfigurationError: Config, weights and processor do not belong together, or patches are
            dropped at random.
    """
    model = loaded(ViltForQuestionAnswering, path)
    processor, tokenizer, config = image_processor(path), text_tokenizer(path), model.config
    canvas = canvas_of(processor)
    tokens = (canvas // config.patch_size) ** 2 + 1
    if 0 < config.max_image_length < tokens:
        raise ConfigurationError(
            f"{path.name}/{CONFIG_FILE}: max_image_length = {config.max_image_length} drops "
            f"patches at random. Set it to -1, as for use: all patches then."
        )
    holder = nn.Module()
    holder.image_encoder = ImageEncoder(model.vilt, canvas)
    holder.text_encoder, holder.fusion = TextEncoder(model.vilt), Fusion(model)
    labels = class_labels(path, config)
    recipe = family_recipe(
        bundle,
        other("visual_question_answering"),
        sizes={
            "image_size": canvas,
            "image_tokens": tokens,
            "media_width": config.hidden_size,
            "text_width": config.hidden_size,
            "embedding_dim": config.hidden_size,
            "vocabulary": config.vocab_size,
            "classes": len(labels),
        },
        image=image_recipe(path, processor, canvas),
        text=text_recipe(tokenizer, config.max_position_embeddings),
        class_labels=labels,
    )
    return FamilySource(
        path, holder.eval(), recipe, see=seeing(processor, canvas), read=reading(tokenizer)
    )
