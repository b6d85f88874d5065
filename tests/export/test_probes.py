"""Pictures and questions drawn from seeds, and what each task is given of them."""

import io
import json
import shutil
from pathlib import Path

import pytest
from PIL import Image
from tokenizers import Tokenizer

from sensorium.contract import TASKS
from sensorium.errors import ConfigurationError
from sensorium_export.checkpoint import Checkpoint
from sensorium_export.probes import WAYS, drawn_picture, probes, questions_of


def test_same_seed_draws_the_same_pictures() -> None:
    """A verification can be repeated, and another seed is another one."""
    assert drawn_picture(0, 5) == drawn_picture(0, 5)
    assert drawn_picture(0, 5) != drawn_picture(1, 5)


def test_every_way_to_store_a_picture_is_among_them() -> None:
    """Two hundred probes hold each way several times, in several sizes."""
    drawn = probes(200, ["what color is it?"], media=())
    formats = {Image.open(io.BytesIO(probe.image)).format for probe in drawn}
    modes = {Image.open(io.BytesIO(probe.image)).mode for probe in drawn}
    sizes = {Image.open(io.BytesIO(probe.image)).size for probe in drawn}

    assert formats == {"JPEG", "PNG", "WEBP", "GIF"}
    assert modes >= {"RGB", "RGBA", "L", "P", "CMYK", "I;16"}
    assert {(1, 1), (500, 375), (241, 97)} <= sizes
    assert all(sum(way in probe.name for probe in drawn) > 5 for way in WAYS)


def test_names_are_unique() -> None:
    """A name in a report finds one input."""
    drawn = probes(200, ["what color is it?"], media=())

    assert len({probe.name for probe in drawn}) == 200


def test_questions_are_dealt_out_in_turn() -> None:
    """Every question is asked when there are pictures enough."""
    assert [probe.question for probe in probes(3, ["a", "b"], media=())] == ["a", "b", "a"]


def test_real_pictures_are_used_as_well(tmp_path: Path) -> None:
    """A folder's picture files join, its other files do not."""
    Image.new("RGB", (8, 8)).save(tmp_path / "b.PNG")
    Image.new("RGB", (8, 8)).save(tmp_path / "a.jpg")
    (tmp_path / "notes.txt").write_text("no picture")

    assert [probe.name for probe in probes(0, ["a"], tmp_path, media=())] == ["a.jpg", "b.PNG"]


def test_each_task_is_given_its_inputs() -> None:
    """Every input of the contract has a value; one of two media may be missing."""
    drawn = probes(3, ["what color is it?"])

    for task, signature in TASKS.items():
        for probe in drawn:
            assert probe.given(task).keys() == {spec.name for spec in signature.inputs}
    given = [probe.given("event_detection") for probe in drawn]
    assert [(bool(one["video"]), bool(one["audio"])) for one in given] == [
        *((True, True), (False, True), (True, False))
    ]
    assert all(probe.given("video_captioning")["video"] for probe in drawn)


def test_media_that_nobody_asks_about_are_not_drawn() -> None:
    """A bundle of text and images needs no sounds and clips."""
    (probe,) = probes(1, ["what color is it?"], media={"image", "question"})

    assert probe.audio == probe.video == b""
    assert ";" not in probe.name


def test_missing_folder_is_no_pictures(tmp_path: Path) -> None:
    """The default folder of pictures need not exist."""
    assert probes(0, ["a"], tmp_path / "nowhere") == []


def test_hard_texts_are_among_the_questions(toy: Checkpoint) -> None:
    """The longest text, a single word and words that nobody knows are always asked."""
    questions = questions_of(toy.path, 10, max_tokens=16, max_chars=512)
    tokenizer = Tokenizer.from_file(str(toy.tokenizer_path))
    lengths = [len(tokenizer.encode(question).ids) for question in questions]

    assert max(lengths) == 16
    assert min(lengths) == 1
    assert "zyzzyva" in questions
    assert all(length >= 1 for length in lengths)


def test_longest_text_keeps_to_the_limit_of_characters(toy: Checkpoint) -> None:
    """The server refuses what is longer, whatever the model takes."""
    questions = questions_of(toy.path, 10, max_tokens=16, max_chars=20)

    assert 10 < len(questions[0]) <= 20
    assert all(len(question) <= 20 for question in questions)


@pytest.fixture
def checkpoint(toy: Checkpoint, tmp_path: Path) -> Path:
    """A copy of the checkpoint, to add questions to."""
    return shutil.copytree(toy.path, tmp_path / "toy")


def test_checkpoints_own_questions_are_asked(checkpoint: Path) -> None:
    """A checkpoint brings questions that it can answer."""
    (checkpoint / "probes.json").write_text(json.dumps(["what is red?", "is it small?"]))

    assert {"what is red?", "is it small?"} <= set(questions_of(checkpoint, 1, 16, 512))


def test_there_are_as_many_different_texts_as_wanted(toy: Checkpoint) -> None:
    """Words at random fill up, the same ones each time, and in every length."""
    questions = questions_of(toy.path, 200, max_tokens=16, max_chars=512)

    assert len(set(questions)) == len(questions) == 200
    assert questions == questions_of(toy.path, 200, max_tokens=16, max_chars=512)
    assert {len(question.split()) for question in questions} >= set(range(1, 17))


def test_wrong_questions_are_refused(checkpoint: Path) -> None:
    """A probes.json that holds something else is named."""
    (checkpoint / "probes.json").write_text('{"questions": []}')

    with pytest.raises(ConfigurationError, match=r"toy/probes\.json is not a list of texts"):
        questions_of(checkpoint, 1, 16, 512)
