"""Triton's config of every model."""

import pytest

from sensorium.contract import STAGES, TASKS
from sensorium_export.ensemble_check import types_of
from sensorium_export.model_config import ENSEMBLES, model_configs
from sensorium_export.recipe import MAX_BATCH_SIZE, Recipe


def test_every_stage_and_task_has_a_config(recipe: Recipe) -> None:
    """The repository offers what the contract promises, and nothing else."""
    configs = model_configs(recipe)

    assert sorted(configs) == sorted((*STAGES, *TASKS))
    assert all(config.name == name for name, config in configs.items())
    assert all(config.max_batch_size == MAX_BATCH_SIZE for config in configs.values())


def test_types_come_from_contract_and_checkpoint(recipe: Recipe) -> None:
    """Sizes are the checkpoint's, dynamic axes are -1."""
    configs = model_configs(recipe)

    assert types_of(configs["image_preprocess"].output) == {
        "pixel_values": ("TYPE_FP32", (3, 32, 32))
    }
    assert types_of(configs["text_encoder"].output) == {
        "text_tokens": ("TYPE_FP32", (-1, 32)),
        "text_embedding": ("TYPE_FP32", (16,)),
    }
    assert types_of(configs["text_embedding"].input) == {"text": ("TYPE_STRING", (1,))}


@pytest.mark.parametrize("name", ["text_encoder", "fusion", "text_decoder"])
def test_unequal_lengths_may_meet_in_a_batch(name: str, recipe: Recipe) -> None:
    """Every dynamic input of a graph is ragged, or Triton would batch equal lengths only."""
    config = model_configs(recipe)[name]

    assert all(one.allow_ragged_batch == (-1 in one.dims) for one in config.input)
    assert any(one.allow_ragged_batch for one in config.input)


def test_buckets_end_at_the_longest_text(recipe: Recipe) -> None:
    """No text that is let in is longer than the largest bucket."""
    config = model_configs(recipe)["text_encoder"]

    buckets = [int(one) for one in config.parameters["buckets.sequence"].string_value.split(",")]

    assert buckets == [8, recipe.text.max_tokens]


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
    assert ENSEMBLES.keys() == TASKS.keys()
    for name in TASKS:
        steps = model_configs(recipe)[name].ensemble_scheduling.step
        assert {step.model_name for step in steps} <= STAGES.keys()
