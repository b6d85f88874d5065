"""Drawing for the reference: the sampling loop in plain PyTorch.

DDIM with η = 0 (Song, Meng and Ermon, 2021, equation 12), classifier-free guidance (Ho and
Salimans, 2022, equation 6), velocities on the cosine schedule (Salimans and Ho, 2022, appendix D).
The noise is the seed's, as the contract has it: PCG64's normal numbers in float32.
"""

import io
import math

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from sensorium_export.models.diffusion import DiffusionImageDecoder


def drawn(  # noqa: PLR0917 - the inputs of the task
    decoder: DiffusionImageDecoder,
    text_tokens: Tensor,
    side: int,
    seed: int,
    steps: int,
    guidance_scale: float,
) -> bytes:
    """Draw one picture to one text.

    Args:
        decoder: The image decoder, with its methods `condition` and `denoise`.
        text_tokens: float, [1, sequence, width], without padding.
        side: The picture's height and width.
        seed: Of the noise.
        steps: How many times to denoise.
        guidance_scale: 0 ignores the text, 1 follows it as learned, more exaggerates it.

    Returns:
        A PNG file.
    """
    noise = np.random.Generator(np.random.PCG64(seed)).standard_normal((1, 3, side, side), "f4")
    picture = torch.from_numpy(noise)
    everywhere = torch.ones(text_tokens.shape[:2], dtype=torch.int64)
    with torch.no_grad():
        said = decoder.condition(text_tokens, everywhere)
        unsaid = decoder.condition(text_tokens, torch.zeros_like(everywhere))
        for step in range(steps):
            now, then = 1 - step / steps, 1 - (step + 1) / steps
            level = torch.tensor([now])
            free = decoder.denoise(picture, level, unsaid)
            velocity = free + guidance_scale * (decoder.denoise(picture, level, said) - free)
            signal, scatter = math.cos(now * math.pi / 2), math.sin(now * math.pi / 2)
            clean = (signal * picture - scatter * velocity).clamp(-1, 1)
            remaining = (picture - signal * clean) / scatter
            signal, scatter = math.cos(then * math.pi / 2), math.sin(then * math.pi / 2)
            picture = signal * clean + scatter * remaining
    return _png(((picture[0].clamp(-1, 1) + 1) * 127.5).round().byte().permute(1, 2, 0).numpy())


def _png(pixels: NDArray[np.uint8]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()
