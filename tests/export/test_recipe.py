"""What a checkpoint says about serving it."""

from dataclasses import replace

import pytest

from sensorium.contract import BATCH, DYNAMIC_AXES, MEMORY, PAST, SEQUENCE, STAGES
from sensorium.errors import ConfigurationError
from sensorium_export.checkpoint import Checkpoint
from sensorium_export.recipe import Recipe, recipe_from_checkpoint


def test_every_axis_of_the_contract_has_a_number(recipe: Recipe) -> None:
    """Fixed axes have a size, dynamic ones a greatest length."""
    axes = {
        axis
        for signature in STAGES.values()
        for spec in (*signature.inputs, *signature.outputs)
        for axis in spec.shape
        if isinstance(axis, str)
    }

    assert axes - DYNAMIC_AXES <= recipe.sizes.keys()
    assert recipe.largest.keys() == {BATCH, SEQUENCE, MEMORY, PAST}


def test_missing_keys_are_listed_together(toy: Checkpoint) -> None:
    """One message names all that is missing."""
    broken = replace(toy, config={**toy.config, "image_preprocess": {}, "text": {"pad_id": 0}})

    with pytest.raises(ConfigurationError) as error:
        recipe_from_checkpoint(broken)

    assert "toy/config.json lacks image_preprocess.image_size, " in str(error.value)
    assert "text.max_tokens" in str(error.value)
    assert "text.pad_id" not in str(error.value)


def test_checkpoint_overrides_tolerances(toy: Checkpoint, recipe: Recipe) -> None:
    """A model that needs more room says so in its config, and only there."""
    wider = replace(toy, config={**toy.config, "parity": {"score": 0.01}})

    tolerance = recipe_from_checkpoint(wider).tolerance

    assert tolerance == replace(recipe.tolerance, score=0.01)


def test_unknown_tolerance_is_refused(toy: Checkpoint) -> None:
    """A misspelt tolerance does not silently leave the default in force."""
    misspelt = replace(toy, config={**toy.config, "parity": {"scores": 0.01}})

    with pytest.raises(ConfigurationError, match=r"parity\.scores .* cosine, embedding"):
        recipe_from_checkpoint(misspelt)
