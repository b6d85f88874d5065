"""Somebody's own modules: a picture and a question to one of three answers, and captions."""

import json
from pathlib import Path

import torch
from torch import Tensor, nn

from sensorium_export.own import MultiModalModel
from sensorium_export.recipe import ImageRecipe, TextRecipe

WIDTH = 16
SIDE = 16
TOKENS = (SIDE // 4) ** 2
TOKENIZER = "tokenizer.json"
HALF = (0.5, 0.5, 0.5)


class ImageEncoder(nn.Module):
    """Patches to tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, WIDTH, 4, 4)

    def forward(self, pixel_values: Tensor) -> tuple[Tensor, Tensor]:
        """Return image_tokens and image_mask."""
        tokens = self.patches(pixel_values).flatten(2).transpose(1, 2)
        return tokens, torch.ones(tokens.shape[:2], dtype=torch.long)


class TextEncoder(nn.Module):
    """Words to tokens."""

    def __init__(self, words: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(words, WIDTH)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
        """Return text_tokens and text_embedding."""
        tokens = self.embed(input_ids) * attention_mask[..., None]
        return tokens, tokens.sum(dim=1)


class Fusion(nn.Module):
    """Words that look at a picture."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(WIDTH, 2, batch_first=True)

    def forward(
        self, text_tokens: Tensor, attention_mask: Tensor, media_tokens: Tensor, media_mask: Tensor
    ) -> Tensor:
        """Return fused_tokens."""
        seen, _ = self.attention(
            text_tokens, media_tokens, media_tokens, key_padding_mask=media_mask < 1
        )
        fused: Tensor = (text_tokens + seen) * attention_mask[..., None]
        return fused


class Decoder(nn.Module):
    """The least that is a decoder: a word by the one before it and by the mean of the memory."""

    def __init__(self, words: int) -> None:
        super().__init__()
        self.key, self.value = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.embed, self.place = nn.Embedding(words, WIDTH), nn.Embedding(64, WIDTH)
        self.head = nn.Linear(WIDTH, words)

    def cross(self, memory: Tensor) -> Tensor:
        """Return keys and values, [batch, 2, 1, memory, WIDTH]."""
        return torch.stack([self.key(memory), self.value(memory)], dim=1)[:, :, None]

    def step(
        self, token_id: Tensor, position: Tensor, past: Tensor, cross: Tensor, memory_mask: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return logits and present."""
        word = self.embed(token_id) + self.place(position)
        shown = torch.arange(past.shape[3])[None] < position[:, None]
        before = (past[:, 1, 0] * shown[..., None]).sum(dim=1)
        return self._said(word, before, cross, memory_mask), torch.stack([word, word], 1)[
            :, :, None
        ]

    def forward(self, tokens: Tensor, memory: Tensor, memory_mask: Tensor) -> Tensor:
        """Return the logits after each token, everything computed anew."""
        words = self.embed(tokens) + self.place(torch.arange(tokens.shape[1]))
        cross = self.cross(memory)
        logits = [
            self._said(words[:, n], words[:, :n].sum(dim=1), cross, memory_mask)
            for n in range(tokens.shape[1])
        ]
        return torch.stack(logits, dim=1)

    def _said(self, word: Tensor, before: Tensor, cross: Tensor, mask: Tensor) -> Tensor:
        scores = torch.einsum("bd,bmd->bm", word, cross[:, 0, 0])
        weights = scores.masked_fill(mask < 1, -1e9).softmax(dim=1)
        seen = torch.einsum("bm,bmd->bd", weights, cross[:, 1, 0])
        logits: Tensor = self.head(torch.tanh(word + before + seen))
        return logits


def build() -> MultiModalModel:
    """Return the modules with random weights, as `sensorium export my_model.py:build` asks."""
    torch.manual_seed(0)
    tokenizer = json.loads((Path(__file__).parent / TOKENIZER).read_text())
    words = len(tokenizer["model"]["vocab"])
    return MultiModalModel(
        tasks=("visual_question_answering", "image_captioning"),
        text_encoder=TextEncoder(words),
        image_encoder=ImageEncoder(),
        fusion=Fusion(),
        decoder=Decoder(words),
        sizes={
            "image_size": SIDE,
            "image_tokens": TOKENS,
            "media_width": WIDTH,
            "text_width": WIDTH,
            "memory_width": WIDTH,
            "embedding_dim": WIDTH,
            "vocabulary": words,
            "kv_layers": 2,
            "heads": 1,
            "head_dim": WIDTH,
        },
        image=ImageRecipe(SIDE, "bicubic", HALF, HALF, "squash"),
        text=TextRecipe(max_tokens=16, pad_id=0, unk_id=1, bos_id=2, eos_id=3, max_new_tokens=6),
        tokenizer=TOKENIZER,
    )
