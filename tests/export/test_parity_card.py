"""The parity card."""

import io
import json

import pytest
from rich.console import Console

from sensorium_export.judgement import Failure, Figures
from sensorium_export.parity_card import (
    STAGE_WAYS,
    TASK_WAYS,
    Card,
    failure_lines,
    markdown_from,
    stage_rows,
    table_from,
    task_rows,
)
from sensorium_export.tolerance import Tolerance, Tolerances

TOLERANCE = Tolerance(stage=1e-5, score=1e-4, embedding=1e-5, cosine=0.999999, time_s=1e-3, level=2)
ANSWERS = Figures(inputs=200, different=31, equal=200, max_score=2e-7)
VECTORS = Figures(inputs=200, different=200, equal=200, max_embedding=3e-7, min_cosine=1.0)
PIXELS = Figures(inputs=200, different=200, equal=200, max_abs=1e-7, max_rel=1e-8)
IDS = Figures(inputs=200, different=44, equal=200)
EVENTS = Figures(inputs=200, different=190, equal=200, max_score=2e-7, max_time=1e-4)
DRAWINGS = Figures(inputs=200, different=200, equal=200, max_level=1.0)


@pytest.fixture
def card() -> Card:
    """A card on which everything is equal."""
    return Card(
        "playroom",
        Tolerances(TOLERANCE),
        tasks={
            "visual_question_answering": dict.fromkeys(TASK_WAYS, ANSWERS),
            "image_embedding": dict.fromkeys(TASK_WAYS, VECTORS),
            "event_detection": dict.fromkeys(TASK_WAYS, EVENTS),
            "text_to_image": dict.fromkeys(TASK_WAYS, DRAWINGS),
        },
        stages={
            "image_preprocess": dict.fromkeys(STAGE_WAYS, PIXELS),
            "text_preprocess": dict.fromkeys(STAGE_WAYS, IDS),
            "text_decoder": dict.fromkeys(STAGE_WAYS, ANSWERS),
        },
    )


@pytest.fixture
def failed() -> Card:
    """A card on which one answer in a batch is wrong."""
    failures = [Failure("fusion/fused_tokens", "alone", str(n), "wrong") for n in range(20)]
    broken = Figures(inputs=200, different=31, equal=180, max_score=0.5, failures=failures)
    return Card("playroom", Tolerances(TOLERANCE), {"image_captioning": {"gRPC": broken}}, {})


def test_row_of_a_task(card: Card) -> None:
    """Each way's equal answers stand beside PyTorch's, then the differences and the verdict."""
    _, (answers, vectors, events, drawings) = task_rows(card)

    assert answers == (
        *("visual_question_answering", "200", "31", "200", "200", "200", "200"),
        *("2.0e-07", "·", "0.0001", "pass"),
    )
    assert vectors[-4:] == ("3.0e-07", "1.000000", "1e-05, 0.999999", "pass")
    assert events[-4:] == ("2.0e-07, 1.0e-04 s", "·", "0.0001, 0.001 s", "pass")
    assert drawings[-4:] == ("1.0e+00 levels", "·", "2 levels", "pass")


def test_rows_of_stages_have_the_tolerance_that_applies(card: Card) -> None:
    """Arrays are relative, scores absolute, whole numbers equal."""
    _, rows = stage_rows(card)

    assert [(row[0], *row[-4:]) for row in rows] == [
        ("image_preprocess", "1.0e-07", "1.0e-08", "1e-05", "pass"),
        ("text_preprocess", "·", "·", "equal", "pass"),
        ("text_decoder", "2.0e-07", "·", "0.0001", "pass"),
    ]


def test_everything_equal_is_a_pass(card: Card) -> None:
    """A card passes when every way of every row does."""
    assert card.has_passed
    assert failure_lines(card) == []


def test_one_failure_fails_the_card(failed: Card) -> None:
    """The row says so, and the first failures are listed with how many more there are."""
    _, rows = task_rows(failed)

    assert not failed.has_passed
    assert rows[0][-1] == "FAIL"
    assert failure_lines(failed)[0] == "fusion/fused_tokens (alone) for the input '0': wrong"
    assert failure_lines(failed)[-1] == "… and 8 more"


def test_markdown_is_a_table_that_renders(card: Card) -> None:
    """Every row has as many cells as the header, with the bars of |Δ| escaped."""
    lines = markdown_from(card).splitlines()
    rows = [line.replace("\\|", "") for line in lines if line.startswith("|")]

    assert lines[0].startswith("**Every answer is PyTorch's.**")
    assert {row.count("|") for row in rows[:6]} == {12}
    assert {row.count("|") for row in rows[6:]} == {10}


def test_markdown_of_a_failure_says_so(failed: Card) -> None:
    """The card cannot be mistaken for a proof."""
    assert markdown_from(failed).startswith("**Not every answer is PyTorch's.**")


def test_card_becomes_json(card: Card) -> None:
    """Everything measured is there for programs."""
    values = json.loads(json.dumps(card.to_dict()))

    assert values["passed"] is True
    assert values["tasks"]["visual_question_answering"]["gRPC"]["equal"] == 200
    assert values["tolerance"]["stage"] == 1e-5


def test_table_shows_every_row(card: Card, failed: Card) -> None:
    """The terminal shows what the card says."""
    console = Console(record=True, width=160, file=io.StringIO())
    console.print(table_from("Tasks", *task_rows(card)))
    console.print(table_from("Tasks", *task_rows(failed)))
    shown = console.export_text()

    assert "image_embedding" in shown
    assert "FAIL" in shown
