"""What export and verification need of a checkpoint, whatever its format."""

import json
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor, nn

from sensorium.errors import ConfigurationError
from sensorium_export import checkpoint as native
from sensorium_export.families import (
    PIPELINE_FILE,
    bundle_named_like,
    family_of,
    load_family,
    load_pipeline,
)
from sensorium_export.own import built, holder_of, is_own, own_recipe
from sensorium_export.recipe import Recipe, recipe_from_checkpoint, required
from sensorium_export.reference_drawing import drawn
from sensorium_export.reference_input import Clip, clip, log_mel, pixel_values


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

    def image_values(self, image: bytes) -> Mapping[str, NDArray[Any]]:
        """Return what PyTorch sees of a picture's file, by the names of the contract."""

    def token_ids(self, text: str) -> list[int]:
        """Return the ids of a text's tokens."""

    def audio_values(self, audio: bytes) -> Mapping[str, NDArray[Any]]:
        """Return what PyTorch hears of a sound's file, by the names of the contract."""

    def clip(self, video: bytes) -> Clip:
        """Return what PyTorch sees of a clip's file."""

    def generated(self, memory: Tensor, mask: Tensor) -> tuple[list[int], float]:
        """Return the tokens that are generated from a memory, and their probability."""

    def transcribed(self, tokens: list[int]) -> str:
        """Return the text of each frame's token."""

    def drawn(self, text_tokens: Tensor, seed: int, steps: int, guidance_scale: float) -> bytes:
        """Return the file of a picture that is drawn to a text."""


class ModuleSource:
    """Modules that are fed as their recipe says, and generate the likeliest words."""

    packages: tuple[str, ...] = ()

    def __init__(
        self, path: Path, model: nn.Module, recipe: Recipe, files: tuple[str, ...], tokenizer: str
    ) -> None:
        self.path, self.model, self.recipe, self.files = path, model, recipe, files
        self.tokenizer_path = path / tokenizer

    @cached_property
    def _tokenizer(self) -> Tokenizer:
        tokenizer = Tokenizer.from_file(str(self.tokenizer_path))
        tokenizer.no_padding()
        tokenizer.no_truncation()
        return tokenizer

    def image_values(self, image: bytes) -> Mapping[str, NDArray[Any]]:
        """See a picture as the checkpoint's config says."""
        return {"pixel_values": pixel_values(image, required(self.recipe.image))}

    def token_ids(self, text: str) -> list[int]:
        """Read a text."""
        ids: list[int] = self._tokenizer.encode(text).ids
        return ids

    def audio_values(self, audio: bytes) -> Mapping[str, NDArray[Any]]:
        """Hear a sound."""
        levels = log_mel(audio, required(self.recipe.audio))
        return {"log_mel": levels, "log_mel_mask": np.ones(levels.shape[:2], np.int64)}

    def clip(self, video: bytes) -> Clip:
        """Watch a clip."""
        return clip(video, required(self.recipe.image), required(self.recipe.video))

    def generated(self, memory: Tensor, mask: Tensor) -> tuple[list[int], float]:
        """Take the likeliest word again and again, computing everything anew for each."""
        text, decoder = required(self.recipe.text), self.model.get_submodule("text_decoder")
        tokens, log_probability = [text.bos_id], 0.0
        for _ in range(text.max_new_tokens):
            with torch.no_grad():
                logits = decoder(torch.tensor([tokens]), memory, mask)[0, -1]
            log_probabilities = torch.log_softmax(logits.double(), dim=-1)
            token = int(log_probabilities.argmax())
            log_probability += float(log_probabilities[token])
            if token == text.eos_id:
                break
            tokens.append(token)
        return tokens[1:], float(np.exp(log_probability))

    def transcribed(self, tokens: list[int]) -> str:
        """Refuse: no task of theirs has tokens for frames."""
        raise ConfigurationError(f"{self.path.name} has no task that gives {len(tokens)} frames")

    def drawn(self, text_tokens: Tensor, seed: int, steps: int, guidance_scale: float) -> bytes:
        """Draw step by step."""
        decoder: Any = self.model.get_submodule("image_decoder")
        side = required(self.recipe.image).image_size
        return drawn(decoder, text_tokens, side, seed, steps, guidance_scale)


class NativeSource(ModuleSource):
    """A checkpoint of Sensorium's own format."""

    def __init__(self, path: Path, bundle: str) -> None:
        loaded = native.load(path)
        files = (native.CONFIG_FILE, native.WEIGHTS_FILE, native.TOKENIZER_FILE)
        recipe = recipe_from_checkpoint(loaded, bundle)
        super().__init__(loaded.path, loaded.model, recipe, files, loaded.tokenizer_path.name)


class OwnSource(ModuleSource):
    """Modules that a function in a Python file returns."""

    packages = ("tokenizers",)

    def __init__(self, path: Path, bundle: str) -> None:
        model, file = built(path), path.name.partition(":")[0]
        recipe = own_recipe(model, bundle or bundle_named_like(path.with_name(Path(file).stem)))
        files = (file, model.tokenizer) if model.text is not None else (file,)
        super().__init__(path.parent, holder_of(model), recipe, files, model.tokenizer)
        if model.text is not None and not self.tokenizer_path.is_file():
            raise ConfigurationError(f"{file}: tokenizer = {model.tokenizer!r} is not a file there")


def open_source(path: Path, bundle: str = "") -> Source:
    """Load the checkpoint in a directory: Sensorium's own, or one of a family of models.

    Args:
        path: The directory; a `model_type` in its config.json names a family, and so does the class
            in a model_index.json. Or a function in a Python file, `my_model.py:build`; see
            `sensorium_export.own`.
        bundle: What the bundle shall be called.

    Raises:
        ConfigurationError: It is not a checkpoint, is broken or of no family that is known.
    """
    if is_own(path):
        return OwnSource(path, bundle)
    if pipeline := _config(path / PIPELINE_FILE):
        return load_pipeline(path, pipeline, bundle)
    config = _config(path / native.CONFIG_FILE)
    if (kind := family_of(path, config)) is not None:
        return load_family(path, kind, config, bundle)
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
