"""What all families share: a directory's files checked, and a loaded checkpoint as a source."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from safetensors import SafetensorError, safe_open
from torch import nn

from sensorium.errors import ConfigurationError
from sensorium_export.recipe import Recipe
from sensorium_export.reference_input import rgb_picture

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
TOKENIZER_FILE = "tokenizer.json"
PREPROCESSOR_FILE = "preprocessor_config.json"
_NEEDED = (CONFIG_FILE, WEIGHTS_FILE, TOKENIZER_FILE, PREPROCESSOR_FILE)
_PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")


@dataclass(frozen=True)
class FamilySource:
    """A checkpoint of a family; see `sensorium_export.source.Source`.

    `see` is the library's own image processor, from a picture to [1, 3, image_size, image_size];
    `read` is its own tokenizer.
    """

    path: Path
    model: nn.Module
    recipe: Recipe
    see: Callable[[Image.Image], NDArray[np.float32]]
    read: Callable[[str], list[int]]
    files: tuple[str, ...] = _NEEDED
    packages: tuple[str, ...] = ("transformers", "tokenizers")

    @property
    def tokenizer_path(self) -> Path:
        """Where its tokenizer lies."""
        return self.path / TOKENIZER_FILE

    def pixel_values(self, image: bytes) -> NDArray[np.float32]:
        """Return what the library's own processor makes of the upright picture in RGB."""
        return self.see(rgb_picture(image))

    def token_ids(self, text: str) -> list[int]:
        """Return what the library's own tokenizer makes of a text."""
        return self.read(text)


def check_files(path: Path, config: Mapping[str, Any]) -> None:
    """Check that a directory holds a checkpoint that may be read.

    Raises:
        ConfigurationError: Files are missing, truncated, pickled, or want code of their own.
    """
    if "auto_map" in config:
        raise ConfigurationError(
            f"{path.name}/config.json names code of its own (auto_map), which is never run here. "
            f"Save the model by a class of transformers itself."
        )
    if not (path / WEIGHTS_FILE).is_file():
        pickled = sorted(file.name for kind in _PICKLED for file in path.glob(kind))
        if pickled:
            raise ConfigurationError(
                f"{path.name} holds pickled weights ({', '.join(pickled)}), which can run code and "
                f"are not read. Save them as safetensors: model.save_pretrained(directory)."
            )
    if missing := [name for name in _NEEDED if not (path / name).is_file()]:
        raise ConfigurationError(
            f"{path.name} lacks {', '.join(missing)}. Save model, tokenizer and processor into it "
            f"by save_pretrained."
        )
    try:
        with safe_open(path / WEIGHTS_FILE, "pt"):
            pass
    except SafetensorError as error:
        raise ConfigurationError(
            f"{path.name}/{WEIGHTS_FILE} is truncated or damaged: {error}"
        ) from error


def loaded(kind: Any, path: Path) -> Any:  # noqa: ANN401 - transformers is untyped
    """Return a model of a class of transformers, whose weights and config agree.

    Raises:
        ConfigurationError: They do not: weights are missing, left over or of another shape.
    """
    from transformers.utils import logging  # noqa: PLC0415 - only who loads a family needs it

    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        model, report = kind.from_pretrained(
            path, local_files_only=True, use_safetensors=True, output_loading_info=True
        )
    except (RuntimeError, ValueError, TypeError, KeyError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ConfigurationError(
            f"{path.name} cannot be loaded as {kind.__name__}: {reason}"
        ) from error
    problems = [
        f"{what.removesuffix('_keys')}: {', '.join(sorted(map(str, report[what]))[:3])}"
        for what in ("missing_keys", "unexpected_keys", "mismatched_keys")
        if report.get(what)
    ]
    if problems:
        raise ConfigurationError(
            f"{path.name}: {CONFIG_FILE} and {WEIGHTS_FILE} disagree ({'; '.join(problems)})"
        )
    return model
