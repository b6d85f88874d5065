"""Configs as text."""

import dataclasses

import pytest
from tritonclient.grpc.model_config_pb2 import ModelConfig

from sensorium.errors import ConfigurationError
from sensorium_export.ensembles import ENSEMBLES, stages_of
from sensorium_export.model_config import config_from_pbtxt, model_configs
from sensorium_export.pbtxt import ABOUT, pbtxt_from_config
from sensorium_export.recipe import GenerationRecipe, Recipe, required

NATIVE = stages_of(ENSEMBLES.values())


@pytest.mark.parametrize("name", [*NATIVE, *ENSEMBLES])
def test_text_reads_back_as_the_same_config(name: str, recipe: Recipe) -> None:
    """Nothing is lost or changed on the way through text."""
    config = model_configs(recipe)[name]

    assert config_from_pbtxt(pbtxt_from_config(config), name) == config


@pytest.mark.parametrize("name", [*NATIVE, *ENSEMBLES])
def test_text_is_the_same_each_time(name: str, recipe: Recipe) -> None:
    """Files in git do not change without a reason."""
    one, other = (pbtxt_from_config(model_configs(recipe)[name]) for _ in range(2))

    assert one == other


def test_every_model_and_parameter_is_explained(recipe: Recipe) -> None:
    """Whoever opens the file reads what it is for."""
    every = GenerationRecipe((1, 2), (3, 4), 1, (5,), (6,), 2, 3, 4, 5, "never", True, 6, 7, 0.8, 9)
    text = dataclasses.replace(required(recipe.text), generation=every)
    recipe = dataclasses.replace(recipe, text=text)
    for name, config in model_configs(recipe).items():
        lines = pbtxt_from_config(config).splitlines()

        assert lines[0] == f"# {ABOUT[name]}"
        for number, line in enumerate(lines):
            if line.startswith("parameters"):
                assert lines[number - 1].startswith("# ")


def test_text_is_easy_on_the_eye(recipe: Recipe) -> None:
    """Shapes and maps stand on one line each, and no line is too long."""
    texts = [pbtxt_from_config(config) for config in model_configs(recipe).values()]

    assert all(len(line) <= 100 for text in texts for line in text.splitlines())
    assert any("dims: [3, 32, 32]" in text for text in texts)
    assert any('{ key: "text" value: "question" }' in text for text in texts)


def test_unreadable_text_is_located() -> None:
    """A typing error is found by file, line and column."""
    with pytest.raises(ConfigurationError, match=r"fusion/config\.pbtxt:1:1"):
        config_from_pbtxt('nime: "fusion"', "fusion/config.pbtxt")


def test_field_without_a_place_is_our_mistake() -> None:
    """A field that the writer forgot does not get lost silently."""
    config = ModelConfig(name="fusion", metric_tags={"team": "vision"})

    with pytest.raises(AssertionError, match="metric_tags"):
        pbtxt_from_config(config)
