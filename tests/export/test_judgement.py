"""Judging outputs by what they mean."""

import io

import numpy as np
from PIL import Image

from sensorium.errors import ServerError
from sensorium_export.agreement import Outputs
from sensorium_export.compare import least_cosine
from sensorium_export.judgement import Judge, judged
from sensorium_export.tolerance import Tolerance

TOLERANCE = Tolerance(stage=1e-3, score=1e-2, embedding=1e-3, cosine=0.99, time_s=1e-2, level=2)
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


def tags(*pairs: tuple[str, float]) -> Outputs:
    """Return tags as a stage does."""
    return {
        "labels": np.array([[label.encode() for label, _ in pairs]], object),
        "scores": np.array([[score for _, score in pairs]], np.float32),
    }


def events(*found: tuple[str, float, float]) -> Outputs:
    """Return events as a stage does, all with the same score."""
    times = np.array([[one[1:] for one in found]], np.float32).reshape(1, len(found), 2)
    return {
        **tags(*((label, 0.7) for label, _, _ in found)),
        "start_s": times[..., 0],
        "end_s": times[..., 1],
    }


def test_equally_probable_tags_may_stand_in_either_order() -> None:
    """Rounding decides which of two equal scores is first; that is no other answer."""
    wanted = tags(("bell", 0.905), ("drum", 0.9), ("bark", 0.1))

    swapped = tags(("drum", 0.9), ("bell", 0.9), ("bark", 0.1))
    other = tags(("drum", 0.9), ("bark", 0.5), ("bell", 0.1))
    figures = judged(judge(), ["swapped", "other"], [wanted] * 2, [swapped, other])

    assert figures.equal == 1
    assert figures.failures[0].where == "visual_question_answering/scores"


def test_tags_that_are_not_sorted_fail() -> None:
    """Best first is a promise."""
    wanted = tags(("bell", 0.9), ("drum", 0.1))

    figures = judged(judge(), ["a"], [wanted], [tags(("drum", 0.1), ("bell", 0.9))])

    assert figures.failures[0].found == "not sorted, best first"


def test_events_may_differ_by_a_little_time() -> None:
    """Start and end have a tolerance of their own; empty labels fill up rows."""
    wanted = events(("bell", 0.5, 1.0), ("drum", 0.5, 2.0))

    near = events(("drum", 0.499, 2.0), ("bell", 0.5, 1.005), ("", 0.0, 0.0))
    late = events(("bell", 0.5, 1.0), ("drum", 0.6, 2.0))
    figures = judged(judge(), ["near", "late"], [wanted] * 2, [near, late])

    assert figures.equal == 1
    assert round(figures.max_time or 0, 3) == 0.1
    assert [(one.where.split("/")[1], one.found) for one in figures.failures] == [
        ("start_s", "|Δ| in seconds 0.1, at most 0.01 allowed")
    ]


def test_missing_event_fails() -> None:
    """Another number of events is another answer; none is equal to none."""
    one, none = events(("bell", 0.5, 1.0)), events()

    assert not judged(judge(), ["a"], [one], [none]).has_passed
    assert judged(judge(), ["a"], [none], [none]).has_passed


def picture(level: int, size: int = 4) -> Outputs:
    """Return a plain picture's file."""
    file = io.BytesIO()
    Image.new("RGB", (size, size), (level, 10, 10)).save(file, "PNG")
    return {"image": np.array([[file.getvalue()]], object)}


def test_pictures_are_compared_by_their_levels() -> None:
    """Rounding may move a channel by a level or two; more is another picture."""
    found = [picture(102), picture(103), picture(100, size=5)]

    figures = judged(judge(), ["near", "far", "large"], [picture(100)] * 3, found)

    assert figures.equal == 1
    assert figures.max_level == 3.0
    assert figures.failures[0].found == "|Δ| in levels 3, at most 2 allowed"
    assert figures.failures[1].found == "shape [1, 5, 5, 3], expected [1, 4, 4, 3]"


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
