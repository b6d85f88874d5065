"""A repository run in this process."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from sensorium.errors import InvalidInputError
from sensorium_export.checkpoint import Checkpoint
from sensorium_export.ensembles import ENSEMBLES, stages_of
from sensorium_export.judgement import Judge, judged
from sensorium_export.probes import Probe, probes, questions_of
from sensorium_export.recipe import Recipe
from sensorium_export.reference import Reference, ReferenceRun
from sensorium_export.serving_chain import ServingChain
from sensorium_export.source import NativeSource
from sensorium_export.verify import request_of
from sensorium_server import settings

NATIVE = stages_of(ENSEMBLES.values())


@pytest.fixture(scope="module")
def chain(repository: Path) -> Iterator[ServingChain]:
    """The exported bundle, ready to run."""
    with ServingChain(repository, settings.load()) as opened:
        yield opened


@pytest.fixture(scope="module")
def inputs(toy: Checkpoint) -> list[Probe]:
    """Some probes of every kind."""
    return probes(16, questions_of(toy.path, 16, 16, 512))


@pytest.fixture(scope="module")
def expected(toy: Checkpoint, inputs: list[Probe]) -> list[ReferenceRun]:
    """What PyTorch makes of them."""
    reference = Reference(NativeSource(toy.path, ""))
    return [reference.run(probe) for probe in inputs]


@pytest.mark.parametrize("task", ENSEMBLES)
def test_tasks_answer_as_pytorch_does(
    task: str,
    chain: ServingChain,
    inputs: list[Probe],
    expected: list[ReferenceRun],
    recipe: Recipe,
) -> None:
    """Bytes in, answer out: the same as the reference's."""
    names = [probe.name for probe in inputs]
    answers = [chain.task(task, request_of(task, [probe])) for probe in inputs]

    figures = judged(
        Judge(task, "ONNX", recipe.tolerance), names, [run.tasks[task] for run in expected], answers
    )

    assert [str(failure) for failure in figures.failures] == []
    assert figures.equal == len(inputs)


@pytest.mark.parametrize("stage", NATIVE)
def test_stages_give_what_pytorch_does(
    stage: str, chain: ServingChain, expected: list[ReferenceRun], recipe: Recipe
) -> None:
    """Each stage on PyTorch's own inputs, all together in one batch."""
    runs = [run for one in expected for run in one.stages if run.stage == stage]
    answers = chain.stage(stage, [run.inputs for run in runs])

    figures = judged(
        Judge(stage, "together", recipe.tolerance),
        [str(number) for number in range(len(runs))],
        [run.outputs for run in runs],
        answers,
    )

    assert [str(failure) for failure in figures.failures] == []
    assert figures.different > 1


@pytest.mark.parametrize("task", ENSEMBLES)
def test_many_items_in_one_request_answer_alike(
    task: str, chain: ServingChain, inputs: list[Probe], recipe: Recipe
) -> None:
    """A request may hold several items of unequal lengths."""
    together = chain.task(task, request_of(task, inputs))
    rows = [
        {name: array[row : row + 1] for name, array in together.items()}
        for row in range(len(inputs))
    ]
    alone = [chain.task(task, request_of(task, [probe])) for probe in inputs]

    figures = judged(
        Judge(task, "together", recipe.tolerance), [probe.name for probe in inputs], alone, rows
    )

    assert [str(failure) for failure in figures.failures] == []


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
