"""Results of the client as tensors of the contract."""

from typing import Any

import numpy as np
import pytest

from sensorium.contract import TASKS
from sensorium.results import (
    RESULTS,
    Answer,
    Caption,
    Drawing,
    Embedding,
    Event,
    Events,
    Generated,
    Result,
    Tag,
    Tags,
    Timings,
    Transcript,
)
from sensorium_export.served import outputs_of

REST: dict[str, Any] = {"model": "task", "request_id": "1", "timings": Timings(0.1, 0.1, 1)}
EXAMPLES: dict[type[Result], Result] = {
    Answer: Answer(text="red", score=0.5, **REST),
    Caption: Caption(text="a red star", score=0.5, **REST),
    Embedding: Embedding(vector=np.array([0.6, 0.8], np.float32), **REST),
    Tags: Tags(tags=(Tag("bell", 0.9), Tag("drum", 0.1)), **REST),
    Events: Events(events=(Event("bell", 0.5, 1.0, 0.9),), **REST),
    Generated: Generated(text="red", score=0.5, **REST),
    Transcript: Transcript(text="red", score=0.5, **REST),
    Drawing: Drawing(png=b"a picture", **REST),
}


@pytest.mark.parametrize("task", TASKS)
def test_every_output_of_the_contract_is_there(task: str) -> None:
    """Whatever a task's result is, its tensors have the contract's names and ranks."""
    outputs = outputs_of(EXAMPLES[RESULTS[task]])

    assert outputs.keys() == {spec.name for spec in TASKS[task].outputs}
    for spec in TASKS[task].outputs:
        assert outputs[spec.name].ndim == 1 + len(spec.shape)


def test_no_events_are_no_columns() -> None:
    """Silence is an answer too."""
    outputs = outputs_of(Events(events=(), **REST))

    assert {array.shape for array in outputs.values()} == {(1, 0)}


def test_unknown_result_is_our_mistake() -> None:
    """A kind of result that nobody thought of is not passed over."""
    with pytest.raises(TypeError, match="Result has no tensors"):
        outputs_of(Result(**REST))
