"""Small networks that put pictures and texts into words."""

import os
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

from tests.families.base import ANIMALS, IMAGE_SIZE, LAYERS, random, saved, word_pieces
from transformers import (
    BlipConfig,
    BlipForConditionalGeneration,
    BlipForQuestionAnswering,
    GitConfig,
    GitForCausalLM,
    GPT2Config,
    T5Config,
    T5ForConditionalGeneration,
    ViltConfig,
    ViltForQuestionAnswering,
    VisionEncoderDecoderConfig,
    VisionEncoderDecoderModel,
    ViTConfig,
)
from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.vilt.image_processing_pil_vilt import ViltImageProcessorPil
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil


def blip(path: Path, seed: int = 0) -> Path:
    """Write a BLIP that captions."""
    return _blip(BlipForConditionalGeneration, path, seed)


def blip_vqa_base(path: Path, seed: int = 0) -> Path:
    """Write a BLIP-VQA-base of random weights: 361 million parameters."""
    words = word_pieces()
    ids = {"vocab_size": 30_524, "bos_token_id": 5, "pad_token_id": 0, "sep_token_id": 3}
    config = BlipConfig(text_config=ids, vision_config={"image_size": 384})
    size = {"height": 384, "width": 384}
    model = random(BlipForQuestionAnswering, config, seed, spread=0.01)
    return saved(path, model, words, BlipImageProcessorPil(size=size))


def blip_vqa(path: Path, seed: int = 0) -> Path:
    """Write a BLIP that answers."""
    return _blip(BlipForQuestionAnswering, path, seed)


def _blip(kind: Any, path: Path, seed: int) -> Path:  # noqa: ANN401 - transformers is untyped
    words = word_pieces()
    # An answer is put into words from the question's tokens, so all widths are alike there.
    width = 32 if kind is BlipForQuestionAnswering else 48
    config = BlipConfig(
        text_config={
            **LAYERS,
            "hidden_size": 32,
            "encoder_hidden_size": width,
            "vocab_size": len(words),
            "max_position_embeddings": 40,
            "bos_token_id": 5,
            "pad_token_id": 0,
            "sep_token_id": 3,
            "eos_token_id": 3,
        },
        vision_config={**LAYERS, "hidden_size": width, "image_size": IMAGE_SIZE, "patch_size": 8},
    )
    size = {"height": IMAGE_SIZE, "width": IMAGE_SIZE}
    return saved(path, random(kind, config, seed), words, BlipImageProcessorPil(size=size))


def git(path: Path, seed: int = 0) -> Path:
    """Write a GIT."""
    words = word_pieces()
    config = GitConfig(
        **LAYERS,
        hidden_size=32,
        vocab_size=len(words),
        max_position_embeddings=40,
        bos_token_id=2,
        eos_token_id=3,
        pad_token_id=0,
        vision_config={**LAYERS, "hidden_size": 48, "image_size": IMAGE_SIZE, "patch_size": 8},
    )
    processor = CLIPImageProcessorPil(
        size={"shortest_edge": IMAGE_SIZE},
        crop_size={"height": IMAGE_SIZE, "width": IMAGE_SIZE},
    )
    return saved(path, random(GitForCausalLM, config, seed), words, processor)


def vit_gpt2(path: Path, seed: int = 0) -> Path:
    """Write a ViT with a GPT-2 of another width."""
    words = word_pieces()
    vision = ViTConfig(**LAYERS, hidden_size=48, image_size=IMAGE_SIZE, patch_size=8)
    text = GPT2Config(
        n_embd=32,
        n_layer=2,
        n_head=2,
        n_positions=40,
        vocab_size=len(words),
        bos_token_id=2,
        eos_token_id=3,
    )
    config = VisionEncoderDecoderConfig.from_encoder_decoder_configs(
        vision, text, decoder_start_token_id=2, pad_token_id=0, eos_token_id=3
    )
    size = {"height": IMAGE_SIZE, "width": IMAGE_SIZE}
    model = random(VisionEncoderDecoderModel, config, seed)
    model.generation_config.num_beams, model.generation_config.max_new_tokens = 3, 12
    return saved(path, model, words, ViTImageProcessorPil(size=size))


def vilt(path: Path, seed: int = 0) -> Path:
    """Write a ViLT."""
    words = word_pieces()
    config = ViltConfig(
        **LAYERS,
        hidden_size=32,
        vocab_size=len(words),
        max_position_embeddings=40,
        image_size=IMAGE_SIZE,
        patch_size=8,
        id2label=ANIMALS,
    )
    kind: Any = ViltImageProcessorPil
    processor = kind(size={"shortest_edge": IMAGE_SIZE}, size_divisor=8)
    return saved(path, random(ViltForQuestionAnswering, config, seed), words, processor)


def t5(path: Path, seed: int = 0) -> Path:
    """Write a T5."""
    words = word_pieces()
    kind: Any = T5Config
    config = kind(
        d_model=32,
        d_kv=8,
        d_ff=64,
        num_layers=2,
        num_heads=4,
        vocab_size=len(words),
        decoder_start_token_id=0,
        pad_token_id=0,
        eos_token_id=3,
    )
    return saved(path, random(T5ForConditionalGeneration, config, seed), words)
