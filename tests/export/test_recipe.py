"""What a checkpoint says about serving it."""

from dataclasses import replace
from pathlib import Path

import pytest

from sensorium.contract import DIFFUSION_GRAPHS, DYNAMIC_AXES, EVENTS, SAMPLES, SPEECH_FRAMES
from sensorium.errors import ConfigurationError
from sensorium_export.checkpoint import Checkpoint
from sensorium_export.ensembles import ENSEMBLES, stages_of
from sensorium_export.recipe import Recipe, recipe_from_checkpoint
from sensorium_export.testing import toy_checkpoint


def test_every_axis_of_the_contract_has_a_number(recipe: Recipe) -> None:
    """Fixed axes have a size, dynamic ones a greatest length."""
    axes = {
        axis
        for signature in (*map(recipe.signature, recipe.stages), *DIFFUSION_GRAPHS.values())
        for spec in (*signature.inputs, *signature.outputs)
        for axis in spec.shape
        if isinstance(axis, str)
    }

    assert axes - DYNAMIC_AXES <= recipe.sizes.keys()
    assert recipe.largest.keys() == DYNAMIC_AXES - {EVENTS, SAMPLES, SPEECH_FRAMES}


def test_missing_keys_are_listed_together(toy: Checkpoint) -> None:
    """One message names all that is missing."""
    incomplete = {"image_preprocess": {}, "text": {"pad_id": 0}, "audio_labels": []}
    broken = replace(toy, config={**toy.config, **incomplete})

    with pytest.raises(ConfigurationError) as error:
        recipe_from_checkpoint(broken)

    assert "toy/config.json lacks image_preprocess.image_size, " in str(error.value)
    assert "text.max_tokens" in str(error.value)
    assert "text.pad_id" not in str(error.value)
    assert "audio_labels" in str(error.value)
    assert "video_preprocess.sampling" not in str(error.value)


def test_all_parts_allow_all_tasks(recipe: Recipe) -> None:
    """A checkpoint with every part offers all that its format can."""
    assert recipe.tasks == tuple(ENSEMBLES)
    assert recipe.stages == stages_of(ENSEMBLES.values())


def test_parts_that_are_absent_are_not_asked_for(tmp_path: Path) -> None:
    """A checkpoint of text and images needs no recipe for sound and video."""
    plain = toy_checkpoint(tmp_path / "plain", modalities=())
    for section in ("audio_preprocess", "audio_labels", "video_preprocess", "video_labels"):
        del plain.config[section]

    recipe = recipe_from_checkpoint(plain)

    assert recipe.audio is None
    assert recipe.video is None
    assert recipe.audio_labels == recipe.video_labels == ()
    assert set(recipe.tasks) == {
        *("visual_question_answering", "image_captioning", "text_embedding", "image_embedding")
    }


def test_checkpoint_overrides_when_an_event_is_one(toy: Checkpoint, recipe: Recipe) -> None:
    """Thresholds and filters are the checkpoint's, where it has any."""
    bolder = replace(toy, config={**toy.config, "events": {"sound_threshold": 0.3}})

    assert recipe_from_checkpoint(bolder).events == replace(recipe.events, sound_threshold=0.3)


def test_checkpoint_overrides_tolerances(toy: Checkpoint, recipe: Recipe) -> None:
    """A model that needs more room says so in its config, and only there."""
    parity = {**toy.config["parity"], "score": 0.01}
    wider = replace(toy, config={**toy.config, "parity": parity})

    tolerance = recipe_from_checkpoint(wider).tolerance

    assert tolerance == replace(recipe.tolerance, score=0.01)


def test_unknown_tolerance_is_refused(toy: Checkpoint) -> None:
    """A misspelt tolerance does not silently leave the default in force."""
    misspelt = replace(toy, config={**toy.config, "parity": {"scores": 0.01}})

    with pytest.raises(ConfigurationError, match=r"parity\.scores .* cosine, embedding"):
        recipe_from_checkpoint(misspelt)
