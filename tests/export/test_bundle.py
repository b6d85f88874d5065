"""A checkpoint's whole way into a repository."""

import json
import re
from pathlib import Path

import onnx
import pytest

from sensorium.errors import ConfigurationError
from sensorium_export import bundle
from sensorium_export.bundle import ExportedBundle, export_bundle
from sensorium_export.checkpoint import Checkpoint
from sensorium_export.compare import Difference
from sensorium_export.graphs import GRAPHS
from sensorium_export.stage_parity import CaseDifference, GraphParity
from sensorium_server import manifest


def test_manifest_says_what_the_bundle_is_made_of(
    exported: ExportedBundle, repository: Path
) -> None:
    """Digests, opset, versions and the parity that was measured lie beside the models."""
    written = json.loads((repository / "toy.manifest.json").read_text())

    assert written["bundle"] == "toy"
    assert written["opset"] == 20
    assert written["created_from"].keys() == {"config.json", "model.safetensors", "tokenizer.json"}
    assert written["versions"].keys() >= {"torch", "onnx", "onnxruntime"}
    assert written["files"].keys() >= {graph.path for graph in GRAPHS}
    assert written["parity"].keys() == {graph.name for graph in GRAPHS}
    assert all(one["max_rel"] <= one["tolerance"] for one in written["parity"].values())
    assert written == json.loads(exported.manifest.to_json())


def test_server_accepts_the_manifest(repository: Path) -> None:
    """The server's own check reads what the exporter writes."""
    assert manifest.check(repository) == ["toy"]


def test_no_path_of_this_machine_is_published(repository: Path) -> None:
    """No file of a bundle tells where it was made."""
    for path in repository.rglob("*"):
        if path.is_file() and path.suffix != ".onnx":
            assert str(repository.parent) not in path.read_text()


@pytest.mark.parametrize("graph", GRAPHS, ids=lambda graph: graph.name)
def test_graphs_carry_no_path(graph: object, repository: Path) -> None:
    """A graph's names and attributes hold no path and no source file."""
    model = onnx.load(repository / graph.path)  # type: ignore[attr-defined]
    for weight in model.graph.initializer:
        weight.ClearField("raw_data")

    assert not re.search(rb"\.py\b|/\w+/\w+", model.SerializeToString())


def test_progress_is_told(
    toy: Checkpoint, repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each graph and the publication advance the bar once."""
    known = {graph.name: onnx.load(repository / graph.path) for graph in GRAPHS}
    monkeypatch.setattr(bundle, "onnx_from_module", lambda *_, name, **__: known[name])
    monkeypatch.setattr(bundle, "graph_parity", lambda graph, *_: perfect(graph.name))
    done: list[tuple[str, int]] = []

    export_bundle(toy.path, tmp_path / "repository", lambda *told: done.append(told))

    assert [name for name, _ in done] == [*(graph.name for graph in GRAPHS), "published"]
    assert {steps for _, steps in done} == {len(done)}


def test_graph_that_disagrees_is_not_published(
    toy: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The failed outputs are named, and no repository appears."""
    cross = [graph for graph in GRAPHS if graph.name == "text_decoder/cross"]
    monkeypatch.setattr(bundle, "graphs_of", lambda _stages: cross)
    monkeypatch.setattr(bundle, "graph_parity", lambda graph, *_: spoilt(graph.name))

    with pytest.raises(ConfigurationError) as error:
        export_bundle(toy.path, tmp_path / "repository")

    assert str(error.value) == (
        "1 outputs differ from PyTorch; nothing was published:\n"
        "  text_decoder/cross, case largest, output cross: max |Δ| 0.5, relative 0.5, "
        "tolerance 0.01"
    )
    assert list(tmp_path.iterdir()) == []


def perfect(graph: str) -> GraphParity:
    """Return the parity of a graph that agrees."""
    return GraphParity(graph, (CaseDifference(graph, "largest", Difference("x", 0, 0, 0.01)),))


def spoilt(graph: str) -> GraphParity:
    """Return the parity of a graph that disagrees."""
    return GraphParity(
        graph, (CaseDifference(graph, "largest", Difference("cross", 0.5, 0.5, 0.01)),)
    )
