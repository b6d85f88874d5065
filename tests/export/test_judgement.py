"""Judging outputs by what they mean."""

import numpy as np

from sensorium.errors import ServerError
from sensorium_export.judgement import Judge, judged, least_cosine
from sensorium_export.recipe import Tolerance

TOLERANCE = Tolerance(stage=1e-3, score=1e-2, embedding=1e-3, cosine=0.99)
EMBEDDING = np.array([[0.6, 0.8]], np.float32)


def texts(*values: str) -> "np.ndarray[tuple[int, ...], np.dtype[np.object_]]":
    """Return texts as a stage does."""
    return np.array([[value.encode()] for value in values], object)


def judge() -> Judge:
    """Return a judge of a task over gRPC."""
    return Judge("visual_question_answering", "gRPC", TOLERANCE)


def test_equal_outputs_pass() -> None:
    """The same text with almost the same score is an equal answer."""
    expected = {"answer": texts("red"), "score": np.array([[0.5]], np.float32)}
    actual = {"answer": np.array([["red"]], object), "score": np.array([[0.505]], np.float32)}

    figures = judged(judge(), ["a"], [expected], [actual])

    assert figures.has_passed
    assert round(figures.max_score or 0, 4) == 0.005
    assert figures.max_abs is None


def test_another_text_fails_and_names_both() -> None:
    """The message says what was answered and what PyTorch says."""
    figures = judged(judge(), ["a"], [{"answer": texts("red")}], [{"answer": texts("blue")}])

    assert not figures.has_passed
    assert str(figures.failures[0]) == (
        "visual_question_answering/answer (gRPC) for the input 'a': ['blue'], PyTorch says ['red']"
    )


def test_score_over_tolerance_fails() -> None:
    """An answer that is right by chance is not equal."""
    figures = judged(
        judge(),
        ["a"],
        [{"score": np.array([[0.5]], np.float32)}],
        [{"score": np.array([[0.6]], np.float32)}],
    )

    assert figures.failures[0].found == "|Δ| 0.1, at most 0.01 allowed"


def test_embedding_is_judged_by_elements_and_direction() -> None:
    """Both a wrong element and a wrong direction fail."""
    turned = np.array([[0.8, 0.6]], np.float32)
    near = EMBEDDING + np.float32(0.005)

    figures = judged(
        judge(),
        ["same", "turned", "near"],
        [{"embedding": EMBEDDING}] * 3,
        [{"embedding": array} for array in (EMBEDDING, turned, near)],
    )

    assert (figures.equal, figures.inputs) == (1, 3)
    assert figures.failures[0].found == "cosine 0.960000, at least 0.99 wanted"
    assert figures.failures[1].found == "|Δ| 0.005, at most 0.001 allowed"
    assert round(figures.min_cosine or 0, 2) == 0.96


def test_numbers_are_judged_relative_to_their_scale() -> None:
    """A stage's output may be of any size."""
    large = np.array([[1000.0, 1.0]], np.float32)

    figures = judged(judge(), ["a"], [{"tokens": large}], [{"tokens": large + np.float32(0.5)}])

    assert figures.has_passed
    assert figures.max_abs == 0.5


def test_whole_numbers_must_be_equal() -> None:
    """Ids and masks have no tolerance."""
    ids = np.array([[1, 2]])

    figures = judged(judge(), ["a"], [{"input_ids": ids}], [{"input_ids": ids + 1}])

    assert figures.failures[0].found == "|Δ| 1, whole numbers must be equal"


def test_errors_and_missing_outputs_fail() -> None:
    """No answer is no equal answer."""
    expected = {"answer": texts("red")}

    figures = judged(judge(), ["a", "b"], [expected] * 2, [ServerError("broken"), {}])

    assert figures.equal == 0
    assert [failure.found for failure in figures.failures] == ["no output: broken", "missing"]


def test_different_outputs_are_counted_without_their_score() -> None:
    """Two hundred times the same answer would prove little, so it shows."""
    expected = [
        {"answer": texts(word), "score": np.array([[score]], np.float32)}
        for word, score in (("red", 0.1), ("red", 0.2), ("blue", 0.3))
    ]

    assert judged(judge(), ["a", "b", "c"], expected, expected).different == 2


def test_nothing_judged_is_nothing_proven() -> None:
    """Zero of zero is no success."""
    assert not judge().figures.has_passed


def test_cosine_of_nothing_is_zero() -> None:
    """A vector of zeros has no direction, and is not taken for a good one."""
    assert least_cosine(EMBEDDING, np.zeros_like(EMBEDDING)) == 0.0
