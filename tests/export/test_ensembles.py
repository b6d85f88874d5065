"""How tasks are made of stages."""

from itertools import pairwise

import pytest

from sensorium.contract import STAGES, TASKS
from sensorium_export.ensembles import (
    ENSEMBLES,
    NETWORKS,
    OPTIONAL_PARTS,
    Chain,
    chains_with,
    stages_of,
)
from sensorium_export.families.ensembles import FAMILY_ENSEMBLES, WAVEFORM_ENSEMBLES

CHAINS = tuple(
    chain
    for chains in (ENSEMBLES, FAMILY_ENSEMBLES, WAVEFORM_ENSEMBLES)
    for chain in chains.values()
)
PLAIN = {"visual_question_answering", "image_captioning", "text_embedding", "image_embedding"}
HEARD = {"audio_question_answering", "audio_tagging", "audio_visual_question_answering"}
SEEN = {"video_captioning", "action_recognition", "video_embedding"}


def test_every_task_has_a_chain_of_stages_that_exist() -> None:
    """An ensemble is wired for each task of the contract, and each stage is used."""
    assert ENSEMBLES.keys() | FAMILY_ENSEMBLES.keys() == TASKS.keys()
    assert set(stages_of(CHAINS)) == STAGES.keys()


@pytest.mark.parametrize("steps", CHAINS)
def test_each_step_waits_for_the_one_before(steps: Chain) -> None:
    """No two steps ever run at once: each takes something that the one before makes."""
    for before, step in pairwise(steps):
        assert set(before.outputs.values()) & set(step.inputs.values())


@pytest.mark.parametrize("steps", CHAINS)
def test_steps_take_and_make_what_their_stages_do(steps: Chain) -> None:
    """Every mapped tensor is the stage's, and no required one is left out."""
    for step in steps:
        signature = STAGES[step.stage]
        required = {spec.name for spec in signature.inputs}
        if step.stage in NETWORKS:
            required = set()  # a network takes what its chains wire
        assert required <= step.inputs.keys()
        assert step.inputs.keys() <= {
            spec.name for spec in (*signature.inputs, *signature.optional)
        }
        assert step.outputs.keys() <= {spec.name for spec in signature.outputs}


@pytest.mark.parametrize(
    ("parts", "tasks"),
    [
        ((), PLAIN),
        (("audio_encoder",), PLAIN | HEARD | {"audio_embedding"}),
        (("video_encoder",), PLAIN | SEEN),
        (("image_decoder",), PLAIN | {"text_to_image"}),
        (OPTIONAL_PARTS, set(ENSEMBLES)),
    ],
)
def test_parts_decide_the_tasks(parts: tuple[str, ...], tasks: set[str]) -> None:
    """A checkpoint offers what its parts can do, and nothing else."""
    assert chains_with(parts).keys() == tasks


def test_stages_of_a_plain_checkpoint_are_those_of_text_and_images() -> None:
    """No stage lies in a repository that no task needs."""
    assert stages_of(chains_with(()).values()) == (
        *("image_preprocess", "text_preprocess", "image_encoder", "text_encoder"),
        *("fusion", "text_decoder"),
    )
