"""Stable Diffusion: a text becomes a picture, by way of latents (Rombach et al., 2022).

`StableDiffusionPipeline` splits into `text_encoder` and `image_decoder`: the UNet is its graph
`denoise`, the decoder of the autoencoder its graph `decode`, and `condition` exchanges a text whose
mask is all zeros for the empty prompt's tokens, which the bundle carries along. The text encoder
gets no mask: it reads the padding, as it did in its training.

The pipeline itself has `steps_offset` 1 and no `clip_sample`, whatever the scheduler's file says;
what is served has them from there. One thing is the server's own: guidance below 1 is guidance, as
the contract says, where the pipeline leaves it out.
"""

import io
import json
import logging
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPTextModel

from sensorium.errors import ConfigurationError
from sensorium_export.families.ensembles import other
from sensorium_export.families.pipeline import (
    SCHEDULERS,
    Component,
    check_pipeline,
    diffusion_recipe,
    files_of,
)
from sensorium_export.families.source import CONFIG_FILE, FamilySource, loaded
from sensorium_export.families.texts import reading, text_recipe, text_tokenizer
from sensorium_export.recipe import family_recipe

_WEIGHTS = "diffusion_pytorch_model.safetensors"
_SCHEDULER_FILE = "scheduler_config.json"
_TOKENIZER = "tokenizer/tokenizer.json"

COMPONENTS: Mapping[str, Component] = {
    "text_encoder": Component(
        "transformers",
        ("CLIPTextModel",),
        (CONFIG_FILE, "model.safetensors"),
        "model.safetensors",
    ),
    "tokenizer": Component(
        "transformers",
        ("CLIPTokenizer", "CLIPTokenizerFast"),
        ("tokenizer.json", "tokenizer_config.json"),
    ),
    "unet": Component("diffusers", ("UNet2DConditionModel",), (CONFIG_FILE, _WEIGHTS), _WEIGHTS),
    "vae": Component("diffusers", ("AutoencoderKL",), (CONFIG_FILE, _WEIGHTS), _WEIGHTS),
    "scheduler": Component("diffusers", tuple(SCHEDULERS), (_SCHEDULER_FILE,)),
}
_UNUSED = ("feature_extractor", "image_encoder")


class Pipeline(StableDiffusionPipeline):  # type: ignore[misc]
    """The library's pipeline, in which a guidance below 1 counts too."""

    @property
    def do_classifier_free_guidance(self) -> bool:
        """Whether both halves are computed."""
        return True


class TextEncoder(nn.Module):
    """Tokens of a prompt, padding included."""

    def __init__(self, clip: Any) -> None:  # noqa: ANN401 - transformers is untyped
        super().__init__()
        self.clip = clip

    def forward(self, input_ids: Tensor) -> Tensor:
        """Return text_tokens [batch, sequence, text_width] of ids [batch, sequence]."""
        tokens: Tensor = self.clip(input_ids=input_ids).last_hidden_state
        return tokens


class LatentImageDecoder(nn.Module):
    """Text tokens and noise to pictures; see `contract.DIFFUSION_GRAPHS` and `LATENT_GRAPHS`."""

    unconditional: Tensor

    def __init__(
        self,
        unet: Any,  # noqa: ANN401 - diffusers is untyped
        vae: Any,  # noqa: ANN401
        unconditional: Tensor,
    ) -> None:
        super().__init__()
        self.unet, self.vae = unet, vae
        self.register_buffer("unconditional", unconditional)

    def condition(self, text_tokens: Tensor, attention_mask: Tensor) -> Tensor:
        """Return the tokens [batch, layout, width]; the empty prompt's where all is masked."""
        said = (attention_mask.sum(1) > 0)[:, None, None]
        return torch.where(said, text_tokens, self.unconditional)

    def denoise(self, noisy: Tensor, noise_level: Tensor, condition: Tensor) -> Tensor:
        """Return what the UNet predicts of latents at a time."""
        predicted: Tensor = self.unet(noisy, noise_level, condition, return_dict=False)[0]
        return predicted

    def decode(self, latents: Tensor) -> Tensor:
        """Return the picture of latents."""
        picture: Tensor = self.vae.decode(
            latents / self.vae.config.scaling_factor, return_dict=False
        )[0]
        return picture


class TextToImage(nn.Module):
    """The two networks by the names of their stages."""

    def __init__(self, pipeline: Any, empty: Tensor) -> None:  # noqa: ANN401 - likewise
        super().__init__()
        self.text_encoder = TextEncoder(pipeline.text_encoder)
        with torch.no_grad():
            unconditional = self.text_encoder(empty)
        self.image_decoder = LatentImageDecoder(pipeline.unet, pipeline.vae, unconditional)


