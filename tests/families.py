"""Small checkpoints of each family, saved by the library itself, as a user's directory."""

import os
from pathlib import Path

import torch
from tokenizers.pre_tokenizers import ByteLevel

os.environ.setdefault("HF_HUB_OFFLINE", "1")

from transformers import CLIPConfig, CLIPModel, CLIPTokenizer
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

_START, _END = "<|startoftext|>", "<|endoftext|>"
_IMAGE_SIZE = 32


def clip(path: Path, seed: int = 0) -> Path:
    """Write a CLIP of random weights into `path`; return it."""
    letters = sorted(ByteLevel.alphabet())
    words = [*letters, *(f"{letter}</w>" for letter in letters), "re", "red</w>", _START, _END]
    vocabulary = {word: number for number, word in enumerate(words)}
    merges = [("r", "e"), ("re", "d</w>")]
    tokenizer = CLIPTokenizer(vocab=vocabulary, merges=merges)  # type: ignore[arg-type]
    ids = {
        "vocab_size": len(words),
        "bos_token_id": vocabulary[_START],
        "eos_token_id": vocabulary[_END],
        "pad_token_id": vocabulary[_END],
    }
    layers = {"num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    config = CLIPConfig(
        text_config={**layers, **ids, "hidden_size": 32, "max_position_embeddings": 24},
        vision_config={**layers, "hidden_size": 48, "image_size": _IMAGE_SIZE, "patch_size": 8},
        projection_dim=16,
    )
    torch.manual_seed(seed)
    model = CLIPModel(config)
    with torch.no_grad():
        # As initialised, all inputs would look alike.
        for weight in model.parameters():
            weight.add_(torch.randn_like(weight) * 0.1)
    processor = CLIPImageProcessorPil(
        size={"shortest_edge": _IMAGE_SIZE},
        crop_size={"height": _IMAGE_SIZE, "width": _IMAGE_SIZE},
    )
    for part in (model, tokenizer, processor):
        part.save_pretrained(path)
    return path
