"""The default bundle as it is committed, under bad input and many clients."""

from pathlib import Path

import pytest

from sensorium import Client
from sensorium.errors import InvalidInputError
from sensorium.results import Answer
from sensorium_server.launch import Endpoints

pytestmark = pytest.mark.triton

PICTURE = (Path(__file__).parents[2] / "docs/images/playroom-127.jpg").read_bytes()
QUESTION = "what color is the large star?"


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_bad_pictures_cost_nobody_else_an_answer(playroom: Endpoints, protocol: str) -> None:
    """Among hundreds of damaged pictures every good one is answered right, and the server stays."""
    asked = [(PICTURE[:3000] if i % 3 else PICTURE, QUESTION) for i in range(600)]
    with Client(getattr(playroom, protocol), timeout_s=60) as client:
        answers = client.ask_many(asked, concurrency=16)
        again = client.ask(PICTURE, QUESTION)

    for index, answer in enumerate(answers):
        if index % 3:
            assert isinstance(answer, InvalidInputError)
        else:
            assert isinstance(answer, Answer)
            assert answer.text == "orange"
    assert again.text == "orange"


def test_foreign_question_is_not_guessed(playroom: Endpoints) -> None:
    """A question outside the grammar gets "I don't know"."""
    with Client(playroom.grpc) as client:
        answer = client.ask(PICTURE, "who painted this and why?")

    assert answer.text == "I don't know"
    assert answer.score > 0.5
