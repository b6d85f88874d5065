"""The parity proof on a real Triton: it passes when all is well, and sees what is broken."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from typer.testing import CliRunner

from sensorium.cli import main
from sensorium.errors import ConfigurationError
from sensorium_export.bundle import ExportedBundle
from sensorium_export.ensembles import ENSEMBLES
from sensorium_export.parity_card import TASK_WAYS, Card, failure_lines
from sensorium_export.verify import Options, verify
from sensorium_server import settings
from sensorium_server.engine_record import read_records, write_records
from sensorium_server.launch import Server
from sensorium_server.manifest import digest

pytestmark = pytest.mark.triton

ROOT = Path(__file__).parents[2]
COUNT = 16
FEW = 12


@pytest.fixture
def copy(bundle: ExportedBundle, tmp_path: Path) -> Path:
    """A copy of the exported repository, to break."""
    return shutil.copytree(bundle.repository, tmp_path / "repository")


def failed_outputs(card: Card) -> set[str]:
    """Return the stages' outputs that differ from PyTorch's."""
    return {
        failure.where for failure in card.failures if not failure.where.startswith(tuple(ENSEMBLES))
    }


def test_exported_bundle_answers_like_pytorch(checkpoint: Path, bundle: ExportedBundle) -> None:
    """Every task and stage, in this process, over gRPC and over HTTP, equals PyTorch."""
    card = verify(Options(checkpoint, bundle.repository, COUNT))

    assert failure_lines(card) == []
    assert card.has_passed
    assert card.tasks.keys() == ENSEMBLES.keys()
    assert all(tuple(ways) == TASK_WAYS for ways in card.tasks.values())
    assert all(one.inputs == COUNT for ways in card.tasks.values() for one in ways.values())
    assert card.tasks["visual_question_answering"]["gRPC"].different > 1


def test_broken_resize_filter_is_found_and_named(checkpoint: Path, copy: Path) -> None:
    """Another filter than the training run's fails in the stage that resizes, and only there."""
    config = copy / "image_preprocess" / "config.pbtxt"
    text = config.read_text()
    assert '"bicubic"' in text
    config.write_text(text.replace('"bicubic"', '"bilinear"'))

    card = verify(Options(checkpoint, copy, FEW))

    assert not card.has_passed
    assert failed_outputs(card) == {"image_preprocess/pixel_values"}
    assert not card.tasks["image_embedding"]["gRPC"].has_passed
    assert not card.tasks["image_embedding"]["HTTP"].has_passed
    assert card.tasks["text_embedding"]["gRPC"].has_passed


def break_column(path: Path) -> None:
    """Change a graph's first embedding column a little."""
    model = onnx.load(path)
    weight = next(one for one in model.graph.initializer if one.name.endswith("embed.weight"))
    values = numpy_helper.to_array(weight).copy()
    values[:, 0] += np.float32(0.05)
    weight.CopyFrom(numpy_helper.from_array(values, weight.name))
    onnx.save(model, path)


def break_weight(repository: Path, file: str) -> None:
    """Break a graph, and let the manifest agree."""
    path = repository / file
    break_column(path)
    manifest = repository / "toy.manifest.json"
    written = json.loads(manifest.read_text())
    written["files"][file] = digest(path)
    manifest.write_text(json.dumps(written))


def test_broken_weight_is_found_and_named(checkpoint: Path, copy: Path) -> None:
    """One wrong weight fails in its own stage and in every task behind it."""
    break_weight(copy, "text_encoder/1/model.onnx")

    card = verify(Options(checkpoint, copy, FEW))

    assert failed_outputs(card) == {"text_encoder/text_tokens", "text_encoder/text_embedding"}
    assert not card.tasks["text_embedding"]["gRPC"].has_passed
    assert card.tasks["image_embedding"]["HTTP"].has_passed


def test_engines_are_held_against_pytorch(checkpoint: Path, copy: Path) -> None:
    """Served engines answer as PyTorch does; a wrong one fails in its tasks, and there alone."""
    options, card = Options(checkpoint, copy, 4, engines=True), copy / "toy.card.json"
    card.unlink(missing_ok=True)  # of a test before
    with pytest.raises(ConfigurationError, match=r"toy has no engines in .*sensorium compile"):
        verify(options)
    command = ["compile", str(checkpoint), "--repository", str(copy), "--profile", "cpu"]
    compiled = CliRunner().invoke(main, [*command, "--graph", "text_encoder"])
    assert compiled.exit_code == 0, compiled.output

    right = verify(options)
    [record] = read_records(copy, "toy")
    break_column(copy / record.file)
    with pytest.raises(ConfigurationError, match=f"{record.file} is not used"):
        verify(options)
    write_records(copy, "toy", [replace(record, digest=digest(copy / record.file))])
    wrong = verify(options)

    assert right.has_passed
    assert failed_outputs(wrong) == set()
    assert wrong.tasks["text_embedding"]["ONNX"].has_passed
    assert not wrong.tasks["text_embedding"]["gRPC"].has_passed
    assert wrong.tasks["image_embedding"]["HTTP"].has_passed
    assert not card.exists()


def test_corrupt_graph_is_refused_with_both_digests(checkpoint: Path, copy: Path) -> None:
    """An artefact that is not the manifest's is named before anything is started."""
    graph = copy / "fusion" / "1" / "model.onnx"
    expected = digest(graph)
    graph.write_bytes(graph.read_bytes() + b"\0")

    with pytest.raises(ConfigurationError) as error:
        verify(Options(checkpoint, copy, 1))

    assert "fusion/1/model.onnx" in str(error.value)
    assert expected in str(error.value)
    assert digest(graph) in str(error.value)


def test_command_verifies_a_running_server(checkpoint: Path, bundle: ExportedBundle) -> None:
    """`sensorium verify` asks the server whose addresses it is given, and prints JSON."""
    with Server(settings.load({"repository": bundle.repository, **settings.FREE_PORTS})) as server:
        result = CliRunner().invoke(
            main,
            [
                *("verify", str(checkpoint), "--repository", str(bundle.repository)),
                *("--grpc", server.endpoints.grpc, "--http", server.endpoints.http),
                *("--count", "4", "--json"),
            ],
        )

    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["passed"] is True


@pytest.mark.slow
@pytest.mark.parametrize("count", [FEW, pytest.param(200, marks=pytest.mark.full_size)])
def test_committed_repository_answers_like_pytorch(count: int) -> None:
    """The bundle that travels with the source passes, as its card says of two hundred inputs."""
    card = verify(
        Options(
            ROOT / "checkpoints/playroom",
            ROOT / "model_repository",
            count,
            pictures=ROOT / "docs/images",
        )
    )

    assert failure_lines(card) == []
    assert card.has_passed
    assert min(one.inputs for ways in card.tasks.values() for one in ways.values()) > count