def load(path: Path, index: Mapping[str, Any], bundle: str) -> FamilySource:
    """Load a `StableDiffusionPipeline`.

    Raises:
        ConfigurationError: Components are missing, pickled, damaged, do not fit each other, or do
            what is not served.
    """
    check_pipeline(path, index, COMPONENTS, _UNUSED)
    pipeline = _pipeline(path, index["scheduler"][1])
    _check_fit(path, pipeline)
    unet, text = pipeline.unet.config, pipeline.text_encoder.config
    diffusion = diffusion_recipe(path, index["scheduler"][1], pipeline.scheduler.config)
    length = pipeline.tokenizer.model_max_length
    recipe = family_recipe(
        bundle,
        other("text_to_image"),
        sizes={
            "sequence": length,
            "layout": length,
            "width": text.hidden_size,
            "text_width": text.hidden_size,
            "vocabulary": text.vocab_size,
            "noise_channels": unet.in_channels,
            "noise_size": unet.sample_size,
            "noise_levels": diffusion.num_train_timesteps,
            "image_size": unet.sample_size * pipeline.vae_scale_factor,
        },
        text=text_recipe(pipeline.tokenizer, length, pad_to=length),
        diffusion=diffusion,
    )
    empty = pipeline.tokenizer(
        "", padding="max_length", max_length=length, truncation=True, return_tensors="pt"
    )

    def draw(text_tokens: Tensor, seed: int, steps: int, guidance_scale: float) -> bytes:
        shape = (1, unet.in_channels, unet.sample_size, unet.sample_size)
        noise = np.random.Generator(np.random.PCG64(seed)).standard_normal(shape, "f4")
        file = io.BytesIO()
        pipeline(
            prompt_embeds=text_tokens,
            latents=torch.from_numpy(noise),
            num_inference_steps=steps,
            guidance_scale=guidance_scale,
        ).images[0].save(file, "PNG")
        return file.getvalue()

    return FamilySource(
        path,
        TextToImage(pipeline, empty.input_ids).eval(),
        recipe,
        read=reading(pipeline.tokenizer),
        draw=draw,
        parts=files_of(COMPONENTS),
        tokenizer=_TOKENIZER,
        packages=("transformers", "tokenizers", "diffusers"),
    )


def _pipeline(path: Path, scheduler: str) -> Any:  # noqa: ANN401 - diffusers is untyped
    """Load the parts and put them together as the library does."""
    logging.getLogger("diffusers").setLevel(logging.ERROR)
    config = json.loads((path / "scheduler" / _SCHEDULER_FILE).read_text(encoding="utf-8"))
    with warnings.catch_warnings():
        # It says that it sets the scheduler's `steps_offset` and `clip_sample` itself.
        warnings.simplefilter("ignore")
        pipeline: Any = Pipeline(
            text_encoder=_loaded(CLIPTextModel, path, "text_encoder"),
            tokenizer=text_tokenizer(path / "tokenizer"),
            unet=_loaded(UNet2DConditionModel, path, "unet"),
            vae=_loaded(AutoencoderKL, path, "vae"),
            scheduler=getattr(diffusers, scheduler).from_config(config),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def _loaded(kind: Any, path: Path, name: str) -> Any:  # noqa: ANN401 - both libraries are untyped
    """Load one part, in float32 whatever it was saved in."""
    unused = "text_model.embeddings.position_ids"
    model = loaded(kind, path / name, unused=unused, weights=COMPONENTS[name].weights)
    return model.float().eval()


def _check_fit(path: Path, pipeline: Any) -> None:  # noqa: ANN401 - diffusers is untyped
    unet, vae, text = pipeline.unet.config, pipeline.vae.config, pipeline.text_encoder.config
    length, positions = pipeline.tokenizer.model_max_length, text.max_position_embeddings
    problems = [
        f"unet/config.json: {name} = {unet[name]!r} is not served"
        for name in (
            "addition_embed_type",
            "class_embed_type",
            "encoder_hid_dim",
            "num_class_embeds",
            "time_cond_proj_dim",
        )
        if unet[name] is not None
    ]
    if not isinstance(unet.sample_size, int):
        problems.append(f"unet/config.json: sample_size = {unet.sample_size!r} is no whole number")
    channels = {unet.in_channels, unet.out_channels, vae.latent_channels}
    if len(channels) > 1 or vae.out_channels != _RGB:
        problems.append(
            f"unet/config.json takes {unet.in_channels} and gives {unet.out_channels} channels, "
            f"vae/config.json takes {vae.latent_channels} and gives {vae.out_channels}"
        )
    if unet.cross_attention_dim != text.hidden_size:
        problems.append(
            f"unet/config.json: cross_attention_dim = {unet.cross_attention_dim}, and the text "
            f"encoder's hidden_size is {text.hidden_size}"
        )
    if getattr(text, "use_attention_mask", False):
        problems.append("text_encoder/config.json: use_attention_mask is not served")
    if length > positions:
        problems.append(
            f"tokenizer/tokenizer_config.json: model_max_length = {length}, and the text encoder "
            f"reads {positions} tokens"
        )
    if problems:
        raise ConfigurationError(f"{path.name}: {'; '.join(problems)}")


_RGB = 3
