"""CLIP as OpenCLIP saves it (Ilharco et al., 2021): `open_clip_config.json` and its weights.

The weights are those of a `CLIPModel` by other names, with queries, keys and values in one matrix.
Pictures are resized and cropped as OpenCLIP does, whose crop rounds half a pixel to even.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor
from transformers import CLIPConfig, CLIPModel

from sensorium.errors import ConfigurationError
from sensorium_export.families.clip import DualEncoder
from sensorium_export.families.ensembles import native
from sensorium_export.families.images import See
from sensorium_export.families.source import FamilySource, check_weights
from sensorium_export.families.texts import reading, text_recipe, text_tokenizer
from sensorium_export.recipe import ImageRecipe, family_recipe

OPEN_CLIP_CONFIG = "open_clip_config.json"
OPEN_CLIP_WEIGHTS = "open_clip_model.safetensors"
_MEAN = (0.48145466, 0.4578275, 0.40821073)
_STD = (0.26862954, 0.26130258, 0.27577711)
_FILTERS = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}
_HEAD_WIDTH = 64
_FOREIGN = ("timm_model_name", "hf_model_name")
_BLOCK = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "attn.out_proj": "self_attn.out_proj",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}
_TOP = {
    "visual.class_embedding": "vision_model.embeddings.class_embedding",
    "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
    "visual.conv1.weight": "vision_model.embeddings.patch_embedding.weight",
    "visual.ln_pre": "vision_model.pre_layrnorm",
    "visual.ln_post": "vision_model.post_layernorm",
    "positional_embedding": "text_model.embeddings.position_embedding.weight",
    "token_embedding": "text_model.embeddings.token_embedding",
    "ln_final": "text_model.final_layer_norm",
}


def load(path: Path, bundle: str) -> FamilySource:
    """Load a CLIP of transformers' own layers with its tokenizer.

    Raises:
        ConfigurationError: The towers are of another kind, or config and weights do not belong
            together.
    """
    written = json.loads((path / OPEN_CLIP_CONFIG).read_text(encoding="utf-8"))
    model, preprocess = written["model_cfg"], written.get("preprocess_cfg", {})
    vision, text = model["vision_cfg"], model["text_cfg"]
    foreign = [key for key in _FOREIGN if key in vision or key in text]
    if foreign or not isinstance(vision["layers"], int):
        raise ConfigurationError(
            f"{path.name}/{OPEN_CLIP_CONFIG}: {', '.join(foreign) or 'a convolutional tower'} "
            f"cannot be exported; towers of OpenCLIP's own transformers can"
        )
    clip = _loaded(path, model)
    tokenizer = text_tokenizer(path)
    image = _image_recipe(path, vision["image_size"], preprocess)
    recipe = family_recipe(
        bundle,
        native("text_embedding", "image_embedding"),
        sizes={
            "image_size": image.image_size,
            "embedding_dim": model["embed_dim"],
            "vocabulary": text["vocab_size"],
        },
        image=image,
        text=text_recipe(tokenizer, text["context_length"]),
    )
    return FamilySource(
        path,
        DualEncoder(clip).eval(),
        recipe,
        see=_seeing(image),
        read=reading(tokenizer),
        parts=(OPEN_CLIP_CONFIG, OPEN_CLIP_WEIGHTS, "tokenizer.json"),
    )


def _loaded(path: Path, model: Mapping[str, Any]) -> CLIPModel:
    """Build a `CLIPModel` and fill it."""
    vision, text = model["vision_cfg"], model["text_cfg"]
    activation = {"hidden_act": "quick_gelu" if model.get("quick_gelu") else "gelu"}
    config = CLIPConfig(
        projection_dim=model["embed_dim"],
        vision_config={
            **activation,
            "image_size": vision["image_size"],
            "patch_size": vision["patch_size"],
            "hidden_size": vision["width"],
            "intermediate_size": int(vision["width"] * vision.get("mlp_ratio", 4)),
            "num_hidden_layers": vision["layers"],
            "num_attention_heads": vision["width"] // vision.get("head_width", _HEAD_WIDTH),
        },
        text_config={
            **activation,
            "vocab_size": text["vocab_size"],
            "max_position_embeddings": text["context_length"],
            "hidden_size": text["width"],
            "intermediate_size": int(text["width"] * text.get("mlp_ratio", 4)),
            "num_hidden_layers": text["layers"],
            "num_attention_heads": text["heads"],
            "eos_token_id": text["vocab_size"] - 1,
            "bos_token_id": text["vocab_size"] - 2,
            "pad_token_id": 0,
        },
    )
    clip = CLIPModel(config)
    check_weights(path / OPEN_CLIP_WEIGHTS)
    weights = dict(_renamed(load_file(path / OPEN_CLIP_WEIGHTS)))
    try:
        report = clip.load_state_dict(weights, strict=False)
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1].strip()
        raise _disagreement(path, reason) from error
    missing = [name for name in report.missing_keys if not name.endswith("position_ids")]
    if missing or report.unexpected_keys:
        listed = [*missing, *report.unexpected_keys][:3]
        raise _disagreement(path, ", ".join(listed))
    return clip


def _disagreement(path: Path, reason: str) -> ConfigurationError:
    return ConfigurationError(
        f"{path.name}: {OPEN_CLIP_CONFIG} and {OPEN_CLIP_WEIGHTS} disagree ({reason})"
    )


def _renamed(weights: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """Give OpenCLIP's weights the names that transformers has for them."""
    for name, weight in weights.items():
        if name in {"visual.proj", "text_projection"}:
            kind = "visual" if name == "visual.proj" else "text"
            yield f"{kind}_projection.weight", weight.T.contiguous()
        elif ".resblocks." in name:
            yield from _renamed_block(name, weight)
        elif name != "attn_mask":
            stem, _, leaf = name.rpartition(".")
            yield _TOP.get(name) or (f"{_TOP[stem]}.{leaf}" if stem in _TOP else name), weight


