"""`sensorium inspect`: what a published repository holds, and what is wrong with it."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import onnx
import pytest
import typer
from onnx import TensorProto, helper
from typer.testing import CliRunner, Result

from sensorium._plugin import Verbs
from sensorium_export.inspect_cli import inspect
from sensorium_export.inspect_plot import edges_of, plot_tasks
from sensorium_export.inspect_repository import inspected, only
from sensorium_server.manifest import SUFFIX

app = typer.Typer(cls=Verbs)
app.command("inspect", epilog=inspect.epilog)(inspect)  # type: ignore[attr-defined]
app.callback()(lambda: None)


@pytest.fixture
def copy(repository: Path, tmp_path: Path) -> Path:
    """A copy of the exported repository, to break."""
    return shutil.copytree(repository, tmp_path / "repository")


def run(repository: Path, *arguments: str | Path) -> Result:
    """Run the command as a shell would."""
    words = ["inspect", "--repository", str(repository), *(str(one) for one in arguments)]
    return CliRunner().invoke(app, words)


def change(path: Path, old: str, new: str) -> None:
    """Replace a text that is there."""
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_tree_shows_everything(repository: Path) -> None:
    """Bundle, tasks, stages with backend, files and parity, and tensors with dtype and dims."""
    result = run(repository)

    assert result.exit_code == 0, result.stderr
    for words in (
        "toy · 14 tasks",
        "image_captioning · image BYTES [1] → caption BYTES [1], score FP32 [1]",
        "image_encoder · onnxruntime",
        "model.onnx · 0.",
        "text_decoder/step against PyTorch · max_abs",
        "→ pixel_values FP32 [3, 32, 32]",
        "← memory FP32 [-1, 32] · fused_tokens in the task",
    ):
        assert words in result.stdout


def test_json_has_the_same(repository: Path) -> None:
    """A program gets bundles, tasks and stages as values, and no problem of a sound repository."""
    values: dict[str, Any] = json.loads(run(repository, "--json").stdout)

    (bundle,) = values["bundles"]
    assert values["problems"] == []
    assert bundle["name"] == "toy"
    assert bundle["stages"]["fusion"]["backend"] == "onnxruntime"
    assert bundle["stages"]["fusion"]["files"]["model.onnx"] > 1000
    assert bundle["stages"]["text_decoder"]["parity"].keys() == {
        "text_decoder/cross",
        "text_decoder/step",
    }


def test_one_task_alone(repository: Path) -> None:
    """`--task` leaves out other tasks and the stages that only they use."""
    result = run(repository, "--bundle", "toy", "--task", "image_captioning")

    assert result.exit_code == 0
    assert "1 task · 3 stages" in result.stdout
    assert "audio" not in result.stdout.replace("← audio BYTES [1]", "")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--bundle", "third"], "has no bundle 'third'; it has: toy."),
        (["--task", "flying"], "no bundle has a task 'flying'; there are: action_recognition"),
        (["--plot", "nowhere/a.png"], "cannot write 'nowhere/a.png'"),
    ],
)
def test_unknown_names_are_told(repository: Path, arguments: list[str], message: str) -> None:
    """Bundle and task are named with those that there are."""
    result = run(repository, *arguments)

    assert result.exit_code == 1
    assert message in result.stderr


def test_empty_repository_is_told(tmp_path: Path) -> None:
    """A directory without models is refused with the way out."""
    result = run(tmp_path)

    assert result.exit_code == 1
    assert "holds no model" in result.stderr


def test_all_problems_are_listed_at_once(copy: Path) -> None:
    """Wiring, missing and corrupt files, and graphs unlike their config come in one run."""
    change(copy / "image_encoder/config.pbtxt", "dims: [3, 32, 32]", "dims: [3, 64, 64]")
    change(copy / "text_encoder/config.pbtxt", '"text_embedding"', '"sentence"')
    change(copy / "fusion/config.pbtxt", "TYPE_INT64", "TYPE_FP32")
    (copy / "text_decoder/1/cross.onnx").unlink()
    (copy / "media_join/config.pbtxt").unlink()
    (copy / "audio_encoder/1/model.onnx").write_bytes(b"no graph")
    change(copy / "video_encoder/config.pbtxt", 'backend: "onnxruntime"', 'backend: "python"')

    result = run(copy)

    assert result.exit_code == 1
    for problem in (
        "image_encoder/1/model.onnx: input pixel_values is FP32 [3, 32, 32] in the graph, FP32 [3",
        "text_encoder/1/model.onnx: the graph has no output sentence, which the config has",
        "the config has no output text_embedding, which the graph has",
        "fusion/1/model.onnx: input attention_mask is INT64 [-1] in the graph, FP32 [-1] in the",
        "text_decoder/1/cross.onnx is missing; toy.manifest.json expects sha256:",
        "media_join/config.pbtxt is missing",
        "audio_encoder/1/model.onnx is corrupt",
        "audio_encoder/1/model.onnx cannot be loaded",
        'video_encoder: backend "python", expected "onnxruntime"',
        "step media_join is not a model of this repository",
        "wants pixel_values as FP32 [3, 64, 64], it is made as FP32 [3, 32, 32]",
    ):
        assert problem in result.stderr
    assert json.loads(run(copy, "--json").stdout)["problems"]


def test_graphs_of_a_decoder_are_held_against_the_contract(copy: Path) -> None:
    """Names, dtypes, numbers of axes, fixed and common sizes of a stage's several graphs."""
    size = onnx.load(copy / "image_decoder/1/condition.onnx").graph.output[0]
    width = size.type.tensor_type.shape.dim[2].dim_value
    inputs = [
        helper.make_tensor_value_info("noisy", TensorProto.FLOAT, ["batch", 3, "tall", 32]),
        helper.make_tensor_value_info("noise_level", TensorProto.FLOAT, ["batch", 1]),
        helper.make_tensor_value_info("condition", TensorProto.INT64, ["batch", 10, width + 1]),
        helper.make_tensor_value_info("more", TensorProto.FLOAT, ["batch"]),
    ]
    outputs = [helper.make_tensor_value_info("speed", TensorProto.FLOAT, ["batch", 3, "tall", 32])]
    node = helper.make_node("Identity", ["noisy"], ["speed"])
    graph = helper.make_graph([node], "denoise", inputs, outputs)
    imports = [helper.make_opsetid("", 20)]
    onnx.save(
        helper.make_model(graph, opset_imports=imports, ir_version=9),
        copy / "image_decoder/1/denoise.onnx",
    )

    problems = run(copy).stderr

    for problem in (
        "input noisy: the axis noise_size is open, the contract fixes it",
        "input noise_level has the axes ['batch', 1], expected ['batch']",
        "input condition is INT64, expected FP32",
        f"input condition: width is {width + 1}, elsewhere {width}",
        "the contract has no input more, which the graph has",
        "the graph has no output velocity, which the contract has",
        "the contract has no output speed, which the graph has",
    ):
        assert f"image_decoder/1/denoise.onnx: {problem}" in problems


