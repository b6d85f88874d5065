"""What a checkpoint says about serving it: sizes, preprocessing, text and tolerances."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from importlib import resources
from types import MappingProxyType
from typing import Any

from sensorium.contract import BATCH, MEMORY, PAST, SEQUENCE
from sensorium.errors import ConfigurationError
from sensorium_export.checkpoint import Checkpoint

MAX_BATCH_SIZE = 64
"""Rows that Triton may put into one batch: a row of the default bundle is small."""


@dataclass(frozen=True, slots=True)
class Tolerance:
    """The largest differences that still count as equal.

    `stage` is relative to the largest absolute value of the expected output, `score` and
    `embedding` are absolute, `cosine` is the least cosine of two embeddings.
    """

    stage: float
    score: float
    embedding: float
    cosine: float


@dataclass(frozen=True, slots=True)
class ImageRecipe:
    """How a picture becomes `pixel_values`."""

    image_size: int
    resample: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    crop: str


@dataclass(frozen=True, slots=True)
class TextRecipe:
    """How text becomes ids, and where generation starts and ends."""

    max_tokens: int
    pad_id: int
    unk_id: int
    bos_id: int
    eos_id: int
    max_new_tokens: int


@dataclass(frozen=True, slots=True)
class Recipe:
    """Everything that export, repository and verification take from a checkpoint's config.

    `sizes` gives the number for each fixed axis of the contract, `largest` the greatest number
    for each dynamic axis.
    """

    name: str
    sizes: Mapping[str, int]
    largest: Mapping[str, int]
    image: ImageRecipe
    text: TextRecipe
    tolerance: Tolerance


def recipe_from_checkpoint(checkpoint: Checkpoint) -> Recipe:
    """Read the recipe out of a loaded checkpoint.

    Raises:
        ConfigurationError: Keys are missing from its config.json; all of them are listed.
    """
    sections: dict[str, type] = {"image_preprocess": ImageRecipe, "text": TextRecipe}
    missing = [
        f"{section}.{field.name}"
        for section, kind in sections.items()
        for field in fields(kind)
        if field.name not in checkpoint.config[section]
    ]
    if missing:
        raise ConfigurationError(
            f"{checkpoint.path.name}/config.json lacks {', '.join(missing)}; add them"
        )
    image, text = checkpoint.config["image_preprocess"], checkpoint.config["text"]
    sizes = checkpoint.model.config.sizes
    return Recipe(
        name=checkpoint.name,
        sizes=MappingProxyType(sizes),
        largest=MappingProxyType(
            {
                BATCH: MAX_BATCH_SIZE,
                SEQUENCE: text["max_tokens"],
                MEMORY: max(text["max_tokens"], sizes["image_tokens"]),
                PAST: text["max_new_tokens"] - 1,
            }
        ),
        image=ImageRecipe(**_values(ImageRecipe, image)),
        text=TextRecipe(**_values(TextRecipe, text)),
        tolerance=_tolerance(checkpoint.config.get("parity", {})),
    )


def _values(kind: type, section: Mapping[str, Any]) -> dict[str, Any]:
    """Pick the values of a recipe's fields; a list becomes a tuple, as frozen things hold."""
    picked = {field.name: section[field.name] for field in fields(kind)}
    return {name: tuple(one) if isinstance(one, list) else one for name, one in picked.items()}


def _tolerance(overrides: Mapping[str, float]) -> Tolerance:
    defaults = tomllib.loads(
        resources.files("sensorium_export").joinpath("tolerance.toml").read_text(encoding="utf-8")
    )
    if unknown := sorted(overrides.keys() - defaults.keys()):
        raise ConfigurationError(
            f"config.json: parity.{', parity.'.join(unknown)} is not a tolerance; "
            f"they are: {', '.join(sorted(defaults))}"
        )
    return Tolerance(**{**defaults, **overrides})