def _renamed_block(name: str, weight: Tensor) -> Iterator[tuple[str, Tensor]]:
    tower = "vision_model" if name.startswith("visual.") else "text_model"
    number, part = name.partition(".resblocks.")[2].split(".", 1)
    layer = f"{tower}.encoder.layers.{number}"
    if part.startswith("attn.in_proj_"):
        leaf = part.removeprefix("attn.in_proj_")
        for which, third in zip("qkv", weight.chunk(3), strict=True):
            yield f"{layer}.self_attn.{which}_proj.{leaf}", third.contiguous()
        return
    stem, _, leaf = part.rpartition(".")
    yield f"{layer}.{_BLOCK.get(stem, stem)}.{leaf}", weight


def _image_recipe(path: Path, size: int, preprocess: Mapping[str, Any]) -> ImageRecipe:
    mode, resample = preprocess.get("resize_mode", "shortest"), preprocess.get("interpolation")
    if mode not in {"shortest", "squash"} or resample not in {None, *_FILTERS}:
        raise ConfigurationError(
            f"{path.name}/{OPEN_CLIP_CONFIG}: resize_mode = {mode}, interpolation = {resample} "
            f"cannot be served; shortest and squash with bicubic or bilinear can"
        )
    return ImageRecipe(
        size,
        resample or "bicubic",
        tuple(preprocess.get("mean") or _MEAN),
        tuple(preprocess.get("std") or _STD),
        "center_crop" if mode == "shortest" else "squash",
        crop_rounding="even" if mode == "shortest" else None,
    )


def _seeing(recipe: ImageRecipe) -> See:
    """Return what OpenCLIP's transforms do, by torchvision's documented arithmetic."""
    size, resample = recipe.image_size, _FILTERS[recipe.resample]

    def see(picture: Image.Image) -> Mapping[str, NDArray[Any]]:
        if recipe.crop == "squash":
            picture = picture.resize((size, size), resample)
        else:
            short = min(picture.size)
            picture = picture.resize(
                (size * picture.width // short, size * picture.height // short), resample
            )
            left = round((picture.width - size) / 2)
            top = round((picture.height - size) / 2)
            picture = picture.crop((left, top, left + size, top + size))
        values = np.asarray(picture, np.float64) / 255
        values = (values - np.array(recipe.mean)) / np.array(recipe.std)
        return {"pixel_values": values.transpose(2, 0, 1)[None].astype(np.float32)}

    return see
