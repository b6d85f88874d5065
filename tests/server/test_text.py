from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.server import toy

from sensorium.errors import ConfigurationError, InvalidInputError
from sensorium_server.settings import load
from sensorium_server.stages import Stage, StageConfig, text


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    """Return the stage with the toy's words and at most eight tokens."""
    toy.tokenizer().save(str(tmp_path / "tokenizer.json"))
    config = StageConfig("text_preprocess", tmp_path, {"max_tokens": "8", "pad_id": str(toy.PAD)})
    return text.stage(config, load({"max_text_chars": 60}))


def batch(*items: bytes) -> dict[str, Any]:
    """Return one request of several texts."""
    return {"text": np.array([[item] for item in items], np.object_)}


def ids(*words: str) -> list[int]:
    """Return the ids of words."""
    return [toy.VOCABULARY[word] for word in words]


def test_one_text(stage: Stage) -> None:
    """A text becomes its ids, all of them shown by the mask."""
    outputs = stage(batch(b"What color is the star"))

    assert outputs["input_ids"].tolist() == [ids("what", "color", "is", "the", "star")]
    assert outputs["attention_mask"].tolist() == [[1] * 5]
    assert outputs["input_ids"].dtype == outputs["attention_mask"].dtype == np.int64


def test_unequal_texts_are_padded(stage: Stage) -> None:
    """Shorter texts of a request are padded, and the mask hides the padding."""
    outputs = stage(batch(b"star", b"the red star"))

    assert outputs["input_ids"].tolist() == [
        [*ids("star"), toy.PAD, toy.PAD],
        ids("the", "red", "star"),
    ]
    assert outputs["attention_mask"].tolist() == [[1, 0, 0], [1, 1, 1]]


def test_unknown_words_are_left_to_the_model(stage: Stage) -> None:
    """A word outside the vocabulary becomes the unknown token."""
    assert stage(batch("Übermorgen".encode()))["input_ids"].tolist() == [[toy.UNK]]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "text is empty"),
        (b"  \n\t ", "text is empty"),
        (b"\xff\xfe star", "not valid UTF-8: byte 0xff at position 0"),
        (b"a" * 61, r"text is 61 characters long; the limit is 60 characters \(max_text_chars\)"),
        (b"a" * 241, r"text is 241 bytes long; the limit is 60"),
        (b"a " * 9, r"text has 9 tokens; the model takes 8 \(max_tokens\)"),
    ],
    ids=["empty", "blank", "no utf-8", "chars", "bytes", "tokens"],
)
def test_bad_text(stage: Stage, data: bytes, message: str) -> None:
    """A bad text is refused with the reason, the value and the limit."""
    with pytest.raises(InvalidInputError, match=message):
        stage(batch(data))


def test_limit_counts_characters(stage: Stage) -> None:
    """Characters are counted, not bytes."""
    assert stage(batch(("ü" * 60).encode()))["input_ids"].shape == (1, 1)


def test_text_without_a_word() -> None:
    """A text that tokenises to special tokens only is refused."""
    with pytest.raises(InvalidInputError, match=r'no word in it: "\[BOS\]"|no word in it'):
        text.tokens_of("\u200b", _silent(), 8)


def _silent() -> Any:  # noqa: ANN401 - a tokenizer's stand-in
    class Encoding:
        ids: tuple[int, ...] = (2, 3)
        special_tokens_mask = (1, 1)

    class Silent:
        def encode(self, _text: str) -> Encoding:
            return Encoding()

    return Silent()


def test_bad_item_is_named(stage: Stage) -> None:
    """In a batch the message says which item is bad."""
    with pytest.raises(InvalidInputError, match=r"^item 1 of 2: text is empty"):
        stage(batch(b"star", b""))


def test_missing_tokenizer(tmp_path: Path) -> None:
    """A tokenizer that cannot be read is named with its model."""
    with pytest.raises(ConfigurationError, match=r"tokenizer.json of text_decoder cannot be read"):
        text.load_tokenizer(tmp_path / "text_decoder" / "1" / "tokenizer.json")
