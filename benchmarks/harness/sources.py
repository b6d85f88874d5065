"""Where the inputs of each task come from: the default bundle's own test split, or drawn photos."""

import io
from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
from PIL import Image

from harness.inputs import Sources
from sensorium._config import DEFAULT_GUIDANCE_SCALE, DEFAULT_STEPS
from sensorium_training.dataset import jpeg, scene_and_rng
from sensorium_training.films import film
from sensorium_training.recordings import recording, sounds_and_rng
from sensorium_training.world.caption import caption
from sensorium_training.world.question import ask_any
from sensorium_training.world.sound_question import ask_any_sound

PHOTO_SIZE = (640, 480)
_QUALITY = 90
_SPLIT = "test"


def photo(number: int) -> bytes:
    """Draw soft colours with texture in them: a JPEG that costs a decoder what a photograph does.

    It has 0.3 megapixels and about 90 kB.
    """
    random = np.random.default_rng(number)
    soft = Image.fromarray(random.integers(0, 256, (9, 12, 3), dtype=np.uint8))
    pixels = np.asarray(soft.resize(PHOTO_SIZE, Image.Resampling.BICUBIC), np.float32)
    fine = random.normal(0, 9, (*pixels.shape[:2], 1))
    picture = Image.fromarray(np.clip(pixels + fine, 0, 255).astype(np.uint8))
    encoded = io.BytesIO()
    picture.save(encoded, "JPEG", quality=_QUALITY)
    return encoded.getvalue()


def _picture(number: int) -> bytes:
    return jpeg(_SPLIT, number)


def _picture_question(number: int) -> bytes:
    scene, rng = scene_and_rng(_SPLIT, number)
    return _asked(ask_any(rng, scene).words)


def _sound(number: int) -> bytes:
    return recording(_SPLIT, number)


def _sound_question(number: int) -> bytes:
    scene, rng = sounds_and_rng(_SPLIT, number)
    return _asked(ask_any_sound(rng, scene).words)


def _film(number: int) -> bytes:
    return film(_SPLIT, number)


def _prompt(number: int) -> bytes:
    return " ".join(caption(scene_and_rng(_SPLIT, number)[0])).encode()


def _asked(words: list[str]) -> bytes:
    return f"{' '.join(words)}?".encode()


PLAYROOM: Mapping[str, Sources] = MappingProxyType(
    {
        "image_embedding": {"image": _picture},
        "visual_question_answering": {"image": _picture, "question": _picture_question},
        "image_captioning": {"image": _picture},
        "audio_tagging": {"audio": _sound},
        "audio_question_answering": {"audio": _sound, "question": _sound_question},
        "video_captioning": {"video": _film},
        # The sound track of the film is heard, because there is no sound beside it.
        "event_detection": {"video": _film, "audio": lambda _: b""},
        "text_to_image": {
            "text": _prompt,
            "seed": lambda number: number,
            "steps": lambda _: DEFAULT_STEPS,
            "guidance_scale": lambda _: DEFAULT_GUIDANCE_SCALE,
        },
    }
)
"""The default bundle's tasks on its own test split."""

PHOTOS: Mapping[str, Sources] = MappingProxyType({"image_embedding": {"image": photo}})
"""Pictures of the size that people send."""
