"""Small encoders of texts and pictures."""

import json
import os
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

os.environ.setdefault("HF_HUB_OFFLINE", "1")

from tests.families.base import ANIMALS, IMAGE_SIZE, LAYERS, byte_pairs, random, saved, word_pieces
from tokenizers.pre_tokenizers import ByteLevel
from transformers import (
    BertConfig,
    BertModel,
    CLIPConfig,
    CLIPModel,
    CLIPTokenizer,
    Dinov2Config,
    Dinov2Model,
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


def bert(path: Path, seed: int = 0) -> Path:
    """Write a BERT with the pooling of a directory of sentence-transformers."""
    words = word_pieces()
    config = BertConfig(**LAYERS, hidden_size=32, vocab_size=len(words), max_position_embeddings=40)
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
    return _siglip(path, word_pieces(), seed)


def siglip2(path: Path, seed: int = 0) -> Path:
    """Write a SigLIP2 of a fixed resolution."""
    return _siglip(path, byte_pairs(), seed)


def _siglip(path: Path, words: Any, seed: int) -> Path:  # noqa: ANN401 - transformers is untyped
    config = SiglipConfig(
        text_config={
            **LAYERS,
            "hidden_size": 32,
            "projection_size": 32,
            "vocab_size": len(words),
            "max_position_embeddings": 16,
        },
        vision_config={**LAYERS, "hidden_size": 32, "image_size": IMAGE_SIZE, "patch_size": 8},
    )
    size = {"height": IMAGE_SIZE, "width": IMAGE_SIZE}
    return saved(path, random(SiglipModel, config, seed), words, SiglipImageProcessorPil(size=size))


def vit(path: Path, seed: int = 0, spread: float = 0.1) -> Path:
    """Write a ViT with a classifier's head; widely spread weights let small changes grow."""
    config = ViTConfig(
        **LAYERS, hidden_size=32, image_size=IMAGE_SIZE, patch_size=8, id2label=ANIMALS
    )
    size = {"height": IMAGE_SIZE, "width": IMAGE_SIZE}
    model = random(ViTForImageClassification, config, seed, spread)
    return saved(path, model, ViTImageProcessorPil(size=size))


class OpenClipTower(nn.Module):
    """A tower as OpenCLIP writes it, with its names."""

    def __init__(self, width: int, heads: int, layers: int) -> None:
        super().__init__()
        self.resblocks = nn.ModuleList()
        for _ in range(layers):
            block = nn.Module()
            block.ln_1, block.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
            block.attn = nn.MultiheadAttention(width, heads, batch_first=True)
            block.mlp = nn.Sequential()
            block.mlp.add_module("c_fc", nn.Linear(width, 4 * width))
            block.mlp.add_module("gelu", nn.GELU())
            block.mlp.add_module("c_proj", nn.Linear(4 * width, width))
            self.resblocks.append(block)

    def forward(self, states: Tensor, mask: Tensor | None = None) -> Tensor:
        """Run all blocks; the norms come first."""
        blocks: Any = self.resblocks
        for block in blocks:
            normed = block.ln_1(states)
            states = states + block.attn(normed, normed, normed, attn_mask=mask)[0]
            states = states + block.mlp(block.ln_2(states))
        return states


class OpenClip(nn.Module):
    """A CLIP as OpenCLIP writes it: the same mathematics, other names."""

    def __init__(self, words: int, width: int = 64, size: int = IMAGE_SIZE) -> None:
        super().__init__()
        self.visual = nn.Module()
        self.visual.conv1 = nn.Conv2d(3, width, 8, 8, bias=False)
        self.visual.class_embedding = nn.Parameter(torch.zeros(width))
        self.visual.positional_embedding = nn.Parameter(torch.zeros((size // 8) ** 2 + 1, width))
        self.visual.ln_pre, self.visual.ln_post = nn.LayerNorm(width), nn.LayerNorm(width)
        self.visual.transformer = OpenClipTower(width, 1, 2)
        self.visual.proj = nn.Parameter(torch.zeros(width, 16))
        self.token_embedding = nn.Embedding(words, width)
        self.positional_embedding = nn.Parameter(torch.zeros(24, width))
        self.transformer = OpenClipTower(width, 2, 2)
        self.ln_final = nn.LayerNorm(width)
        self.text_projection = nn.Parameter(torch.zeros(width, 16))
        self.logit_scale = nn.Parameter(torch.ones([]))

    def encode_image(self, pixels: Tensor) -> Tensor:
        """Embed pictures."""
        tower: Any = self.visual
        states = tower.conv1(pixels).flatten(2).transpose(1, 2)
        first = tower.class_embedding.expand(len(states), 1, -1)
        states = torch.cat([first, states], dim=1) + tower.positional_embedding
        states = tower.transformer(tower.ln_pre(states))
        return nn.functional.normalize(tower.ln_post(states[:, 0]) @ tower.proj, dim=-1)

    def encode_text(self, ids: Tensor) -> Tensor:
        """Embed texts by the state of their end, the greatest id."""
        length = ids.shape[1]
        states = self.token_embedding(ids) + self.positional_embedding[:length]
        mask = torch.full((length, length), float("-inf")).triu(1)
        states = self.ln_final(self.transformer(states, mask))
        ends = states[torch.arange(len(ids)), ids.argmax(dim=1)]
        return nn.functional.normalize(ends @ self.text_projection, dim=-1)


def open_clip(path: Path, seed: int = 0) -> Path:
    """Write a CLIP as OpenCLIP saves it, with the tokenizer of `clip`."""
    clip(path, seed)
    words = len(json.loads((path / "tokenizer.json").read_text())["model"]["vocab"])
    for name in ("config.json", "model.safetensors", "preprocessor_config.json"):
        (path / name).unlink()
    tower = {"layers": 2, "width": 64}
    text = {**tower, "heads": 2, "vocab_size": words, "context_length": 24}
    vision = {**tower, "image_size": IMAGE_SIZE, "patch_size": 8}
    config = {"model_cfg": {"embed_dim": 16, "vision_cfg": vision, "text_cfg": text}}
    (path / "open_clip_config.json").write_text(json.dumps(config))
    model = random(OpenClip, words, seed)
    save_file(model.state_dict(), path / "open_clip_model.safetensors")
    return path


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
        id2label=ANIMALS,
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
        text_config={**LAYERS, **ids, "hidden_size": 32, "max_position_embeddings": 24},
        vision_config={**LAYERS, "hidden_size": 48, "image_size": IMAGE_SIZE, "patch_size": 8},
        projection_dim=16,
    )
    processor = CLIPImageProcessorPil(
        size={"shortest_edge": IMAGE_SIZE},
        crop_size={"height": IMAGE_SIZE, "width": IMAGE_SIZE},
    )
    return saved(path, random(CLIPModel, config, seed), tokenizer, processor)


def clip_vit_b32(path: Path, seed: int = 0) -> Path:
    """Write a CLIP ViT-B/32 of random weights: 151 million parameters."""
    return _clip_of_size(path, seed, {}, {})


def clip_vit_l14(path: Path, seed: int = 0) -> Path:
    """Write a CLIP ViT-L/14 of random weights: 428 million parameters."""
    width = {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12}
    vision = {
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_attention_heads": 16,
        "num_hidden_layers": 24,
        "patch_size": 14,
    }
    return _clip_of_size(path, seed, width, vision, projection_dim=768)


def _clip_of_size(
    path: Path,
    seed: int,
    text: dict[str, int],
    vision: dict[str, int],
    projection_dim: int = 512,
) -> Path:
    clip(path, seed)
    config = CLIPConfig.from_pretrained(path)
    ids = {
        name: getattr(config.text_config, name)
        for name in ("vocab_size", "bos_token_id", "eos_token_id", "pad_token_id")
    }
    torch.manual_seed(seed)
    size = {"height": 224, "width": 224}
    processor = CLIPImageProcessorPil(size={"shortest_edge": 224}, crop_size=size)
    large = CLIPConfig(text_config=ids | text, vision_config=vision, projection_dim=projection_dim)
    return saved(path, CLIPModel(large), processor)
