"""A small Stable Diffusion of random weights, saved by diffusers itself, as a user's directory."""

import json
import os
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import diffusers
from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
from tests.families import clip_tokenizer, random
from transformers import CLIPTextConfig, CLIPTextModel

LENGTH = 20
SIDE = 32

_NOISE: dict[str, Any] = {
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "steps_offset": 1,
}
_BLOCKS: dict[str, Any] = {
    "block_out_channels": (32, 64),
    "layers_per_block": 1,
    "norm_num_groups": 8,
}


def stable_diffusion(path: Path, scheduler: str = "PNDMScheduler", **changes: Any) -> Path:  # noqa: ANN401 - as the scheduler takes it
    """Write a `StableDiffusionPipeline` into `path`; return it."""
    tokenizer = clip_tokenizer(model_max_length=LENGTH)
    config = CLIPTextConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=LENGTH,
        vocab_size=len(tokenizer),
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    pipeline: Any = StableDiffusionPipeline(
        text_encoder=random(CLIPTextModel, config),
        tokenizer=tokenizer,
        unet=random(lambda told: UNet2DConditionModel(**told), _unet()),
        vae=random(lambda told: AutoencoderKL(**told), _vae()),
        scheduler=_scheduler(scheduler, changes),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.save_pretrained(path)
    return path


def _scheduler(kind: str, changes: dict[str, Any]) -> Any:  # noqa: ANN401 - diffusers is untyped
    own = {"skip_prk_steps": True} if kind == "PNDMScheduler" else {}
    return getattr(diffusers, kind)(**(_NOISE | own | changes))


def _unet() -> dict[str, Any]:
    return _BLOCKS | {
        "sample_size": SIDE // 2,
        "in_channels": 4,
        "out_channels": 4,
        "attention_head_dim": 8,
        "cross_attention_dim": 32,
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    }


def _vae() -> dict[str, Any]:
    return _BLOCKS | {
        "sample_size": SIDE,
        "latent_channels": 4,
        "down_block_types": ("DownEncoderBlock2D",) * 2,
        "up_block_types": ("UpDecoderBlock2D",) * 2,
    }


def set_scheduler(path: Path, scheduler: str, **changes: Any) -> None:  # noqa: ANN401 - likewise
    """Put another scheduler into a directory that `stable_diffusion` wrote."""
    _scheduler(scheduler, changes).save_pretrained(path / "scheduler")
    index = path / "model_index.json"
    told = json.loads(index.read_text()) | {"scheduler": ["diffusers", scheduler]}
    index.write_text(json.dumps(told))
