"""Modules of one's own: a function in a Python file becomes a bundle, or is refused with reason."""

import shutil
from pathlib import Path

import pytest
from tests import families

from sensorium.errors import ConfigurationError
from sensorium_export.bundle import export_bundle
from sensorium_export.source import open_source

MODEL = Path("tests/own/my_model.py")


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A user's file beside a tokenizer."""
    shutil.copyfile(MODEL, tmp_path / MODEL.name)
    families.word_pieces().save_pretrained(tmp_path)
    return tmp_path / MODEL.name


def test_own_modules_are_exported(own: Path, tmp_path: Path) -> None:
    """Each module becomes a graph that agrees with it, under the file's name."""
    exported = export_bundle(own.with_name("my_model.py:build"), tmp_path / "models")

    assert exported.manifest.bundle == "my_model"
    assert "my_model.visual_question_answering" in exported.manifest.models
    assert {one.graph for one in exported.parities} == {
        *("image_encoder", "text_encoder", "fusion"),
        *("text_decoder/cross", "text_decoder/step"),
    }
    assert set(exported.manifest.created_from) == {"my_model.py", "tokenizer.json"}


def replaced(was: str, becomes: str) -> tuple[str, str]:
    """Name an edit of the file."""
    return was, becomes


BROKEN = {
    "no such function": (None, "my_model.py:model", r'my_model.py has no function "model"'),
    "no such file": (None, "other.py:build", "other.py is not a Python file"),
    "another value": (
        replaced("return MultiModalModel(", "return dict("),
        "my_model.py:build",
        "returned dict, not a MultiModalModel",
    ),
    "it fails": (
        replaced("torch.manual_seed(0)", "1 / 0"),
        "my_model.py:build",
        "my_model.py:build failed: ZeroDivisionError",
    ),
    "a module and a size are missing": (
        replaced(
            "        fusion=Fusion(),\n        decoder=Decoder(words),\n        sizes={\n",
            "        sizes={",
        ),
        "my_model.py:build",
        "need fusion, decoder of a MultiModalModel",
    ),
    "a size is missing": (
        replaced('            "heads": 1,\n', ""),
        "my_model.py:build",
        r"need sizes\['heads'\]",
    ),
    "an unknown task": (
        replaced('"image_captioning"', '"image_painting"'),
        "my_model.py:build",
        "tasks = image_painting are not tasks",
    ),
    "another width": (
        replaced("return tokens, tokens.sum(dim=1)", "return tokens, tokens.sum(dim=1)[:, 1:]"),
        "my_model.py:build",
        r"output text_embedding has shape \('batch', 15\), expected \('batch', 16\)",
    ),
    "no tokenizer": (
        replaced("tokenizer=TOKENIZER", 'tokenizer="words.json"'),
        "my_model.py:build",
        "tokenizer = 'words.json' is not a file there",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_file_is_refused(own: Path, case: str) -> None:
    """What is wrong with a user's file is told, and nothing is published."""
    edit, name, message = BROKEN[case]
    if edit is not None:
        text = own.read_text()
        assert edit[0] in text
        own.write_text(text.replace(*edit))

    with pytest.raises(ConfigurationError, match=message):
        export_bundle(own.with_name(name), own.parent / "models")

    assert not (own.parent / "models").exists()


def test_a_bundle_can_be_named(own: Path) -> None:
    """`--bundle` names it otherwise than its file."""
    assert open_source(own.with_name("my_model.py:build"), "mine").recipe.bundle == "mine"
