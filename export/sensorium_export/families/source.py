"""What all families share: a directory's files checked, and a loaded checkpoint as a source."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from PIL import Image
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from sensorium.errors import ConfigurationError
from sensorium_export.recipe import Recipe, required
from sensorium_export.reference_input import Clip, rgb_picture

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
TOKENIZER_FILE = "tokenizer.json"
PREPROCESSOR_FILE = "preprocessor_config.json"
GENERATION_FILE = "generation_config.json"
PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")

_DISAGREEMENTS = ("missing", "unexpected", "mismatched")

NEEDED: Mapping[str, str] = {
    "image": PREPROCESSOR_FILE,
    "audio": PREPROCESSOR_FILE,
    "video": PREPROCESSOR_FILE,
    "text": TOKENIZER_FILE,
}
"""The file without which a kind of input cannot be read."""


@dataclass(frozen=True)
class FamilySource:
    """A checkpoint of a family; see `sensorium_export.source.Source`.

    The functions are the library's own: `see` gives `pixel_values` (and `image_extent`) of an
    upright picture, `read` the ids of a text, `hear` what the audio encoder takes of a sound's
    file, `watch` the frames of a clip's file, `generate` the tokens for a memory and its mask with
    their probability, `transcribe` the text of each frame's token, `draw` a picture's file for text
    tokens, a seed, steps and guidance. `parts` are the files that such a checkpoint may have, and
    `tokenizer` where its tokenizer is.
    """

    path: Path
    model: nn.Module
    recipe: Recipe
    see: Callable[[Image.Image], Mapping[str, NDArray[Any]]] | None = None
    read: Callable[[str], list[int]] | None = None
    hear: Callable[[bytes], Mapping[str, NDArray[Any]]] | None = None
    watch: Callable[[bytes], Clip] | None = None
    generate: Callable[[Tensor, Tensor], tuple[list[int], float]] | None = None
    transcribe: Callable[[list[int]], str] | None = None
    draw: Callable[[Tensor, int, int, float], bytes] | None = None
    parts: tuple[str, ...] = (
        CONFIG_FILE,
        WEIGHTS_FILE,
        GENERATION_FILE,
        TOKENIZER_FILE,
        PREPROCESSOR_FILE,
    )
    tokenizer: str = TOKENIZER_FILE
    packages: tuple[str, ...] = ("transformers", "tokenizers")

    @property
    def files(self) -> tuple[str, ...]:
        """The files that it was read from."""
        return tuple(name for name in self.parts if (self.path / name).is_file())

    @property
    def tokenizer_path(self) -> Path:
        """Where its tokenizer lies."""
        return self.path / self.tokenizer

    def image_values(self, image: bytes) -> Mapping[str, NDArray[Any]]:
        """Return what the library's own processor makes of the upright picture in RGB."""
        return required(self.see)(rgb_picture(image))

    def token_ids(self, text: str) -> list[int]:
        """Return what the library's own tokenizer makes of a text."""
        return required(self.read)(text)

    def audio_values(self, audio: bytes) -> Mapping[str, NDArray[Any]]:
        """Return what the library's own feature extractor makes of a sound."""
        return required(self.hear)(audio)

    def clip(self, video: bytes) -> Clip:
        """Return what the library's own processor makes of a clip."""
        return required(self.watch)(video)

    def generated(self, memory: Tensor, mask: Tensor) -> tuple[list[int], float]:
        """Return what the library's own `generate` says."""
        return required(self.generate)(memory, mask)

    def transcribed(self, tokens: list[int]) -> str:
        """Return what the library's own tokenizer makes of each frame's token."""
        return required(self.transcribe)(tokens)

    def drawn(self, text_tokens: Tensor, seed: int, steps: int, guidance_scale: float) -> bytes:
        """Return what the library's own pipeline draws."""
        return required(self.draw)(text_tokens, seed, steps, guidance_scale)


def check_files(
    path: Path, config: Mapping[str, Any], kinds: Collection[str], weights: str
) -> None:
    """Check that a directory holds a checkpoint that may be read.

    Args:
        path: The directory.
        config: What its config.json says.
        kinds: What is fed to it: "image", "audio", "video", "text".
        weights: The name of its file of weights.

    Raises:
        ConfigurationError: Files are missing, truncated, pickled, or want code of their own.
    """
    if "auto_map" in config:
        raise ConfigurationError(
            f"{path.name}/config.json names code of its own (auto_map), which is never run here. "
            f"Save the model by a class of transformers itself."
        )
    if not (path / weights).is_file():
        pickled = sorted(file.name for kind in PICKLED for file in path.glob(kind))
        if pickled:
            raise ConfigurationError(
                f"{path.name} holds pickled weights ({', '.join(pickled)}), which can run code and "
                f"are not read. Save them as safetensors: model.save_pretrained(directory)."
            )
    if missing := sorted(
        {weights, *(NEEDED[kind] for kind in kinds)} - {file.name for file in path.iterdir()}
    ):
        raise ConfigurationError(
            f"{path.name} lacks {', '.join(missing)}. Save model, tokenizer and processor into it "
            f"by save_pretrained."
        )
    check_weights(path / weights)


def check_weights(file: Path) -> None:
    """Check that a file of weights is whole.

    Raises:
        ConfigurationError: It is truncated or damaged.
    """
    try:
        with safe_open(file, "pt"):
            pass
    except SafetensorError as error:
        raise ConfigurationError(
            f"{file.parent.name}/{file.name} is truncated or damaged: {error}"
        ) from error


def loaded(
    kind: Any,  # noqa: ANN401
    path: Path,
    unused: str = "",
    weights: str = WEIGHTS_FILE,
    **options: Any,  # noqa: ANN401
) -> Any:  # noqa: ANN401
    """Return a model of a class of transformers, whose weights and config agree.

    Args:
        kind: The class.
        path: The directory.
        unused: What the names of weights that may be left over begin with.
        weights: The file that holds them, for messages.
        options: Further arguments of `from_pretrained`.

    Raises:
        ConfigurationError: They do not: weights are missing, left over or of another shape.
    """
    from transformers.utils import logging  # noqa: PLC0415 - only who loads a family needs it

    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    try:
        model, report = kind.from_pretrained(
            path,
            local_files_only=True,
            use_safetensors=True,
            output_loading_info=True,
            **options,
        )
    except (RuntimeError, ValueError, TypeError, KeyError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ConfigurationError(
            f"{path.name} cannot be loaded as {kind.__name__}: {reason}"
        ) from error
    found = {what: sorted(map(str, report.get(f"{what}_keys", ()))) for what in _DISAGREEMENTS}
    if unused:
        found["unexpected"] = [one for one in found["unexpected"] if not one.startswith(unused)]
    problems = [f"{what}: {', '.join(names[:3])}" for what, names in found.items() if names]
    if problems:
        raise ConfigurationError(
            f"{path.name}: {CONFIG_FILE} and {weights} disagree ({'; '.join(problems)})"
        )
    return model
