"""The verb `sensorium compile`."""

import json
import shlex
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
from tests.export.engines.onnx_product import OnnxProduct
from typer.testing import CliRunner, Result

from sensorium.cli import main
from sensorium_export.engines.tensorrt import TENSORRT_RTX
from sensorium_server.engine_record import read_records

NO_RTX = TENSORRT_RTX.why_unavailable("8.9")
CHECKPOINT = Path("checkpoints/playroom")
Compile = Callable[..., Result]


@pytest.fixture
def compile_(models: Path, monkeypatch: pytest.MonkeyPatch) -> Compile:
    """The command, with what runs without a GPU in the place of TensorRT."""
    monkeypatch.setattr("sensorium_export.engines.product_named", lambda _name: OnnxProduct())

    def run(*arguments: object) -> Result:
        words = ["compile", CHECKPOINT, "--repository", models, *arguments]
        return CliRunner().invoke(main, [str(word) for word in words])

    return run


def test_every_engine_is_told(compile_: Compile, models: Path) -> None:
    """A line for each on stdout; the record has the command that was typed."""
    done = compile_("--graph", "text_encoder", "--precision", "fp32", "--precision", "fp16")

    assert done.exit_code == 0, done.output
    assert done.stdout.startswith("text_encoder/1/model.typed: fp16, like PyTorch in ")
    [record] = read_records(models, "playroom")
    assert record.command == shlex.join(
        [
            *("sensorium", "compile", str(CHECKPOINT), "--repository", str(models)),
            *("--precision", "fp32", "--precision", "fp16", "--graph", "text_encoder"),
        ]
    )


def test_records_are_given_as_json(compile_: Compile) -> None:
    """Data on stdout and nothing else."""
    done = compile_("--graph", "text_decoder/cross", "--precision", "fp16", "--json")

    [record] = json.loads(done.stdout)
    assert record["graph"] == "text_decoder/cross"
    assert record["parity"]["passed"] is True


def test_graph_without_engine_is_a_failure(compile_: Compile, models: Path) -> None:
    """It is told on stderr with the reason, and the exit code is 1."""
    (models / "text_encoder/1/model.onnx").unlink()

    done = compile_("--graph", "text_encoder")

    assert done.exit_code == 1
    assert done.stdout == ""
    assert "text_encoder has no engine: text_encoder/1/model.onnx is not in models" in done.stderr


def test_trtexec_commands_are_printed(compile_: Compile, models: Path, tmp_path: Path) -> None:
    """They build the same from graphs in the precision, with the same profiles and limits."""
    options = ("--precision", "fp16", "--compatibility", "version", "--compatibility")
    limits = ("ampere_plus", "--workspace-mib", 512, "--strip-weights")
    typed = tmp_path / "typed"

    done = compile_("--graph", "text_decoder/step", *options, *limits, "--trtexec", typed)

    assert done.exit_code == 0, done.output
    [line] = done.stdout.splitlines()
    words = shlex.split(line)
    assert words[0] == "trtexec"
    assert f"--onnx={typed / 'text_decoder/1/step.onnx'}" in words
    assert f"--saveEngine={models / 'text_decoder/1/step.typed'}" in words
    for word in (
        *("--stronglyTyped", "--noTF32", "--versionCompatible", "--stripWeights"),
        *("--hardwareCompatibilityLevel=ampere+", "--memPoolSize=workspace:512M"),
    ):
        assert word in words
    least = [word for word in words if word.startswith("--minShapes=")]
    assert len(least) == len([word for word in words if word.startswith("--profile=")]) == 2
    assert least[0].startswith("--minShapes=token_id:1,position:1,past:1x")
    graph = onnx.load(typed / "text_decoder/1/step.onnx").graph
    assert onnx.TensorProto.FLOAT16 in {one.data_type for one in graph.initializer}


def test_what_is_misspelt_is_misused(compile_: Compile) -> None:
    """A profile that there is not is exit code 2; a graph that there is not is told with all."""
    assert compile_("--profile", "tpu").exit_code == 2
    unknown = compile_("--graph", "lips")
    assert unknown.exit_code == 1
    assert "lips is no graph of this bundle; those are: image_encoder" in unknown.stderr


@pytest.mark.skipif(bool(NO_RTX), reason=NO_RTX)
def test_stages_in_fp8_are_scaled_by_real_media(models: Path) -> None:
    """Each stage that is one graph; a decoder's graphs are told, with the way out."""
    words = ["compile", CHECKPOINT, "--repository", models, "--profile", "rtx"]
    words += ["--compute-capability", "8.9", "--precision", "fp8", "--count", "2"]
    graphs = ["--graph", "text_encoder", "--graph", "fusion", "--graph", "text_decoder/cross"]

    done = CliRunner().invoke(main, [str(word) for word in [*words, *graphs]])

    assert done.exit_code == 1
    assert "text_encoder/1/model.rtx: fp8, not proven" in done.stdout
    assert "fusion/1/model.rtx: fp8, not proven" in done.stdout
    assert "Choose another --precision for it: text_decoder/cross=bf16" in done.stderr
