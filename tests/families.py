"""Small checkpoints of each family, saved by the library itself, as a user's directory."""

import json
import os
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from tokenizers.pre_tokenizers import ByteLevel

os.environ.setdefault("HF_HUB_OFFLINE", "1")

from transformers import (
    BertConfig,
    BertModel,
    CLIPConfig,
    CLIPModel,
    CLIPTokenizer,
    Dinov2Config,
    Dinov2Model,
    PreTrainedTokenizerFast,
    ResNetConfig,
    ResNetForImageClassification,
    SiglipConfig,
    SiglipModel,
    ViTConfig,
    ViTForImageClassification,
)
from transformers.models.bit.image_processing_pil_bit import BitImageProcessorPil
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.convnext.image_processing_pil_convnext import ConvNextImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

_START, _END = "<|startoftext|>", "<|endoftext|>"
_IMAGE_SIZE = 32
_LAYERS: dict[str, Any] = {
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
}
_ANIMALS = {0: "tabby, tabby cat", 1: "dog", 2: "red fox"}


def saved(path: Path, *parts: Any) -> Path:  # noqa: ANN401 - transformers is untyped
    """Save a model and what goes with it; return the directory."""
    for part in parts:
        part.save_pretrained(path)
    return path


def random(kind: Any, config: Any, seed: int = 0) -> Any:  # noqa: ANN401 - transformers is untyped
    """Return a model of random weights that tell inputs apart: as initialised, all look alike."""
    torch.manual_seed(seed)
    model = kind(config)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn_like(weight) * 0.1)
    return model


def word_pieces() -> PreTrainedTokenizerFast:
    """Return a tokenizer as BERT's: lower case, word pieces, [CLS] and [SEP] around."""
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[DEC]"]
    letters = [chr(one) for one in range(33, 127)]
    words += [*letters, *(f"##{one}" for one in letters), "red", "star", "what", "is", "##s"]
    tokenizer = Tokenizer(
        models.WordPiece({one: number for number, one in enumerate(words)}, unk_token="[UNK]")
    )
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        bos_token="[DEC]",
    )


def bert(path: Path, seed: int = 0) -> Path:
    """Write a BERT with the pooling of a directory of sentence-transformers."""
    words = word_pieces()
    config = BertConfig(
        **_LAYERS, hidden_size=32, vocab_size=len(words), max_position_embeddings=40
    )
    saved(path, random(BertModel, config, seed), words)
    (path / "1_Pooling").mkdir()
    pooling = {"word_embedding_dimension": 32, "pooling_mode_mean_tokens": True}
    (path / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    modules = ["models.Transformer", "models.Pooling", "models.Normalize"]
    (path / "modules.json").write_text(
        json.dumps(
            [{"idx": n, "type": f"sentence_transformers.{m}"} for n, m in enumerate(modules)]
        )
    )
    return path


def siglip(path: Path, seed: int = 0) -> Path:
    """Write a SigLIP."""
    words = word_pieces()
    config = SiglipConfig(
        text_config={
            **_LAYERS,
            "hidden_size": 32,
            "projection_size": 32,
            "vocab_size": len(words),
            "max_position_embeddings": 16,
        },
        vision_config={**_LAYERS, "hidden_size": 32, "image_size": _IMAGE_SIZE, "patch_size": 8},
    )
    size = {"height": _IMAGE_SIZE, "width": _IMAGE_SIZE}
    return saved(path, random(SiglipModel, config, seed), words, SiglipImageProcessorPil(size=size))


def vit(path: Path, seed: int = 0) -> Path:
    """Write a ViT with a classifier's head."""
    config = ViTConfig(
        **_LAYERS, hidden_size=32, image_size=_IMAGE_SIZE, patch_size=8, id2label=_ANIMALS
    )
    size = {"height": _IMAGE_SIZE, "width": _IMAGE_SIZE}
    model = random(ViTForImageClassification, config, seed)
    return saved(path, model, ViTImageProcessorPil(size=size))


def dinov2(path: Path, seed: int = 0) -> Path:
    """Write a DINOv2, which is cropped to less than what it was trained on."""
    config = Dinov2Config(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        mlp_ratio=2,
        image_size=56,
        patch_size=14,
    )
    processor = BitImageProcessorPil(
        size={"shortest_edge": 48}, crop_size={"height": 42, "width": 42}
    )
    return saved(path, random(Dinov2Model, config, seed), processor)


def resnet(path: Path, seed: int = 0) -> Path:
    """Write a ResNet with a classifier's head."""
    config = ResNetConfig(
        embedding_size=8,
        hidden_sizes=[16, 32],
        depths=[1, 2],
        layer_type="bottleneck",
        id2label=_ANIMALS,
    )
    processor = ConvNextImageProcessorPil(size={"shortest_edge": 36}, crop_pct=0.875)
    return saved(path, random(ResNetForImageClassification, config, seed), processor)


def clip_tokenizer(**options: int) -> CLIPTokenizer:
    """Return a tokenizer as CLIP's: byte pairs, that know one word."""
    letters = sorted(ByteLevel.alphabet())
    words = [*letters, *(f"{letter}</w>" for letter in letters), "re", "red</w>", _START, _END]
    vocabulary = {word: number for number, word in enumerate(words)}
    merges = [("r", "e"), ("re", "d</w>")]
    return CLIPTokenizer(vocab=vocabulary, merges=merges, **options)  # type: ignore[arg-type]


def clip(path: Path, seed: int = 0) -> Path:
    """Write a CLIP of random weights into `path`; return it."""
    tokenizer = clip_tokenizer()
    ids = {
        "vocab_size": len(tokenizer),
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    config = CLIPConfig(
        text_config={**_LAYERS, **ids, "hidden_size": 32, "max_position_embeddings": 24},
        vision_config={**_LAYERS, "hidden_size": 48, "image_size": _IMAGE_SIZE, "patch_size": 8},
        projection_dim=16,
    )
    processor = CLIPImageProcessorPil(
        size={"shortest_edge": _IMAGE_SIZE},
        crop_size={"height": _IMAGE_SIZE, "width": _IMAGE_SIZE},
    )
    return saved(path, random(CLIPModel, config, seed), tokenizer, processor)
