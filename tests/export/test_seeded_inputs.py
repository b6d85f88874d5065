"""Inputs drawn from seeds."""

import numpy as np
import pytest

from sensorium.contract import (
    BATCH,
    DECODER_GRAPHS,
    DIFFUSION_GRAPHS,
    DYNAMIC_AXES,
    MEL_FRAMES,
    MEMORY,
    PAST,
    STAGES,
    Signature,
)
from sensorium_export.recipe import Recipe
from sensorium_export.seeded_inputs import case, cases, example, row_alone

SIGNATURES = {
    "text_encoder": STAGES["text_encoder"],
    "fusion": STAGES["fusion"],
    "audio_encoder": STAGES["audio_encoder"],
    "step": DECODER_GRAPHS["step"],
    "denoise": DIFFUSION_GRAPHS["denoise"],
}


@pytest.mark.parametrize("name", SIGNATURES)
def test_smallest_and_largest_shapes_are_among_the_cases(name: str, recipe: Recipe) -> None:
    """The ends of every dynamic axis are tried: there the mistakes live."""
    signature = SIGNATURES[name]
    drawn = {one.name: one for one in cases(signature, recipe.sizes, recipe.largest)}

    assert sorted(drawn) == ["largest", "ragged", "single", "smallest", "typical"]
    for spec in signature.inputs:
        for index, axis in enumerate((BATCH, *spec.shape)):
            if axis in DYNAMIC_AXES:
                smallest = drawn["smallest"].inputs[spec.name].shape[index]
                largest = drawn["largest"].inputs[spec.name].shape[index]
                assert smallest == (0 if axis == PAST else 1)
                assert largest == recipe.largest[str(axis)]


def test_same_seed_draws_the_same_inputs(recipe: Recipe) -> None:
    """A failure can be repeated."""
    first, second, other = (
        case("x", SIGNATURES["step"], {**recipe.sizes, **recipe.largest}, seed)
        for seed in (1, 1, 2)
    )

    assert all(np.array_equal(first.inputs[name], second.inputs[name]) for name in first.inputs)
    assert not np.array_equal(first.inputs["past"], other.inputs["past"])


def test_ids_lie_inside_the_vocabulary(recipe: Recipe) -> None:
    """No seeded input is out of range."""
    drawn = case("x", SIGNATURES["text_encoder"], {**recipe.sizes, **recipe.largest}, seed=3)

    assert drawn.inputs["input_ids"].min() >= 0
    assert drawn.inputs["input_ids"].max() < recipe.sizes["vocabulary"]


def test_ragged_rows_differ_in_length_and_masks_agree(recipe: Recipe) -> None:
    """A ragged case has a full row, a shortest one, and masks that say so."""
    ragged = next(
        one
        for one in cases(SIGNATURES["step"], recipe.sizes, recipe.largest)
        if one.name == "ragged"
    )
    mask, position = ragged.inputs["memory_mask"], ragged.inputs["position"]

    assert mask.sum(axis=1).tolist() == ragged.lengths[MEMORY].tolist()
    assert ragged.lengths[MEMORY].min() == 1
    assert ragged.lengths[MEMORY].max() == mask.shape[1]
    assert position.min() == 0
    assert position.max() == ragged.inputs["past"].shape[3]


def test_sound_is_as_long_as_its_mask_says(recipe: Recipe) -> None:
    """Padding of spectrograms is told by their mask."""
    axes = {**recipe.sizes, **recipe.largest}

    ragged = case("x", SIGNATURES["audio_encoder"], axes, seed=0, ragged=True)

    mask = ragged.inputs["log_mel_mask"]
    assert mask.sum(axis=1).tolist() == ragged.lengths[MEL_FRAMES].tolist()


def test_noise_levels_lie_between_nothing_and_noise_alone(recipe: Recipe) -> None:
    """A denoiser is asked only what a sampler asks."""
    drawn = case("x", SIGNATURES["denoise"], {**recipe.sizes, **recipe.largest}, seed=0)

    levels = drawn.inputs["noise_level"]
    assert levels.shape == (recipe.largest[BATCH],)
    assert 0 <= levels.min() < levels.max() <= 1


def test_row_alone_has_its_padding_cut_off(recipe: Recipe) -> None:
    """A row by itself is as long as it is valid."""
    signature = SIGNATURES["step"]
    ragged = case("x", signature, {**recipe.sizes, **recipe.largest}, seed=0, ragged=True)

    alone = row_alone(signature, ragged, ragged.batch - 1)

    assert alone.batch == 1
    assert alone.inputs["past"].shape[3] == 0
    assert alone.inputs["memory_mask"].tolist() == [[1]]


def test_example_has_no_axis_that_a_tracer_takes_for_a_constant(recipe: Recipe) -> None:
    """No dynamic axis is 0 or 1 in what a graph is traced with, and no two are equal."""
    lengths = [example(signature, recipe.sizes).inputs for signature in SIGNATURES.values()]

    assert all(min(array.shape) > 1 for inputs in lengths for array in inputs.values())


def test_mask_without_a_length_is_full() -> None:
    """A mask over a fixed axis hides nothing."""
    signature = Signature(STAGES["image_encoder"].outputs[1:2], ())

    drawn = case("x", signature, {BATCH: 2, "image_tokens": 3}, seed=0)

    assert drawn.inputs["image_mask"].tolist() == [[1, 1, 1], [1, 1, 1]]
