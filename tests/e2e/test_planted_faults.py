"""Faults that no one sees by looking: each makes `sensorium verify` fail, with the right name."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from tests import families
from typer.testing import CliRunner, Result

from sensorium.cli import main
from sensorium_server.manifest import digest

pytestmark = pytest.mark.triton

ENCODER = "bert.text_encoder/1/model.onnx"
TOKENIZER = "bert.text_preprocess/1/tokenizer.json"
CONFIG = "bert.text_preprocess/config.pbtxt"


def run(*arguments: object) -> Result:
    """Run the `sensorium` command."""
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's BERT."""
    return families.bert(tmp_path_factory.mktemp("faults") / "bert")


@pytest.fixture
def repository(directory: Path, tmp_path: Path) -> Path:
    """It, exported; to be spoiled."""
    exported = run("export", directory, "--repository", tmp_path / "models")
    assert exported.exit_code == 0, exported.output
    return tmp_path / "models"


def published(repository: Path, name: str) -> None:
    """Write a spoiled file's digest into the manifest, as if it had been exported so."""
    path = repository / "bert.manifest.json"
    manifest = json.loads(path.read_text())
    assert name in manifest["files"]
    manifest["files"][name] = digest(repository / name)
    path.write_text(json.dumps(manifest))


def swapped_words(repository: Path) -> None:
    """Let two words have each other's ids."""
    path = repository / TOKENIZER
    tokenizer = json.loads(path.read_text())
    words = tokenizer["model"]["vocab"]
    words["red"], words["star"] = words["star"], words["red"]
    path.write_text(json.dumps(tokenizer))
    published(repository, TOKENIZER)


def another_weight(repository: Path) -> None:
    """Move one weight a little, as a lossy export would."""
    model = onnx.load(repository / ENCODER)
    weight = max(model.graph.initializer, key=lambda one: int(np.prod(one.dims)))
    array = numpy_helper.to_array(weight).copy()
    array *= 1.01
    weight.CopyFrom(numpy_helper.from_array(array, weight.name))
    onnx.save(model, repository / ENCODER)
    published(repository, ENCODER)


def padding_read(repository: Path) -> None:
    """Let the encoder read padding, that of a batch and that of its buckets, as if it were text."""
    model = onnx.load(repository / ENCODER)
    for node in model.graph.node:
        names = ["all_shown" if name == "attention_mask" else name for name in node.input]
        node.input[:] = names
    one = numpy_helper.from_array(np.array(1, np.int64), "one")
    model.graph.initializer.append(one)
    shown = helper.make_node("Max", ["attention_mask", "one"], ["all_shown"])
    model.graph.node.insert(0, shown)
    onnx.save(model, repository / ENCODER)
    published(repository, ENCODER)


FAULTS: dict[str, tuple[Callable[[Path], None], str, str]] = {
    "tokenizer": (swapped_words, "text_preprocess/input_ids", "text_encoder/"),
    "export": (another_weight, "text_encoder/text_embedding (alone)", "preprocess/"),
    "batching": (padding_read, "text_encoder/text_embedding (in a ragged batch)", "preprocess/"),
}
"""What is spoiled, what the proof must name, and what it must not."""


@pytest.mark.parametrize("fault", FAULTS)
def test_fault_is_found_by_its_name(directory: Path, repository: Path, fault: str) -> None:
    """The proof fails with exit code 1 and names the stage, its output and how it was run."""
    spoil, named, innocent = FAULTS[fault]
    spoil(repository)

    wide = ("--count", 12, "--pictures", repository.parent / "none", "--json")
    verified = run("verify", directory, "--repository", repository, *wide)

    assert verified.exit_code == 1
    assert named in verified.output
    assert innocent not in verified.output


def test_file_changed_after_the_export_is_named(directory: Path, repository: Path) -> None:
    """A file that is not the published one stops the proof before anything is compared."""
    (repository / TOKENIZER).write_text("{}")

    verified = run("verify", directory, "--repository", repository, "--count", 2)

    assert verified.exit_code == 1
    assert TOKENIZER in verified.output
