"""Optimization profiles: for which shapes an engine is built, from a recipe and the tasks' limits.

An axis has one number in each corner, for all tensors that have it, so that the least, the usual
and the greatest shapes fit together. Texts, and what is generated token by token, have a profile of
their own for short ones: an engine's kernels are chosen for the usual shape of its profile. Sounds
that are longer than those that were proven in full batches have one with smaller batches.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from sensorium.contract import (
    BATCH,
    DYNAMIC_AXES,
    MEL_FRAMES,
    PAST,
    SAMPLES,
    SEQUENCE,
    Signature,
    TensorSpec,
)
from sensorium_export.engines import GraphFile
from sensorium_export.graphs import Graph
from sensorium_export.recipe import Recipe
from sensorium_export.seeded_inputs import LEAST, Case, case
from sensorium_export.stage_parity import DRAWN_ROWS
from sensorium_server.engine_record import Ranges

CORNERS = ("least", "usual", "greatest")
_USUAL_BATCH = 8
_SHORT_PART = 4
_SHORTEST_SPLIT = 32
"""The least greatest number of an axis that is worth a profile of its own for short ones."""

_SPLIT = (SEQUENCE, PAST)


@dataclass(frozen=True, slots=True)
class Limits:
    """What the server lets in: the longest sound, seconds."""

    max_audio_s: float = 60


def profiles_for(graph: Graph, recipe: Recipe, limits: Limits) -> tuple[Ranges, ...]:
    """Return the profiles of a graph, those of the smallest shapes first.

    Where several profiles hold a shape, the first one is the best.
    """
    signature = graph.signature
    largest = {axis: recipe.largest[axis] for axis in _dynamic_axes(signature, recipe)}
    if graph.module == "image_decoder" and recipe.diffusion is not None:
        largest[BATCH] = DRAWN_ROWS
    usual = {axis: _range(axis, most) for axis, most in largest.items()}
    profiles = []
    split = [axis for axis in _SPLIT if largest.get(axis, 0) >= _SHORTEST_SPLIT]
    if split:
        short = {axis: _range(axis, largest[axis] // _SHORT_PART) for axis in split}
        profiles.append(usual | short)
    profiles.append(usual)
    if longer := _longer(largest, recipe, limits):
        profiles.append(usual | longer)
    return tuple(profiles)


def shape_in(graph: GraphFile, spec: TensorSpec, ranges: Ranges, corner: int) -> tuple[int, ...]:
    """Return the shape of an input in a corner of a profile (0, 1 or 2), batch included."""
    axes = {axis: numbers[corner] for axis, numbers in ranges.items()} | dict(graph.sizes)
    return tuple(axis if isinstance(axis, int) else axes[axis] for axis in (BATCH, *spec.shape))


def corner_cases(
    signature: Signature, recipe: Recipe, profiles: tuple[Ranges, ...]
) -> tuple[Case, ...]:
    """Draw inputs in every corner of every profile, and ragged ones in the usual shapes."""
    cases: dict[object, Case] = {}
    for number, ranges in enumerate(profiles):
        for index, corner in enumerate(CORNERS):
            axes = {axis: numbers[index] for axis, numbers in ranges.items()}
            name = f"profile {number} {corner}"
            # Neighbouring profiles may share a corner.
            cases.setdefault(
                tuple(sorted(axes.items())),
                case(name, signature, {**axes, **recipe.sizes}, seed=number),
            )
        usual = {axis: numbers[1] for axis, numbers in ranges.items()}
        cases[number,] = case(
            f"profile {number} ragged", signature, {**usual, **recipe.sizes}, number, ragged=True
        )
    return tuple(cases.values())


def profile_of(shapes: Mapping[str, int], profiles: tuple[Ranges, ...]) -> int | None:
    """Return the first profile that holds the numbers of the axes; None if none does."""
    for number, ranges in enumerate(profiles):
        if all(low <= shapes[axis] <= high for axis, (low, _, high) in ranges.items()):
            return number
    return None


def _dynamic_axes(signature: Signature, recipe: Recipe) -> list[str]:
    axes = {str(axis) for spec in signature.inputs for axis in (BATCH, *spec.shape)}
    return sorted(axis for axis in axes & DYNAMIC_AXES if axis not in recipe.sizes)


def _range(axis: str, most: int) -> tuple[int, int, int]:
    least = min(LEAST.get(axis, 1), most)
    usual = _USUAL_BATCH if axis == BATCH else most // 2
    return least, max(least, min(usual, most)), most


def _longer(
    largest: Mapping[str, int], recipe: Recipe, limits: Limits
) -> dict[str, tuple[int, int, int]]:
    """Return the ranges for sounds longer than those that are proven in full batches."""
    longer: dict[str, tuple[int, int, int]] = {}
    if MEL_FRAMES in largest and recipe.audio is not None:
        most = int(limits.max_audio_s / recipe.audio.hop_s) + 1
        longer[MEL_FRAMES] = (1, largest[MEL_FRAMES], most)
    if SAMPLES in largest and recipe.waveform is not None:
        most = int(limits.max_audio_s * recipe.waveform.sample_rate)
        longer[SAMPLES] = (LEAST[SAMPLES], largest[SAMPLES], most)
    longer = {axis: one for axis, one in longer.items() if one[2] > largest[axis]}
    if longer:
        times = max(-(-one[2] // largest[axis]) for axis, one in longer.items())
        longer[BATCH] = (1, 1, max(1, largest[BATCH] // times))
    return longer
