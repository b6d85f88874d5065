"""How tasks are made of stages."""

from itertools import pairwise

import pytest

from sensorium.contract import STAGES, TASKS
from sensorium_export.ensembles import ENSEMBLES, OPTIONAL_PARTS, stages_of, tasks_with

PLAIN = {"visual_question_answering", "image_captioning", "text_embedding", "image_embedding"}
HEARD = {"audio_question_answering", "audio_tagging", "audio_visual_question_answering"}
SEEN = {"video_captioning", "action_recognition", "video_embedding"}


def test_every_task_has_a_chain_of_stages_that_exist() -> None:
    """An ensemble is wired for each task of the contract, and each stage is used."""
    assert ENSEMBLES.keys() == TASKS.keys()
    assert set(stages_of(tuple(TASKS))) == STAGES.keys()


@pytest.mark.parametrize("task", TASKS)
def test_each_step_waits_for_the_one_before(task: str) -> None:
    """No two steps ever run at once: each takes something that the one before makes."""
    steps = ENSEMBLES[task]

    for before, step in pairwise(steps):
        assert set(before.outputs.values()) & set(step.inputs.values())


@pytest.mark.parametrize("task", TASKS)
def test_steps_take_and_make_what_their_stages_do(task: str) -> None:
    """Every mapped tensor is the stage's, and no required one is left out."""
    for step in ENSEMBLES[task]:
        signature = STAGES[step.stage]
        required = {spec.name for spec in signature.inputs}
        assert required <= step.inputs.keys()
        assert step.inputs.keys() <= required | {spec.name for spec in signature.optional}
        assert step.outputs.keys() <= {spec.name for spec in signature.outputs}


@pytest.mark.parametrize(
    ("parts", "tasks"),
    [
        ((), PLAIN),
        (("audio_encoder",), PLAIN | HEARD | {"audio_embedding"}),
        (("video_encoder",), PLAIN | SEEN),
        (("image_decoder",), PLAIN | {"text_to_image"}),
        (OPTIONAL_PARTS, set(TASKS)),
    ],
)
def test_parts_decide_the_tasks(parts: tuple[str, ...], tasks: set[str]) -> None:
    """A checkpoint offers what its parts can do, and nothing else."""
    assert set(tasks_with(parts)) == tasks


def test_stages_of_a_plain_checkpoint_are_those_of_text_and_images() -> None:
    """No stage lies in a repository that no task needs."""
    assert stages_of(tasks_with(())) == (
        *("image_preprocess", "text_preprocess", "image_encoder", "text_encoder"),
        *("fusion", "text_decoder"),
    )
