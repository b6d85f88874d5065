"""A repository run in this process."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from sensorium.contract import TASKS
from sensorium.errors import InvalidInputError
from sensorium_export.checkpoint import Checkpoint
from sensorium_export.compare import compare
from sensorium_export.probes import Probe, probes, questions_of
from sensorium_export.recipe import Recipe
from sensorium_export.reference import Reference
from sensorium_export.serving_chain import ServingChain
from sensorium_server import settings


@pytest.fixture(scope="module")
def chain(repository: Path) -> Iterator[ServingChain]:
    """The exported bundle, ready to run."""
    with ServingChain(repository, settings.load()) as opened:
        yield opened


@pytest.fixture(scope="module")
def inputs(toy: Checkpoint) -> list[Probe]:
    """Some probes of every kind."""
    return probes(16, questions_of(toy.path, 16, 16, 512))


def request(
    task: str, *batch: Probe
) -> dict[str, "np.ndarray[tuple[int, int], np.dtype[np.object_]]"]:
    """Return a task's inputs for some probes."""
    values = {
        "image": [[probe.image] for probe in batch],
        "question": [[probe.question.encode()] for probe in batch],
        "text": [[probe.question.encode()] for probe in batch],
    }
    return {spec.name: np.array(values[spec.name], object) for spec in TASKS[task].inputs}


@pytest.mark.parametrize("task", TASKS)
def test_tasks_answer_as_pytorch_does(
    task: str, chain: ServingChain, inputs: list[Probe], toy: Checkpoint, recipe: Recipe
) -> None:
    """Bytes in, answer out: the same as the reference's."""
    reference = Reference(toy, recipe)
    for probe in inputs:
        expected = reference.run(probe.image, probe.question).tasks[task]
        actual = chain.task(task, request(task, probe))
        for name, array in expected.items():
            if array.dtype == object:
                assert actual[name].tolist() == array.tolist()
            else:
                assert compare({name: array}, {name: actual[name]}, 1e-4)[0].is_within


@pytest.mark.parametrize("task", TASKS)
def test_many_items_in_one_request_answer_alike(
    task: str, chain: ServingChain, inputs: list[Probe]
) -> None:
    """A request may hold several items of unequal lengths."""
    together = chain.task(task, request(task, *inputs))

    for row, probe in enumerate(inputs):
        alone = chain.task(task, request(task, probe))
        for name, array in alone.items():
            if array.dtype == object:
                assert together[name][row].tolist() == array[0].tolist()
            else:
                assert np.allclose(together[name][row], array[0], atol=1e-5)


def test_stages_batch_requests_of_unequal_lengths(chain: ServingChain) -> None:
    """Requests that share a run get what they would get alone, without padding."""
    requests = [
        {"text": np.array([[text]], object)} for text in (b"red", b"what color is the large star")
    ]
    ids = chain.stage("text_preprocess", requests)

    together = chain.stage("text_encoder", ids)

    assert [one["text_tokens"].shape[1] for one in together] == [1, 6]
    for one, alone in zip(together, ids, strict=True):
        (expected,) = chain.stage("text_encoder", [alone])
        assert np.allclose(one["text_tokens"], expected["text_tokens"], atol=1e-5)


def test_bad_input_raises_what_the_server_would_answer(chain: ServingChain) -> None:
    """Stages refuse here as they refuse behind Triton."""
    with pytest.raises(InvalidInputError, match="image is not a"):
        chain.task("image_embedding", {"image": np.array([[b"no picture"]], object)})
    with pytest.raises(InvalidInputError, match="empty"):
        chain.stage(
            "text_encoder",
            [
                {
                    "input_ids": np.zeros((1, 0), np.int64),
                    "attention_mask": np.zeros((1, 0), np.int64),
                }
            ],
        )
