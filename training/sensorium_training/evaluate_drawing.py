"""Evaluation of drawing: two judges of what was drawn from the captions of held-out scenes."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sensorium_export.models import MultimodalModel
from sensorium_server.settings import load
from sensorium_training.dataset import jpeg, scenes, seen_pixels
from sensorium_training.drawn import ATTRIBUTES, Sampling, draw, judge
from sensorium_training.evaluate import Seen, answer, percent, questions, see
from sensorium_training.examples import Words
from sensorium_training.reading import Reader
from sensorium_training.world.caption import caption
from sensorium_training.world.scene import Scene

ASKED = ("color", "shape", "size", "texture", "where", "background", "count")


def evaluate_drawing(
    model: MultimodalModel, words: Words, count: int, sampling: Sampling
) -> dict[str, Any]:
    """Return what templates and the model's own answers say of `count` drawn pictures."""
    wanted = scenes("test", count)
    reader = Reader(model.text_encoder, words)
    texts = [caption(scene) for scene in wanted]
    drawn = draw(model.image_decoder, reader, texts, range(count), sampling)
    size, limits = model.config.image_size, load()
    real = np.stack([seen_pixels(jpeg("test", i), size, limits) for i in range(count)])
    return {
        "prompts": count,
        "steps": sampling.steps,
        "guidance_scale": sampling.guidance_scale,
        "judged_real": count,
        "judge": judged(drawn, wanted),
        "judge_on_real": judged(real, wanted),
        "questions": answered(model, words, drawn, wanted),
    }


def judged(pictures: NDArray[np.uint8], wanted: Sequence[Scene]) -> dict[str, float]:
    """Return the templates' verdict; `attributes` is the mean over all things and attributes."""
    report = judge(pictures, wanted)
    mean = sum(report[name] for name in ATTRIBUTES) / len(ATTRIBUTES)
    return {name: round(value, 2) for name, value in {"attributes": mean, **report}.items()}


def answered(
    model: MultimodalModel, words: Words, pictures: NDArray[np.uint8], wanted: Sequence[Scene]
) -> dict[str, float]:
    """Return how often the model's answers about drawn pictures are what the captions said."""
    looked = see(model, "test", pictures)
    seen = Seen(list(wanted), looked.tokens, looked.mask, looked.embedding)
    media = seen.tokens, seen.mask
    shares = {}
    for kind in ASKED:
        done = answer(model, words, media, questions(seen.worlds, kind, 96))
        shares[kind] = percent(np.mean([one.right for one in done]))
    return shares
