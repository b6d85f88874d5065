"""Shares of answers that agree."""

import numpy as np
import pytest

from sensorium_export.agreement import Outputs, agreement_of


def text(words: str) -> Outputs:
    """Return a caption's outputs."""
    return {"caption": np.array([[words.encode()]], object), "score": np.zeros((1, 1))}


def tags(*labels: str) -> Outputs:
    """Return tags, best first."""
    names = np.array([[label.encode() for label in labels]], object)
    return {"labels": names, "scores": np.zeros((1, len(labels)))}


def embedding(angle: float) -> Outputs:
    """Return a vector of length 1 in the plane."""
    return {"embedding": np.array([[np.cos(angle), np.sin(angle)]])}


def test_words_at_the_same_place_agree() -> None:
    """Of the longer text's words those count that the other has at the same place."""
    expected = [text("a red star"), text("a cat"), text("")]
    actual = [text("a blue star"), text("a cat sits here"), text("")]

    assert agreement_of(expected, actual)["tokens"] == pytest.approx((2 / 3 + 2 / 4 + 1) / 3)


def test_best_labels_agree() -> None:
    """The order behind the best label does not count."""
    expected = [tags("a", "b", "c"), tags("a", "b", "c")]

    assert agreement_of(expected, [tags("a", "c", "b"), tags("b", "a", "c")]) == {"top1": 0.5}


def test_neighbours_agree() -> None:
    """A turn of all vectors finds the same neighbours, an exchange of some finds others."""
    angles = np.linspace(0, 1, 24) ** 2
    exchanged = angles.copy()
    exchanged[[0, 23]] = exchanged[[23, 0]]
    expected = [embedding(angle) for angle in angles]

    assert agreement_of(expected, [embedding(angle + 1) for angle in angles]) == {"rank": 1.0}
    assert agreement_of(expected, [embedding(angle) for angle in exchanged])["rank"] < 0.95


def test_inputs_without_an_answer_are_left_out() -> None:
    """An error counts elsewhere; where nothing was answered there is no share."""
    assert agreement_of([text("a"), text("b")], [ValueError("x"), text("b")]) == {"tokens": 1.0}
    assert agreement_of([text("a")], [None]) == {}
