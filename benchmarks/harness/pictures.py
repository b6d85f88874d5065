"""The pictures and questions that are sent, as a client has them: file bytes and text."""

import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from PIL import Image

from sensorium_training.dataset import jpeg, scene_and_rng
from sensorium_training.world.question import ask_any

COUNT = 64
"""Enough that no two in a batch of 32 are the same."""

PHOTO_SIZE = (640, 480)
_QUALITY = 90
_QUESTIONS_FILE = "questions.json"


@dataclass(frozen=True, slots=True)
class Inputs:
    """Pictures as JPEG bytes, and a question for each."""

    images: tuple[bytes, ...]
    questions: tuple[str, ...]

    def save(self, directory: Path) -> None:
        """Write them as files."""
        directory.mkdir(parents=True, exist_ok=True)
        for number, image in enumerate(self.images):
            (directory / f"{number:03}.jpg").write_bytes(image)
        (directory / _QUESTIONS_FILE).write_text(json.dumps(self.questions))

    @classmethod
    def load(cls, directory: Path) -> Self:
        """Read what `save` wrote."""
        images = tuple(path.read_bytes() for path in sorted(directory.glob("*.jpg")))
        return cls(images, tuple(json.loads((directory / _QUESTIONS_FILE).read_text())))


def playroom_inputs(count: int = COUNT) -> Inputs:
    """Return pictures of the playroom's test split and questions about them."""
    questions = []
    for index in range(count):
        scene, rng = scene_and_rng("test", index)
        questions.append(" ".join(ask_any(rng, scene).words) + "?")
    return Inputs(tuple(jpeg("test", index) for index in range(count)), tuple(questions))


def photo_inputs(count: int = COUNT) -> Inputs:
    """Return drawn pictures that cost a decoder what photographs of 0.3 megapixels cost."""
    return Inputs(tuple(_photo(index) for index in range(count)), ("what is it?",) * count)


def _photo(seed: int) -> bytes:
    """Draw soft colours with texture in them: about 90 kB as JPEG."""
    random = np.random.default_rng(seed)
    soft = Image.fromarray(random.integers(0, 256, (9, 12, 3), dtype=np.uint8))
    pixels = np.asarray(soft.resize(PHOTO_SIZE, Image.Resampling.BICUBIC), np.float32)
    fine = random.normal(0, 9, (*pixels.shape[:2], 1))
    picture = Image.fromarray(np.clip(pixels + fine, 0, 255).astype(np.uint8))
    encoded = io.BytesIO()
    picture.save(encoded, "JPEG", quality=_QUALITY)
    return encoded.getvalue()
