"""Drawing for the reference."""

import io

import numpy as np
import torch
from PIL import Image

from sensorium_export.checkpoint import Checkpoint
from sensorium_export.reference_drawing import drawn


def pixels(data: bytes) -> "np.ndarray[tuple[int, ...], np.dtype[np.int64]]":
    """Return a picture's levels."""
    return np.asarray(Image.open(io.BytesIO(data))).astype(np.int64)


def draw(
    toy: Checkpoint, seed: int = 7, text_seed: int = 0, guidance_scale: float = 3.0
) -> "np.ndarray[tuple[int, ...], np.dtype[np.int64]]":
    """Draw to a made-up text."""
    tokens = torch.randn(1, 5, 32, generator=torch.Generator().manual_seed(text_seed))
    return pixels(drawn(toy.model.image_decoder, tokens, 32, seed, 3, guidance_scale))


def test_seed_and_text_decide_the_picture(toy: Checkpoint) -> None:
    """The same gives the same, another seed or text another picture."""
    picture = draw(toy)

    assert picture.shape == (32, 32, 3)
    assert (picture == draw(toy)).all()
    assert (picture != draw(toy, seed=8)).any()
    assert (picture != draw(toy, text_seed=1)).any()


def test_without_guidance_the_text_does_not_matter(toy: Checkpoint) -> None:
    """Scale 0 draws what comes to mind."""
    free = draw(toy, guidance_scale=0.0)

    assert (free == draw(toy, text_seed=1, guidance_scale=0.0)).all()
    assert (free != draw(toy)).any()
