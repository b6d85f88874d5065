"""Stages in a lower precision: chosen, computed as the server does, judged by their budget."""

import json
from pathlib import Path
from typing import Any

import onnx
import pytest
from tests import families

from sensorium.errors import ConfigurationError
from sensorium_export.bundle import export_bundle
from sensorium_export.precision import chosen_precisions
from sensorium_export.recipe import Recipe
from sensorium_export.source import open_source
from sensorium_export.tolerance import FP32, Tolerances, tolerance_of
from sensorium_server.openvino_graph import computes_bf16

openvino: Any = pytest.importorskip("openvino")
needs_bf16 = pytest.mark.skipif(not computes_bf16(), reason="this CPU does not compute bf16")


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small CLIP."""
    return families.clip(tmp_path_factory.mktemp("precision") / "clip")


@pytest.fixture(scope="module")
def recipe(clip: Path) -> Recipe:
    """Its recipe."""
    return open_source(clip).recipe


def test_one_word_is_for_all_networks(recipe: Recipe) -> None:
    """A precision alone is every network's, one behind a stage that stage's; the later counts."""
    every = {"image_encoder": "int8", "text_encoder": "int8"}

    assert chosen_precisions([], recipe) == {}
    assert chosen_precisions(["int8"], recipe) == every
    assert chosen_precisions(["int8", "text_encoder=fp32"], recipe) == {"image_encoder": "int8"}
    assert chosen_precisions(["text_encoder=bf16"], recipe) == {"text_encoder": "bf16"}


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ("fp8", 'precision "fp8": fp8 is none of fp32, bf16, int8'),
        ("image_encoder=fast", "fast is none of"),
        ("fusion=int8", "fusion is no stage of this bundle.*image_encoder, text_encoder"),
        ("text_preprocess=int8", "text_preprocess is no stage .* that can have one"),
    ],
)
def test_unknown_words_are_named(recipe: Recipe, wanted: str, message: str) -> None:
    """A stage or a precision that there is not is told with those that there are."""
    with pytest.raises(ConfigurationError, match=message):
        chosen_precisions([wanted], recipe)


def test_int8_is_in_the_file(clip: Path, tmp_path: Path) -> None:
    """Products are of integers, the file is smaller, the manifest and the config say which."""
    plain = export_bundle(clip, tmp_path / "plain", bundle="clip")
    small = export_bundle(clip, tmp_path / "small", bundle="clip", precision=["image_encoder=int8"])
    path = "clip.image_encoder/1/model.onnx"
    sizes = [(tmp_path / one / path).stat().st_size for one in ("plain", "small")]
    written = json.loads((tmp_path / "small/clip.manifest.json").read_text())
    config = (tmp_path / "small/clip.image_encoder/config.pbtxt").read_text()

    operators = {node.op_type for node in onnx.load(tmp_path / "small" / path).graph.node}
    assert "MatMulInteger" in operators
    assert sizes[1] < sizes[0]
    assert [one.stage for one in small.drifts] == ["image_encoder"]
    assert 0.99 < small.drifts[0].cosine < 1 - 1e-7
    assert written["precision"]["image_encoder"]["precision"] == "int8"
    assert 'key: "precision" value { string_value: "int8" }' in config
    assert plain.manifest.precision == {}


@needs_bf16
def test_bf16_is_computed_by_openvino(clip: Path, tmp_path: Path) -> None:
    """The file stays as it is, and the answers are near those of fp32, but not the same."""
    exported = export_bundle(clip, tmp_path / "models", bundle="clip", precision=["bf16"])
    plain = export_bundle(clip, tmp_path / "plain", bundle="clip")

    assert exported.manifest.files == plain.manifest.files
    assert {one.stage for one in exported.drifts} == {"image_encoder", "text_encoder"}
    assert all(0.999 < one.cosine < 1 - 1e-9 for one in exported.drifts)


def test_budget_is_the_checkpoints() -> None:
    """A section of the config replaces some of a precision's values; unknown ones are named."""
    assert tolerance_of("int8", {"cosine": 0.5}, "drift.int8").cosine == 0.5
    with pytest.raises(ConfigurationError, match=r"drift\.int8\.cosin is not known there"):
        tolerance_of("int8", {"cosin": 0.5}, "drift.int8")


def test_tasks_are_judged_by_the_furthest_stage() -> None:
    """A task may run through any stage; a stage is judged by its own precision."""
    usual, bf16, int8 = (tolerance_of(one, {}, "") for one in (FP32, "bf16", "int8"))
    tolerances = Tolerances(usual, {"fusion": bf16, "text_encoder": int8})

    assert Tolerances(usual).of_tasks is usual
    assert tolerances.of_tasks is int8
    assert tolerances.of_stage("fusion") is bf16
    assert tolerances.of_stage("image_encoder") is usual
