"""What small checkpoints of all families share."""

import os
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

os.environ.setdefault("HF_HUB_OFFLINE", "1")

from transformers import PreTrainedTokenizerFast, Siglip2Tokenizer

IMAGE_SIZE = 32
LAYERS: dict[str, Any] = {
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
}
SOUNDS = {0: "bell", 1: "bark, dog"}
ACTIONS = {0: "jumping, high", 1: "walking"}
ANIMALS = {0: "tabby, tabby cat", 1: "dog", 2: "red fox"}


def saved(path: Path, *parts: Any) -> Path:  # noqa: ANN401 - transformers is untyped
    """Save a model and what goes with it; return the directory."""
    for part in parts:
        part.save_pretrained(path)
    return path


def random(
    kind: Any,  # noqa: ANN401 - transformers is untyped
    config: Any,  # noqa: ANN401
    seed: int = 0,
    spread: float = 0.1,
) -> Any:  # noqa: ANN401
    """Return a model of random weights that tell inputs apart: as initialised, all look alike."""
    torch.manual_seed(seed)
    model = kind(config)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn_like(weight) * spread)
    return model


def word_pieces() -> Any:  # noqa: ANN401 - transformers is untyped
    """Return a tokenizer as BERT's: lower case, word pieces, [CLS] and [SEP] around."""
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[DEC]"]
    letters = [chr(one) for one in range(33, 127)]
    words += [*letters, *(f"##{one}" for one in letters), "red", "star", "what", "is"]
    tokenizer = Tokenizer(
        models.WordPiece({one: number for number, one in enumerate(words)}, unk_token="[UNK]")
    )
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    fast: Any = PreTrainedTokenizerFast
    return fast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        bos_token="[DEC]",
    )


def byte_pairs() -> Any:  # noqa: ANN401 - transformers is untyped
    """Return a tokenizer as SigLIP2's: Gemma's byte pairs, lower case, padding on the left."""
    words = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "▁"]
    words += [f"<0x{one:02X}>" for one in range(256)] + [chr(one) for one in range(33, 127)]
    words += ["re", "red", "st", "ar", "star"]
    kind: Any = Siglip2Tokenizer
    tokenizer = kind(
        vocab={one: number for number, one in enumerate(words)},
        merges=[("r", "e"), ("re", "d"), ("s", "t"), ("a", "r"), ("st", "ar")],
    )
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="$A <eos>", special_tokens=[("<eos>", 1)]
    )
    return tokenizer
