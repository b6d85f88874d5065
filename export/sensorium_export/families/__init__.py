"""The families of trained models that can be exported: one module each, named in `FAMILIES`.

A family's module has `load(path, config, recipe_name, bundle)`, which returns a `FamilySource`:
modules named like stages, a recipe, and the family's own preprocessing from the library itself, to
be held against what is served.
"""

import importlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import Any

from tokenizers import Tokenizer

from sensorium.contract import BATCH, SEQUENCE, checked_bundle
from sensorium.errors import ConfigurationError
from sensorium_export.families.source import (
    CONFIG_FILE,
    TOKENIZER_FILE,
    WEIGHTS_FILE,
    FamilySource,
    check_files,
)


@dataclass(frozen=True, slots=True)
class Family:
    """Where a family is read, and what is fed to it."""

    module: str
    kinds: tuple[str, ...]
    weights: str = WEIGHTS_FILE


FAMILIES: Mapping[str, Family] = MappingProxyType(
    {
        "audio-spectrogram-transformer": Family("audio_spectrogram", ("audio",)),
        "bert": Family("bert", ("text",)),
        "blip": Family("blip", ("image", "text")),
        "clap": Family("clap", ("audio", "text")),
        "clip": Family("clip", ("image", "text")),
        "dinov2": Family("vit", ("image",)),
        "git": Family("git", ("image", "text")),
        "open_clip": Family("open_clip", ("text",), "open_clip_model.safetensors"),
        "resnet": Family("resnet", ("image",)),
        "siglip": Family("siglip", ("image", "text")),
        "t5": Family("t5", ("text",)),
        "timesformer": Family("timesformer", ("video",)),
        "videomae": Family("videomae", ("video",)),
        "vilt": Family("vilt", ("image", "text")),
        "vision-encoder-decoder": Family("vision_encoder_decoder", ("image", "text")),
        "vit": Family("vit", ("image",)),
        "wav2vec2": Family("wav2vec2", ("audio",)),
        "whisper": Family("whisper", ("audio", "text")),
        "xclip": Family("x_clip", ("video", "text")),
    }
)
"""By the `model_type` of a config.json: the module here that reads such checkpoints."""

LARGE = 20_000_000
"""Parameters of a model whose graphs are compared on `PROVEN_ROWS` and `PROVEN_TOKENS` at most."""

PROVEN_ROWS = 4
PROVEN_TOKENS = 128

MARKS: Mapping[str, str] = MappingProxyType({"open_clip_config.json": "open_clip"})
"""Files by which a directory without such a config.json is known, and its family."""


def family_of(path: Path, config: Mapping[str, Any]) -> str | None:
    """Return the family that a directory is of, by what it says of itself; None if nothing."""
    if "model_type" in config:
        return str(config["model_type"])
    return next((family for mark, family in MARKS.items() if (path / mark).is_file()), None)


PIPELINE_FILE = "model_index.json"

PIPELINES: Mapping[str, str] = MappingProxyType({"StableDiffusionPipeline": "stable_diffusion"})
"""By the `_class_name` of a model_index.json: the module here that reads such directories."""


def load_pipeline(path: Path, index: Mapping[str, Any], bundle: str) -> FamilySource:
    """Load a pipeline of diffusers.

    Args:
        path: The directory that `save_pretrained` wrote.
        index: What its model_index.json says.
        bundle: The bundle's name; without it, the directory's.

    Raises:
        ConfigurationError: The pipeline is unknown, the directory lacks something or holds what
            does not belong together, or diffusers is not installed.
    """
    kind = index.get("_class_name")
    if not isinstance(kind, str) or kind not in PIPELINES:
        raise ConfigurationError(
            f"{path.name}/{PIPELINE_FILE}: {json.dumps(kind)} is no pipeline that can be exported, "
            f"and code that a directory brings along is never run; those that can are: "
            f"{', '.join(PIPELINES)}"
        )
    if find_spec("diffusers") is None or find_spec("transformers") is None:
        raise ConfigurationError(
            f"{path.name} is read by diffusers, which is not installed: "
            f"pip install 'sensorium[families]'"
        )
    module = importlib.import_module(f"sensorium_export.families.{PIPELINES[kind]}")
    name = checked_bundle(bundle or bundle_named_like(path))
    source: FamilySource = module.load(path, index, name)
    return source


def load_family(path: Path, kind: str, config: Mapping[str, Any], bundle: str) -> FamilySource:
    """Load a checkpoint of a family.

    Args:
        path: The directory that `save_pretrained` wrote.
        kind: What `family_of` says.
        config: What its config.json says.
        bundle: The bundle's name; without it, the directory's.

    Raises:
        ConfigurationError: The family is unknown, the directory lacks something or holds what does
            not belong together, or transformers is not installed.
    """
    if kind not in FAMILIES:
        raise ConfigurationError(
            f'{path.name}/config.json: model_type = "{kind}" is no family that can be exported; '
            f"those are: {', '.join(sorted(FAMILIES))}"
        )
    if find_spec("transformers") is None:
        raise ConfigurationError(
            f"{path.name} is read by transformers, which is not installed: "
            f"pip install 'sensorium[families]'"
        )
    family = FAMILIES[kind]
    check_files(path, config, family.kinds, family.weights)
    module = importlib.import_module(f"sensorium_export.families.{family.module}")
    source: FamilySource = module.load(path, checked_bundle(bundle or bundle_named_like(path)))
    _check_vocabulary(source)
    return _proven_within_reason(source)


def _proven_within_reason(source: FamilySource) -> FamilySource:
    """Let the graphs of a large model be compared on smaller batches: the largest takes hours."""
    recipe = source.recipe
    if sum(weight.numel() for weight in source.model.parameters()) < LARGE:
        return source
    largest = {**recipe.largest, BATCH: PROVEN_ROWS}
    if SEQUENCE in largest:
        largest[SEQUENCE] = min(largest[SEQUENCE], PROVEN_TOKENS)
    return replace(source, recipe=replace(recipe, largest=MappingProxyType(largest)))


def _check_vocabulary(source: FamilySource) -> None:
    """Check that the network knows every token that the tokenizer can give."""
    known = source.recipe.sizes.get("vocabulary")
    if known is None or source.recipe.text is None:
        return
    greatest = max(Tokenizer.from_file(str(source.tokenizer_path)).get_vocab().values())
    if greatest >= known:
        raise ConfigurationError(
            f"{source.path.name}/{TOKENIZER_FILE} gives ids up to {greatest}, the network of "
            f"{CONFIG_FILE} knows {known}: they are not of one checkpoint."
        )


def bundle_named_like(path: Path) -> str:
    """Return a bundle's name after the directory: `clip-vit-b32` gives `clip_vit_b32`."""
    name = "".join(letter if letter.isalnum() else "_" for letter in path.resolve().name.lower())
    return name if name[:1].isalpha() else f"bundle_{name}"
