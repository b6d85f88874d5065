"""Checkpoints: what is saved comes back, and what is broken is named."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from sensorium.errors import ConfigurationError
from sensorium_export import checkpoint
from sensorium_export.models import ModelConfig, MultimodalModel
from sensorium_export.testing import toy_checkpoint


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """Save a small random checkpoint."""
    config = ModelConfig(vocabulary=9, width=16, heads=2, feedforward=16, embedding_dim=8)
    values = {"name": "toy", "model": config.to_dict(), "image_preprocess": {}, "text": {}}
    path = tmp_path / "toy"
    checkpoint.save(path, values, MultimodalModel(config))
    (path / checkpoint.TOKENIZER_FILE).write_text("{}")
    return path


def test_loaded_equals_saved(saved: Path) -> None:
    """Weights and config survive the round trip, and the model is ready to infer."""
    loaded = checkpoint.load(saved)
    again = checkpoint.load(saved)

    assert loaded.name == "toy"
    assert not loaded.model.training
    for a, b in zip(loaded.model.parameters(), again.model.parameters(), strict=True):
        torch.testing.assert_close(a, b)


def test_shared_weights_are_stored_once(tmp_path: Path) -> None:
    """The video encoder looks with the image encoder's own weights, also after the round trip."""
    path = toy_checkpoint(tmp_path / "toy", modalities=("video",)).path

    stored = load_file(path / checkpoint.WEIGHTS_FILE)
    model = checkpoint.load(path).model

    assert not [name for name in stored if name.startswith("video_encoder.image_encoder.")]
    assert model.video_encoder.image_encoder is model.image_encoder
    for name, weight in model.state_dict().items():
        twin = name.removeprefix("video_encoder.") if ".image_encoder." in name else name
        torch.testing.assert_close(weight, stored[twin])


def test_missing_file_is_named(saved: Path) -> None:
    """A directory without weights is no checkpoint, and the message says what is missing."""
    (saved / checkpoint.WEIGHTS_FILE).unlink()

    with pytest.raises(ConfigurationError, match=r"model\.safetensors missing"):
        checkpoint.load(saved)


def test_truncated_weights_are_named(saved: Path) -> None:
    """Half a weights file is refused by name."""
    weights = saved / checkpoint.WEIGHTS_FILE
    weights.write_bytes(weights.read_bytes()[:2000])

    with pytest.raises(ConfigurationError, match=r"toy/model\.safetensors"):
        checkpoint.load(saved)


def test_config_and_weights_that_disagree_are_refused(saved: Path) -> None:
    """Weights of another width do not load."""
    path = saved / checkpoint.CONFIG_FILE
    config = json.loads(path.read_text())
    config["model"]["width"] = 32
    path.write_text(json.dumps(config))

    with pytest.raises(ConfigurationError, match="size mismatch"):
        checkpoint.load(saved)


@pytest.mark.parametrize("text", ["{", "[]", '{"name": "toy"}'])
def test_broken_config_is_named(saved: Path, text: str) -> None:
    """A config that is no JSON, no object or lacks a part is refused by name."""
    (saved / checkpoint.CONFIG_FILE).write_text(text)

    with pytest.raises(ConfigurationError, match=r"toy/config.json"):
        checkpoint.load(saved)
