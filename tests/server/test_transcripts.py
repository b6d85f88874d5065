"""`ctc_postprocess`: the frames' likeliest tokens as a text."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sensorium.errors import ConfigurationError, ServerError
from sensorium_server.settings import load
from sensorium_server.stages import Stage, StageConfig, transcripts

TOKENS = ["<pad>", "|", "A", "B", "'s", "."]


def made(**parameters: str) -> Stage:
    """Return the stage of a small vocabulary."""
    given_ = {"tokens": json.dumps(TOKENS), "blank": "<pad>", "word_delimiter": "|"} | parameters
    return transcripts.stage(StageConfig("ctc_postprocess", Path(), given_), load())


def frames(*rows: list[int]) -> dict[str, Any]:
    """Return logits that choose these tokens, padded with others that a mask hides."""
    longest = max(map(len, rows))
    ids = np.array([row + [2] * (longest - len(row)) for row in rows])
    mask = np.array([[1] * len(row) + [0] * (longest - len(row)) for row in rows], np.int64)
    return {"ctc_logits": np.eye(len(TOKENS), dtype=np.float32)[ids] * 9, "ctc_mask": mask}


def said(stage: Stage, *rows: list[int]) -> list[str]:
    """Return the texts of rows of tokens."""
    return [text.decode() for (text,) in stage(frames(*rows))["transcript"]]


def test_equal_neighbours_count_once() -> None:
    """What follows itself is one letter, unless a blank comes between; delimiters are spaces."""
    assert said(made(), [1, 2, 2, 0, 2, 1, 1, 3, 3, 1]) == ["AA B"]


def test_padding_is_not_written() -> None:
    """Frames behind the mask add nothing to the text or to its probability."""
    together = made()(frames([3, 3, 0], [3]))
    alone = made()(frames([3]))

    assert together["transcript"].tolist() == [[b"B"], [b"B"]]
    assert together["score"][1] == alone["score"][0]


def test_silence_is_an_empty_text() -> None:
    """Blanks alone are no letters."""
    assert said(made(), [0, 0, 0]) == [""]


def test_spelling_follows_the_parameters() -> None:
    """Small letters, and no space before what belongs to the word before."""
    row = [2, 1, 4, 1, 5]

    assert said(made(), row) == ["A 's ."]
    assert said(made(lower_case="true", clean_up="true"), row) == ["a's."]


@given(st.lists(st.integers(0, len(TOKENS) - 1), min_size=1, max_size=12))
def test_score_is_the_product_over_frames(row: list[int]) -> None:
    """The score is the probability of the chosen tokens, frame by frame."""
    each = np.exp(9) / (np.exp(9) + len(TOKENS) - 1)

    assert made()(frames(row))["score"].item() == pytest.approx(each ** len(row), rel=1e-5)


def test_numbers_that_are_none() -> None:
    """A network that puts out NaN gives an error, and no text."""
    broken = frames([2, 3])
    broken["ctc_logits"][0, 0, 0] = np.nan

    with pytest.raises(ServerError, match="NaN or infinity as ctc_logits"):
        made()(broken)


@pytest.mark.parametrize("written", ["A,B", "[]", "[1]", '{"A": 1}'])
def test_tokens_that_are_no_list(written: str) -> None:
    """A parameter that is no list of texts is named with its value."""
    with pytest.raises(ConfigurationError, match=r"tokens = .* is not a JSON list of texts"):
        made(tokens=written)


def test_another_vocabulary() -> None:
    """A network of another vocabulary is not spelled by this one."""
    with pytest.raises(ConfigurationError, match="names 2 tokens, but the encoder knows 6"):
        made(tokens='["<pad>", "A"]')(frames([2]))
