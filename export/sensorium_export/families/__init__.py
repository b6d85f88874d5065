"""The families of trained models that can be exported: one module each, named in `FAMILIES`.

A family's module has `load(path, config, recipe_name, bundle)`, which returns a `FamilySource`:
modules named like stages, a recipe, and the family's own preprocessing from the library itself, to
be held against what is served.
"""

import importlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import Any

from sensorium.contract import checked_bundle
from sensorium.errors import ConfigurationError
from sensorium_export.families.source import FamilySource, check_files


@dataclass(frozen=True, slots=True)
class Family:
    """Where a family is read, and what is fed to it."""

    module: str
    kinds: tuple[str, ...]


FAMILIES: Mapping[str, Family] = MappingProxyType(
    {
        "bert": Family("bert", ("text",)),
        "clip": Family("clip", ("image", "text")),
        "dinov2": Family("vit", ("image",)),
        "resnet": Family("resnet", ("image",)),
        "siglip": Family("siglip", ("image", "text")),
        "vit": Family("vit", ("image",)),
    }
)
"""By the `model_type` of a config.json: the module here that reads such checkpoints."""


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


def load_family(path: Path, config: Mapping[str, Any], bundle: str) -> FamilySource:
    """Load a checkpoint of a family.

    Args:
        path: The directory that `save_pretrained` wrote.
        config: What its config.json says.
        bundle: The bundle's name; without it, the directory's.

    Raises:
        ConfigurationError: The family is unknown, the directory lacks something or holds what does
            not belong together, or transformers is not installed.
    """
    kind = str(config["model_type"])
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
    check_files(path, config, family.kinds)
    module = importlib.import_module(f"sensorium_export.families.{family.module}")
    source: FamilySource = module.load(path, checked_bundle(bundle or bundle_named_like(path)))
    return source


def bundle_named_like(path: Path) -> str:
    """Return a bundle's name after the directory: `clip-vit-b32` gives `clip_vit_b32`."""
    name = "".join(letter if letter.isalnum() else "_" for letter in path.resolve().name.lower())
    return name if name[:1].isalpha() else f"bundle_{name}"
