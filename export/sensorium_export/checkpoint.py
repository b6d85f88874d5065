"""Checkpoints: weights, config and tokenizer in one directory, read and written as a whole."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from sensorium.errors import ConfigurationError
from sensorium_export.models import ModelConfig, MultimodalModel
from sensorium_export.models.multimodal import SHARED

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
TOKENIZER_FILE = "tokenizer.json"


@dataclass(frozen=True)
class Checkpoint:
    """A loaded checkpoint; `config` is the whole of config.json, `model` is in eval mode."""

    path: Path
    config: dict[str, Any]
    model: MultimodalModel

    @property
    def name(self) -> str:
        """The bundle's name."""
        return str(self.config["name"])

    @property
    def tokenizer_path(self) -> Path:
        """Where its tokenizer lies."""
        return self.path / TOKENIZER_FILE


def load(path: Path) -> Checkpoint:
    """Load the checkpoint in the directory `path`.

    Raises:
        ConfigurationError: a file is missing or broken, or weights and config disagree.
    """
    missing = [
        name for name in (CONFIG_FILE, WEIGHTS_FILE, TOKENIZER_FILE) if not (path / name).is_file()
    ]
    if missing:
        raise ConfigurationError(
            f'"{path.name}" is not a checkpoint: {", ".join(missing)} missing; '
            f"it must hold {CONFIG_FILE}, {WEIGHTS_FILE} and {TOKENIZER_FILE}"
        )
    config = _config_from_file(path / CONFIG_FILE)
    model = MultimodalModel(ModelConfig.from_dict(config["model"]))
    try:
        model.load_state_dict(_shared_out(load_file(path / WEIGHTS_FILE), model))
    except (SafetensorError, RuntimeError) as error:
        raise ConfigurationError(f"{path.name}/{WEIGHTS_FILE}: {error}") from error
    return Checkpoint(path, config, model.eval())


def _config_from_file(path: Path) -> dict[str, Any]:
    try:
        config = json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise ConfigurationError(f"{path.parent.name}/{path.name}: {error}") from error
    needed = ("name", "model", "image_preprocess", "text")
    if not isinstance(config, dict) or (absent := [key for key in needed if key not in config]):
        wanted = ", ".join(needed if not isinstance(config, dict) else absent)
        raise ConfigurationError(f"{path.parent.name}/{path.name}: {wanted} missing")
    return config


def save(path: Path, config: dict[str, Any], model: MultimodalModel) -> None:
    """Write config and weights into `path`; the tokenizer is written by whoever made it."""
    path.mkdir(parents=True, exist_ok=True)
    (path / CONFIG_FILE).write_text(json.dumps(config, indent=2) + "\n")
    tensors = {
        name: tensor.contiguous().cpu()
        for name, tensor in model.state_dict().items()
        if not name.startswith(tuple(SHARED))
    }
    save_file(tensors, path / WEIGHTS_FILE)


def _shared_out(weights: dict[str, Tensor], model: MultimodalModel) -> dict[str, Tensor]:
    """Return the weights by all the names that the model has for them; a file has one of each."""
    named = dict(weights)
    for name in model.state_dict():
        for beginning, origin in SHARED.items():
            twin = origin + name.removeprefix(beginning)
            if name.startswith(beginning) and twin in weights:
                named[name] = weights[twin]
    return named
