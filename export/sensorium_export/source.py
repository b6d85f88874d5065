"""What export and verification need of a checkpoint, whatever its format."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import nn

from sensorium.errors import ConfigurationError
from sensorium_export import checkpoint as native
from sensorium_export.families import load_family
from sensorium_export.recipe import Recipe, recipe_from_checkpoint
from sensorium_export.reference_input import pixel_values


class Source(Protocol):
    """A loaded checkpoint: modules by the names of their stages, a recipe, and how it reads."""

    @property
    def path(self) -> Path:
        """The directory."""

    @property
    def model(self) -> nn.Module:
        """What has a submodule for each network among the recipe's stages."""

    @property
    def recipe(self) -> Recipe:
        """What the bundle shall be."""

    @property
    def tokenizer_path(self) -> Path:
        """Its `tokenizer.json`."""

    @property
    def files(self) -> tuple[str, ...]:
        """The names of the files that it was read from."""

    @property
    def packages(self) -> tuple[str, ...]:
        """What read it, beside PyTorch."""

    def pixel_values(self, image: bytes) -> NDArray[np.float32]:
        """Return what PyTorch sees of a picture's file, [1, 3, image_size, image_size]."""

    def token_ids(self, text: str) -> list[int]:
        """Return the ids of a text's tokens."""


class NativeSource:
    """A checkpoint of Sensorium's own format."""

    def __init__(self, path: Path, bundle: str) -> None:
        loaded = native.load(path)
        self.path = loaded.path
        self.model = loaded.model
        self.recipe = recipe_from_checkpoint(loaded, bundle)
        self.tokenizer_path = loaded.tokenizer_path
        self.files = (native.CONFIG_FILE, native.WEIGHTS_FILE, native.TOKENIZER_FILE)
        self.packages: tuple[str, ...] = ()
        self._tokenizer = Tokenizer.from_file(str(loaded.tokenizer_path))
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()

    def pixel_values(self, image: bytes) -> NDArray[np.float32]:
        """See a picture as the checkpoint's config says."""
        return pixel_values(image, self.recipe.image)

    def token_ids(self, text: str) -> list[int]:
        """Read a text."""
        ids: list[int] = self._tokenizer.encode(text).ids
        return ids


def open_source(path: Path, bundle: str = "") -> Source:
    """Load the checkpoint in a directory: Sensorium's own, or one of a family of models.

    Args:
        path: The directory; a `model_type` in its config.json names a family.
        bundle: What the bundle shall be called.

    Raises:
        ConfigurationError: It is not a checkpoint, is broken or of no family that is known.
    """
    config = _config(path / native.CONFIG_FILE)
    if "model_type" in config:
        return load_family(path, config, bundle)
    return NativeSource(path, bundle)


def _config(path: Path) -> Mapping[str, Any]:
    """Return what the config says; what is missing or broken is left to whoever loads it."""
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise ConfigurationError(f"{path.parent.name}/{path.name}: {error}") from error
    return config if isinstance(config, dict) else {}
