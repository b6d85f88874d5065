"""Checking a repository: everything that is wrong, at once."""

import shutil
from pathlib import Path

import pytest

from sensorium.errors import ConfigurationError
from sensorium_export.recipe import Recipe
from sensorium_export.repository_check import check_repository, repository_problems


@pytest.fixture
def copy(repository: Path, tmp_path: Path) -> Path:
    """A copy of the exported repository, to break."""
    return shutil.copytree(repository, tmp_path / "repository")


def change(path: Path, old: str, new: str) -> None:
    """Replace a text that is there."""
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_exported_repository_is_sound(repository: Path, recipe: Recipe) -> None:
    """What the exporter writes passes its own check."""
    check_repository(repository, recipe)


@pytest.mark.parametrize(
    ("model", "old", "new", "problem"),
    [
        (
            "image_preprocess",
            "dims: [3, 32, 32]",
            "dims: [3, 64, 64]",
            "image_preprocess: output pixel_values is FP32 [3, 64, 64], expected FP32 [3, 32, 32]",
        ),
        (
            "text_encoder",
            'name: "attention_mask"\n  data_type: TYPE_INT64',
            'name: "attention_mask"\n  data_type: TYPE_INT32',
            "text_encoder: input attention_mask is INT32 [-1], expected INT64 [-1]",
        ),
        (
            "fusion",
            'name: "media_mask"',
            'name: "picture_mask"',
            "fusion: input media_mask is missing",
        ),
        ("fusion", 'name: "fusion"', 'name: "mixer"', 'fusion: the config is named "mixer"'),
        (
            "fusion",
            'backend: "onnxruntime"',
            'backend: "python"',
            'fusion: backend "python", expected "onnxruntime"',
        ),
        (
            "visual_question_answering",
            '    input_map { key: "after" value: "text_embedding" }\n',
            "",
            (
                "visual_question_answering: step image_preprocess does not wait "
                "for the one before it; see decision 2"
            ),
        ),
        (
            "text_embedding",
            'platform: "ensemble"',
            'backend: "python"',
            'text_embedding: platform "", expected "ensemble"',
        ),
        (
            "fusion",
            "max_batch_size: 64",
            "max_batch_size: 0",
            "fusion: max_batch_size 0; it must be 1 or more",
        ),
        (
            "image_captioning",
            'input_map { key: "memory_mask" value: "image_mask" }',
            "",
            "image_captioning: step text_decoder: its input memory_mask is not mapped",
        ),
        (
            "image_captioning",
            'output_map { key: "image_mask" value: "image_mask" }',
            "",
            (
                "image_captioning: step text_decoder: its input memory_mask wants image_mask, "
                "which no step makes"
            ),
        ),
        (
            "image_captioning",
            'key: "memory" value: "image_tokens"',
            'key: "memory" value: "pixel_values"',
            (
                "image_captioning: step text_decoder: its input memory wants pixel_values as "
                "FP32 [-1, 32], it is made as FP32 [3, 32, 32]"
            ),
        ),
        (
            "image_captioning",
            'key: "score" value: "score"',
            'key: "score" value: "caption"',
            "image_captioning: step text_decoder: caption is made twice",
        ),
        (
            "text_embedding",
            'model_name: "text_encoder"',
            'model_name: "text_reader"',
            "text_embedding: step text_reader is not a model of this repository",
        ),
        (
            "text_embedding",
            'key: "text_embedding" value: "embedding"',
            'key: "text_vector" value: "embedding"',
            "text_embedding: step text_encoder: it has no output text_vector",
        ),
        (
            "text_embedding",
            'key: "text" value: "text"',
            'key: "words" value: "text"',
            "text_embedding: step text_preprocess: it has no input words",
        ),
        (
            "text_embedding",
            'input_map { key: "text" value: "text" }',
            "",
            "text_embedding: input text is never used",
        ),
    ],
)
def test_problem_is_named(  # noqa: PLR0917 - one case a row
    copy: Path, recipe: Recipe, model: str, old: str, new: str, problem: str
) -> None:
    """Each kind of mistake is found and named by model and tensor."""
    change(copy / model / "config.pbtxt", old, new)

    assert problem in repository_problems(copy, recipe)


def test_all_problems_come_in_one_message(copy: Path, recipe: Recipe) -> None:
    """Whoever mends a repository mends it once."""
    (copy / "fusion/1/model.onnx").unlink()
    (copy / "text_preprocess/1/tokenizer.json").unlink()
    shutil.rmtree(copy / "image_embedding/1")
    shutil.rmtree(copy / "image_captioning")
    change(copy / "text_decoder/config.pbtxt", "max_batch_size: 64", "max_batch_size: many")

    with pytest.raises(ConfigurationError) as error:
        check_repository(copy, recipe)

    message = str(error.value)
    assert "fusion/1/model.onnx is missing" in message
    assert "text_preprocess/1/tokenizer.json is missing" in message
    assert "image_embedding/1 is missing" in message
    assert "image_captioning/config.pbtxt is missing" in message
    assert "text_decoder/config.pbtxt:" in message


def test_unknown_tensor_is_named(copy: Path, recipe: Recipe) -> None:
    """A tensor that the contract does not know is a problem."""
    change(copy / "fusion/config.pbtxt", 'name: "media_mask"', 'name: "picture_mask"')

    assert "fusion: input picture_mask is not in the contract" in repository_problems(copy, recipe)