def test_models_without_a_manifest_are_shown(copy: Path) -> None:
    """What no manifest lists is shown too, checked against the contract alone."""
    (copy / f"toy{SUFFIX}").unlink()
    (copy / "text_encoder/1/model.onnx").unlink()

    result = run(copy)

    assert result.exit_code == 1
    assert "models without a manifest · 14 tasks" in result.stdout
    assert result.stderr.splitlines() == ["problem: text_encoder/1/model.onnx is missing"]


def test_unreadable_manifest_is_told(copy: Path) -> None:
    """A manifest that is none is a problem of the bundle, and its models are shown all the same."""
    (copy / f"toy{SUFFIX}").write_text("{")

    result = run(copy)

    assert result.exit_code == 1
    assert "toy.manifest.json cannot be read" in result.stderr
    assert "models without a manifest · 14 tasks" in result.stdout


def test_picture_has_boxes_and_arrows(repository: Path, tmp_path: Path) -> None:
    """Each stage of a task, each tensor on its way and the two ends are written in the picture."""
    bundles = only(inspected(repository), "visual_question_answering")
    (task,) = bundles[0].tasks
    edges = edges_of(task, bundles[0].stages)

    text = plot_tasks(bundles, tmp_path / "a.svg").read_text()

    assert [str(tensor) for tensor in edges[0, 3]] == ["image BYTES [1]"]
    assert (2, 3) not in edges
    for words in ("fusion · onnxruntime", "request", "response", "fused_tokens FP32 [-1, 32]"):
        assert f"<!-- {words} -->" in text
    assert run(repository, "--plot", tmp_path / "all.png").exit_code == 0
    assert (tmp_path / "all.png").read_bytes().startswith(b"\x89PNG")


def test_inspection_needs_no_torch(repository: Path) -> None:
    """Neither PyTorch nor transformers is imported, so it is quick and works on a server."""
    code = (
        "import sys; from pathlib import Path\n"
        "from sensorium_export.inspect_cli import inspect\n"
        "inspect(repository=Path(sys.argv[1]))\n"
        "assert not {'torch', 'transformers', 'matplotlib'} & sys.modules.keys()\n"
    )
    subprocess.run([sys.executable, "-c", code, str(repository)], check=True, capture_output=True)


def test_it_says_what_would_run_on_a_gpu(repository: Path) -> None:
    """`--gpu` names an engine for every stage that has graphs, and why it is not a faster one."""
    told = json.loads(run(repository, "--gpu", "--json").stdout)
    shown = run(repository, "--gpu").stdout

    assert {one["model"] for one in told["engines"]} == {
        path.parents[1].name for path in repository.glob("*/configs/gpu_wheel.pbtxt")
    }
    assert all(one["engine"] in shown for one in told["engines"])
