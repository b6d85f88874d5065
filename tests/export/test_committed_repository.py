"""The repository that travels with the source is what the exporter makes of the checkpoint.

Serving needs no PyTorch because these files are in git; here is the proof that they are no others.
Configs and scripts must be equal to the letter. A graph's bytes depend on the exporter's version
and, in folded constants, on the processor; so graphs must take and give the same and compute the
same outputs, and with the same versions have the same operators and weights too.
"""

import json
import re
from importlib.metadata import version
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from sensorium_export.bundle import export_bundle
from sensorium_export.checkpoint import load
from sensorium_export.compare import compare
from sensorium_export.graphs import GRAPHS, Graph
from sensorium_export.onnx_graph import shape_of
from sensorium_export.recipe import recipe_from_checkpoint
from sensorium_export.repository_check import repository_problems
from sensorium_export.runners import run_onnx, session_from_onnx
from sensorium_export.seeded_inputs import cases
from sensorium_server.gate import check_verified
from sensorium_server.manifest import check, digest

ROOT = Path(__file__).parents[2]
CHECKPOINT = ROOT / "checkpoints/playroom"
COMMITTED = ROOT / "model_repository"
MANIFEST = "playroom.manifest.json"
CARD = "playroom.card.json"
SAME_GRAPH = ("torch", "onnx", "onnxscript")
TOLERANCE = 1e-5
PRESENT = [graph for graph in GRAPHS if (COMMITTED / graph.path).is_file()]

Interface = list[tuple[str, int, tuple[int | str, ...]]]


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint, exported anew."""
    return export_bundle(CHECKPOINT, tmp_path_factory.mktemp("fresh") / "repository").repository


def files_of(repository: Path) -> set[str]:
    """Return a bundle's files, as paths in the repository."""
    return {
        path.relative_to(repository).as_posix()
        for path in repository.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def interface_of(model: onnx.ModelProto) -> Interface:
    """Return names, dtypes and shapes of what a graph takes and gives."""
    return [
        (value.name, value.type.tensor_type.elem_type, shape_of(value))
        for value in (*model.graph.input, *model.graph.output)
    ]


def test_same_files_and_the_same_text(fresh: Path) -> None:
    """Every config, script and tokenizer is what the exporter writes; the card is `verify`'s."""
    assert files_of(COMMITTED) == files_of(fresh) | {CARD}
    for name in sorted(files_of(fresh)):
        if not name.endswith((".onnx", MANIFEST)):
            assert (COMMITTED / name).read_text() == (fresh / name).read_text(), name


def test_committed_bundle_is_proven() -> None:
    """Its card is of these very files, so that it is served at once."""
    check_verified(COMMITTED)


def test_manifest_belongs_to_this_checkpoint() -> None:
    """The committed graphs were made of the committed weights, and nobody touched them."""
    written = json.loads((COMMITTED / MANIFEST).read_text())

    assert check(COMMITTED) == ["playroom"]
    files = ("config.json", "model.safetensors", "tokenizer.json")
    assert written["created_from"] == {name: digest(CHECKPOINT / name) for name in files}
    assert all(one["max_rel"] <= one["tolerance"] for one in written["parity"].values())


def test_repository_keeps_to_the_contract() -> None:
    """Configs, shapes, ensembles and files are sound."""
    recipe = recipe_from_checkpoint(load(CHECKPOINT))

    assert repository_problems(COMMITTED, recipe) == []


@pytest.mark.parametrize("graph", PRESENT, ids=lambda graph: graph.name)
def test_graph_computes_the_same(graph: Graph, fresh: Path) -> None:
    """A graph exported anew takes, gives and computes what the committed one does."""
    recipe = recipe_from_checkpoint(load(CHECKPOINT))
    committed, exported = (session_from_onnx(one / graph.path) for one in (COMMITTED, fresh))

    assert interface_of(onnx.load(COMMITTED / graph.path)) == interface_of(
        onnx.load(fresh / graph.path)
    )
    for case in cases(graph.signature, recipe.sizes, recipe.largest):
        expected, actual = (run_onnx(one, case.inputs) for one in (exported, committed))
        assert [str(one) for one in compare(expected, actual, TOLERANCE) if not one.is_within] == []


@pytest.mark.parametrize("graph", PRESENT, ids=lambda graph: graph.name)
def test_graph_is_the_same_where_versions_are(graph: Graph, fresh: Path) -> None:
    """With the exporter's versions, operators and weights are the same as well."""
    written = json.loads((COMMITTED / MANIFEST).read_text())["versions"]
    if any(written[one].split("+")[0] != version(one).split("+")[0] for one in SAME_GRAPH):
        pytest.skip(f"other versions of {', '.join(SAME_GRAPH)} than those of the manifest")
    committed, exported = (onnx.load(one / graph.path).graph for one in (COMMITTED, fresh))

    assert [node.op_type for node in committed.node] == [node.op_type for node in exported.node]
    for one, other in zip(committed.initializer, exported.initializer, strict=True):
        assert one.name == other.name
        weights, again = numpy_helper.to_array(one), numpy_helper.to_array(other)
        assert weights.shape == again.shape
        assert np.allclose(weights, again, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("graph", PRESENT, ids=lambda graph: graph.name)
def test_graph_holds_no_path(graph: Graph) -> None:
    """Nothing in a committed graph tells on which machine it was made."""
    model = onnx.load(COMMITTED / graph.path)
    for weight in model.graph.initializer:
        weight.ClearField("raw_data")

    assert not re.search(rb"\.py\b|/\w+/\w+", model.SerializeToString())
