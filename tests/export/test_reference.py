"""The answer as PyTorch gives it."""

import io
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from sensorium.contract import TASKS
from sensorium_export.checkpoint import Checkpoint
from sensorium_export.ensembles import ENSEMBLES, stages_of
from sensorium_export.probes import probes
from sensorium_export.recipe import ImageRecipe, Recipe, required
from sensorium_export.reference import Reference
from sensorium_export.reference_input import pixel_values
from sensorium_export.source import NativeSource

PROBE = probes(1, ["what color is the star?"])[0]
SQUARE = ImageRecipe(4, "bicubic", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), "squash")


def stored(picture: Image.Image, kind: str = "PNG") -> bytes:
    """Return a picture as a file's bytes."""
    file = io.BytesIO()
    picture.save(file, kind)
    return file.getvalue()


def test_colours_become_channels_between_minus_one_and_one() -> None:
    """White is 1, black is -1, and the channels come first."""
    red = pixel_values(stored(Image.new("RGB", (9, 5), (255, 0, 0))), SQUARE)

    assert red.shape == (1, 3, 4, 4)
    assert red[0, :, 0, 0].tolist() == [1.0, -1.0, -1.0]


def test_transparency_lies_over_white() -> None:
    """What cannot be seen is white."""
    clear = pixel_values(stored(Image.new("RGBA", (4, 4), (0, 0, 0, 0))), SQUARE)

    assert clear.min() == 1.0


def test_sixteen_bits_are_read_by_their_high_byte() -> None:
    """A 16-bit picture is as bright as its 8-bit twin."""
    deep = Image.fromarray(np.full((4, 4), 0x80FF, np.uint16))
    flat = Image.new("L", (4, 4), 0x80)

    assert np.array_equal(pixel_values(stored(deep), SQUARE), pixel_values(stored(flat), SQUARE))


def test_crop_takes_the_middle() -> None:
    """center_crop keeps the shape of things and loses the ends."""
    wide = Image.new("RGB", (12, 4), "white")
    wide.paste((0, 0, 0), (4, 0, 8, 4))

    cropped = pixel_values(stored(wide), replace(SQUARE, crop="center_crop"))

    assert cropped.max() == -1.0


def test_run_gives_every_stage_and_task(toy: Checkpoint, recipe: Recipe) -> None:
    """All tensors of the contract are there, so that every stage can be compared."""
    run = Reference(NativeSource(toy.path, "")).run(PROBE)

    assert {stage.stage for stage in run.stages} == set(stages_of(ENSEMBLES.values()))
    for stage in run.stages:
        signature = recipe.signature(stage.stage)
        known = {spec.name for spec in (*signature.inputs, *signature.optional)}
        assert {spec.name for spec in signature.inputs} <= stage.inputs.keys() <= known
        assert stage.outputs.keys() == {spec.name for spec in signature.outputs}
    assert run.tasks.keys() == ENSEMBLES.keys()
    for task, outputs in run.tasks.items():
        assert outputs.keys() == {spec.name for spec in TASKS[task].outputs}


def test_generation_is_the_likeliest_word_again_and_again(toy: Checkpoint, recipe: Recipe) -> None:
    """The score is the product of the probabilities of the words chosen."""
    run = Reference(NativeSource(toy.path, "")).run(PROBE)
    answered = next(stage for stage in run.stages if stage.stage == "text_decoder")
    memory, mask = (torch.from_numpy(answered.inputs[name]) for name in ("memory", "memory_mask"))
    words = answered.outputs["text"].item().decode().split()
    vocabulary = Reference(NativeSource(toy.path, "")).tokenizer.get_vocab()
    tokens = [required(recipe.text).bos_id, *(vocabulary[word] for word in words)]

    steps = min(len(tokens), required(recipe.text).max_new_tokens)
    with torch.no_grad():
        logits = toy.model.text_decoder(torch.tensor([tokens[:steps]]), memory, mask)[0]
    log_probabilities = torch.log_softmax(logits, -1)
    best = log_probabilities.argmax(-1).tolist()

    assert words
    assert best[: len(words)] == tokens[1:]
    score = float(log_probabilities.max(-1).values.sum().exp())
    assert answered.outputs["score"].item() == pytest.approx(score, rel=1e-4)
