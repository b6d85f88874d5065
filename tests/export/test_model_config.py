"""Triton's config of every model."""

from itertools import pairwise

import pytest

from sensorium_export.ensemble_check import types_of
from sensorium_export.ensembles import ENSEMBLES, stages_of
from sensorium_export.model_config import model_configs
from sensorium_export.recipe import MAX_BATCH_SIZE, Recipe, required

NATIVE = stages_of(ENSEMBLES.values())


def test_every_stage_and_task_has_a_config(recipe: Recipe) -> None:
    """The repository offers what the contract promises, and nothing else."""
    configs = model_configs(recipe)

    assert sorted(configs) == sorted((*NATIVE, *ENSEMBLES))
    assert all(config.name == name for name, config in configs.items())
    assert all(config.max_batch_size == MAX_BATCH_SIZE for config in configs.values())


def test_types_come_from_contract_and_checkpoint(recipe: Recipe) -> None:
    """Sizes are the checkpoint's, dynamic axes are -1."""
    configs = model_configs(recipe)

    assert types_of(configs["image_preprocess"].output) == {
        "pixel_values": ("TYPE_FP32", (3, 32, 32)),
        "image_present": ("TYPE_INT64", (1,)),
    }
    assert types_of(configs["text_encoder"].output) == {
        "text_tokens": ("TYPE_FP32", (-1, 32)),
        "text_embedding": ("TYPE_FP32", (16,)),
    }
    assert types_of(configs["text_embedding"].input) == {"text": ("TYPE_STRING", (1,))}


RAGGED = (
    *("text_encoder", "audio_encoder", "fusion", "text_decoder", "image_decoder"),
    *("tag_postprocess", "event_postprocess"),
)


@pytest.mark.parametrize("name", RAGGED)
def test_unequal_lengths_may_meet_in_a_batch(name: str, recipe: Recipe) -> None:
    """Every dynamic input of a stage is ragged, or Triton would batch equal lengths only."""
    config = model_configs(recipe)[name]

    assert all(one.allow_ragged_batch == (-1 in one.dims) for one in config.input)
    assert any(one.allow_ragged_batch for one in config.input)


def test_buckets_end_at_the_longest_text(recipe: Recipe) -> None:
    """No text that is let in is longer than the largest bucket."""
    config = model_configs(recipe)["text_encoder"]

    buckets = [int(one) for one in config.parameters["buckets.sequence"].string_value.split(",")]

    assert buckets == [8, required(recipe.text).max_tokens]


def test_media_are_padded_to_the_counts_that_exist(recipe: Recipe) -> None:
    """Questions about pictures, sounds, both and clips with sound have so many tokens."""
    config = model_configs(recipe)["fusion"]

    image, audio, video = (recipe.sizes[f"{kind}_tokens"] for kind in ("image", "audio", "video"))
    lengths = sorted({image, audio, image + audio, video + audio})
    assert config.parameters["buckets.media"].string_value == ",".join(map(str, lengths))


def test_sounds_are_padded_by_a_third_at_most(recipe: Recipe) -> None:
    """Sounds of unequal length share a run without much waste."""
    parameters = model_configs(recipe)["audio_encoder"].parameters
    buckets = [int(one) for one in parameters["buckets.mel_frames"].string_value.split(",")]

    assert buckets[-1] >= 60 / 0.032
    assert all(longer <= shorter * 1.5 for shorter, longer in pairwise(buckets))


def test_frames_of_clips_are_treated_as_pictures_are(recipe: Recipe) -> None:
    """A clip's frames are resized and normalised as the image encoder's pictures."""
    configs = model_configs(recipe)
    image, video = (configs[f"{kind}_preprocess"].parameters for kind in ("image", "video"))

    for key in ("image_size", "resample", "mean", "std"):
        assert video[key].string_value == image[key].string_value
    assert video["frames"].string_value == str(recipe.sizes["frames"])
    assert "crop" not in video
    assert "fps" not in video


def test_labels_are_the_checkpoints(recipe: Recipe) -> None:
    """What is heard and seen is named as in training, and events are timed by the recipe's hop."""
    events = model_configs(recipe)["event_postprocess"].parameters

    assert events["audio_labels"].string_value == ",".join(recipe.audio_labels)
    assert events["video_labels"].string_value == ",".join(recipe.video_labels)
    assert events["hop_s"].string_value == "0.032"


def test_preprocessing_is_the_checkpoints(recipe: Recipe) -> None:
    """Filter, crop and normalisation are those of the training run."""
    parameters = model_configs(recipe)["image_preprocess"].parameters

    assert {key: value.string_value for key, value in parameters.items()} == {
        "image_size": "32",
        "resample": "bicubic",
        "crop": "squash",
        "mean": "0.5,0.5,0.5",
        "std": "0.5,0.5,0.5",
    }


def test_every_task_has_steps(recipe: Recipe) -> None:
    """An ensemble is wired for each task, through stages that exist."""
    for name in ENSEMBLES:
        steps = model_configs(recipe)[name].ensemble_scheduling.step
        assert {step.model_name for step in steps} <= set(NATIVE)
