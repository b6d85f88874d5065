"""Whether an ONNX graph computes what its PyTorch module computes, on every shape it may meet.

Two questions are asked of each graph. Does it agree with PyTorch on seeded inputs, the smallest and
the largest shapes included? And does a row give the same answer alone as in a ragged batch, where
padding and its neighbours must not matter?
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import onnxruntime
from torch import nn

from sensorium.contract import BATCH, SPEECH_FRAMES, Signature
from sensorium_export import seeded_inputs
from sensorium_export.compare import Difference, compare, difference, worst
from sensorium_export.graphs import Graph
from sensorium_export.recipe import Recipe
from sensorium_export.runners import run_module, run_onnx
from sensorium_export.seeded_inputs import Array, Case

DRAWN_ROWS = 2
"""The most that the server gives a decoder of latents at once: with and without the text."""


@dataclass(frozen=True, slots=True)
class CaseDifference:
    """The difference of one output in one seeded case."""

    graph: str
    case: str
    difference: Difference

    @property
    def is_within(self) -> bool:
        """Whether the outputs count as equal."""
        return self.difference.is_within

    def __str__(self) -> str:
        return f"{self.graph}, case {self.case}, output {self.difference}"


@dataclass(frozen=True, slots=True)
class GraphParity:
    """All differences found for one graph."""

    graph: str
    found: tuple[CaseDifference, ...]

    @property
    def failures(self) -> tuple[CaseDifference, ...]:
        """The differences over tolerance."""
        return tuple(one for one in self.found if not one.is_within)

    @property
    def worst(self) -> Difference:
        """The largest difference."""
        return worst(tuple(one.difference for one in self.found))


def graph_parity(
    graph: Graph,
    model: nn.Module,
    session: onnxruntime.InferenceSession,
    recipe: Recipe,
    seed: int = 0,
) -> GraphParity:
    """Compare one graph with its module on seeded inputs."""
    module = graph.module_in(model)
    tolerance = recipe.tolerance.stage
    largest = dict(recipe.largest)
    if graph.module == "image_decoder" and recipe.diffusion is not None:
        largest[BATCH] = DRAWN_ROWS
    found = []
    for case in seeded_inputs.cases(graph.signature, recipe.sizes, largest, seed):
        expected = run_module(module, graph.method, graph.signature, case.inputs)
        actual = run_onnx(session, case.inputs)
        judged = compare(expected, actual, tolerance)
        found += [CaseDifference(graph.name, case.name, one) for one in judged]
        if case.name == "ragged":
            alone = _rows_alone(graph.signature, session, case, actual, tolerance)
            found += [CaseDifference(graph.name, name, one) for name, one in alone]
    return GraphParity(graph.name, tuple(found))


def _rows_alone(
    signature: Signature,
    session: onnxruntime.InferenceSession,
    batch: Case,
    together: Mapping[str, Array],
    tolerance: float,
) -> Iterator[tuple[str, Difference]]:
    """Compare each row of a ragged batch with the same row alone and unpadded."""
    for row in range(batch.batch):
        case = seeded_inputs.row_alone(signature, batch, row)
        alone = run_onnx(session, case.inputs)
        for spec in signature.outputs:
            valid = seeded_inputs.cut(together[spec.name][row : row + 1], spec, batch.cuttable, row)
            if SPEECH_FRAMES in spec.shape:  # they follow from the samples, which were cut
                valid = valid[:, : alone[spec.name].shape[1]]
            yield case.name, difference(spec.name, valid, alone[spec.name], tolerance)
