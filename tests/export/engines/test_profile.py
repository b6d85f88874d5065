"""Optimization profiles: which shapes an engine is built for."""

from dataclasses import replace

import numpy as np
import pytest

from sensorium.contract import BATCH, DYNAMIC_AXES
from sensorium_export.engines import GraphFile
from sensorium_export.engines.profile import (
    Limits,
    corner_cases,
    profile_of,
    profiles_for,
    shape_in,
)
from sensorium_export.graphs import GRAPHS, Graph, graphs_of
from sensorium_export.recipe import DiffusionRecipe, Recipe

NAMES = [graph.name for graph in GRAPHS]
SHORT = Limits(max_audio_s=5)


@pytest.fixture
def long_recipe(recipe: Recipe) -> Recipe:
    """The toy's recipe with texts that are as long as real ones."""
    return replace(recipe, largest={**recipe.largest, "sequence": 64, "past": 63})


def named(name: str, recipe: Recipe) -> Graph:
    """A graph of the recipe."""
    return next(graph for graph in graphs_of(recipe) if graph.name == name)


@pytest.mark.parametrize("name", NAMES)
def test_corners_are_in_order(name: str, recipe: Recipe) -> None:
    """Every dynamic axis of a graph, and no other, goes from the least over the usual to most."""
    graph = named(name, recipe)
    dynamic = {
        axis
        for spec in graph.signature.inputs
        for axis in (BATCH, *spec.shape)
        if axis in DYNAMIC_AXES and axis not in recipe.sizes
    }

    for profile in profiles_for(graph, recipe, Limits()):
        assert profile.keys() == dynamic
        for least, usual, greatest in profile.values():
            assert least <= usual <= greatest


@pytest.mark.parametrize("name", NAMES)
def test_shapes_of_a_corner_fit_together(name: str, recipe: Recipe) -> None:
    """All inputs of a corner have one number for an axis, and the seeded inputs are of it."""
    graph = named(name, recipe)
    profiles = profiles_for(graph, recipe, SHORT)
    file = GraphFile(graph.name, graph.signature, {}, recipe.sizes)

    cases = {case.name: case for case in corner_cases(graph.signature, recipe, profiles)}

    for corner, word in enumerate(("least", "usual", "greatest")):
        case = cases[f"profile 0 {word}"]
        for spec in graph.signature.inputs:
            shape = shape_in(file, spec, profiles[0], corner)
            assert case.inputs[spec.name].shape == shape
    assert "profile 0 ragged" in cases


def test_short_texts_have_their_own_profile(long_recipe: Recipe) -> None:
    """Kernels are chosen for the usual shape, which is not one for short and for long texts."""
    short, long = profiles_for(named("text_encoder", long_recipe), long_recipe, Limits())

    assert short["sequence"] == (1, 8, 16)
    assert long["sequence"] == (1, 32, 64)


def test_generation_begins_with_an_empty_past(long_recipe: Recipe) -> None:
    """The first token has no past, the next ones have a short one."""
    short, long = profiles_for(named("text_decoder/step", long_recipe), long_recipe, Limits())

    assert short["past"] == (0, 7, 15)
    assert long["past"] == (0, 31, 63)


def test_longest_sound_that_the_server_lets_in_has_a_profile(recipe: Recipe) -> None:
    """It is longer than what is proven in full batches; its batches are as much smaller."""
    graph = named("audio_encoder", recipe)
    assert recipe.audio is not None
    frames = recipe.largest["mel_frames"]

    full, long = profiles_for(graph, recipe, Limits(max_audio_s=4 * frames * recipe.audio.hop_s))

    assert full["mel_frames"] == (1, frames // 2, frames)
    assert long["mel_frames"] == (1, frames, 4 * frames + 1)
    assert long["batch"] == (1, 1, recipe.largest["batch"] // 5)
    assert profiles_for(graph, recipe, SHORT) == (full,)


def test_latents_are_drawn_by_two(recipe: Recipe) -> None:
    """A decoder of latents gets no more than two rows at once from the server."""
    latent = DiffusionRecipe("ddim", 10, "linear", 0.1, 0.2, "epsilon", "leading", 0, 5)
    drawing = replace(recipe, diffusion=latent)

    [profile] = profiles_for(named("image_decoder/denoise", recipe), drawing, Limits())

    assert profile["batch"] == (1, 2, 2)


def test_first_profile_that_holds_the_shapes_is_taken(long_recipe: Recipe) -> None:
    """Short texts go to the short profile, long ones to the other, too long ones to none."""
    profiles = profiles_for(named("text_encoder", long_recipe), long_recipe, Limits())

    assert profile_of({"batch": 3, "sequence": 16}, profiles) == 0
    assert profile_of({"batch": 3, "sequence": 17}, profiles) == 1
    assert profile_of({"batch": 3, "sequence": 65}, profiles) is None
    assert profile_of({"batch": 65, "sequence": 1}, profiles) is None


def test_ragged_rows_are_among_the_cases(long_recipe: Recipe) -> None:
    """Each profile is also judged where the rows of a batch have different lengths."""
    graph = named("text_encoder", long_recipe)
    profiles = profiles_for(graph, long_recipe, Limits())

    cases = {case.name: case for case in corner_cases(graph.signature, long_recipe, profiles)}

    for number in range(2):
        mask = cases[f"profile {number} ragged"].inputs["attention_mask"]
        assert len(np.unique(mask.sum(axis=1))) > 1
