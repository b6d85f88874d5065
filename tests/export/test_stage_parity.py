"""Graphs against their modules."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from sensorium_export.bundle import ExportedBundle
from sensorium_export.checkpoint import Checkpoint
from sensorium_export.graphs import GRAPHS, graphs_of
from sensorium_export.recipe import Recipe
from sensorium_export.runners import run_module, run_onnx, session_from_onnx
from sensorium_export.seeded_inputs import cases, example
from sensorium_export.stage_parity import graph_parity

TEXT_ENCODER = next(graph for graph in GRAPHS if graph.name == "text_encoder")


@pytest.mark.parametrize("name", [graph.name for graph in GRAPHS])
def test_every_graph_agrees_with_pytorch(
    name: str, toy: Checkpoint, recipe: Recipe, repository: Path
) -> None:
    """All shapes, ragged batches and rows alone give PyTorch's outputs."""
    graph = next(one for one in graphs_of(recipe) if one.name == name)
    parity = graph_parity(
        graph, toy.model, session_from_onnx(repository / graph.path), recipe, seed=7
    )

    assert parity.failures == ()
    assert {one.case for one in parity.found} >= {"smallest", "largest", "ragged", "ragged[0]"}


def test_changed_weight_is_found_and_named(
    toy: Checkpoint, recipe: Recipe, repository: Path
) -> None:
    """One wrong weight is enough, and the report says where it shows."""
    model = onnx.load(repository / TEXT_ENCODER.path)
    weight = next(one for one in model.graph.initializer if one.name.endswith("embed.weight"))
    broken = numpy_helper.to_array(weight).copy()
    broken[:, 0] += 0.01
    weight.CopyFrom(numpy_helper.from_array(broken, weight.name))

    parity = graph_parity(
        TEXT_ENCODER, toy.model, session_from_onnx(model.SerializeToString()), recipe
    )

    assert "text_encoder, case smallest, output text_tokens: max |Δ|" in str(parity.failures[0])
    assert not parity.worst.is_within


class DeafSession:
    """A session that attends to padding as if it were text."""

    def __init__(self, path: Path) -> None:
        self.session = session_from_onnx(path)

    def get_outputs(self) -> Any:  # noqa: ANN401 - as untyped as the session
        """Return the graph's outputs."""
        return self.session.get_outputs()

    def run(self, names: list[str], inputs: dict[str, Any]) -> Any:  # noqa: ANN401
        """Run with a full mask."""
        full = {**inputs, "attention_mask": np.ones_like(inputs["attention_mask"])}
        return self.session.run(names, full)


def test_padding_that_matters_is_found(toy: Checkpoint, recipe: Recipe, repository: Path) -> None:
    """A graph that looks at padding disagrees with the same row alone."""
    session = DeafSession(repository / TEXT_ENCODER.path)

    parity = graph_parity(TEXT_ENCODER, toy.model, session, recipe)

    failed = {failure.case for failure in parity.failures}
    assert failed >= {"ragged", "ragged[4]"}
    assert "largest" not in failed


def test_runners_name_every_output(
    toy: Checkpoint, recipe: Recipe, exported: ExportedBundle
) -> None:
    """PyTorch's and ONNX Runtime's outputs carry the contract's names."""
    case = example(TEXT_ENCODER.signature, recipe.sizes)
    session = session_from_onnx((exported.repository / TEXT_ENCODER.path).read_bytes())

    by_onnx = run_onnx(session, case.inputs)
    by_module = run_module(
        TEXT_ENCODER.module_in(toy.model), "forward", TEXT_ENCODER.signature, case.inputs
    )

    assert list(by_onnx) == list(by_module) == ["text_tokens", "text_embedding"]


def test_embeddings_have_length_one(toy: Checkpoint, recipe: Recipe) -> None:
    """What both agree on is a direction."""
    for case in cases(TEXT_ENCODER.signature, recipe.sizes, recipe.largest):
        outputs = run_module(toy.model.text_encoder, "forward", TEXT_ENCODER.signature, case.inputs)
        norms = torch.from_numpy(outputs["text_embedding"]).norm(dim=-1)

        assert torch.allclose(norms, torch.ones_like(norms), atol=1e-5)
