"""Questions about picture and sound together, and the vocabulary of all worlds."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from sensorium_training import dataset
from sensorium_training.examples import Words
from sensorium_training.tokenizer import vocabulary
from sensorium_training.world.clip_caption import clip_caption, clip_search_text
from sensorium_training.world.clip_question import ask_any_clip
from sensorium_training.world.joint_question import (
    JOINT_KINDS,
    JOINT_WEIGHTS,
    ask_any_joint,
    ask_joint,
)
from sensorium_training.world.motion import draw_clip
from sensorium_training.world.question import UNKNOWN_ANSWER
from sensorium_training.world.scene import Scene, Thing
from sensorium_training.world.sound import SOUNDS, SoundEvent, SoundScene, draw_sounds
from sensorium_training.world.sound_caption import sound_caption, sound_search_text
from sensorium_training.world.sound_question import ask_any_sound

STAR = Thing(3, 0, 1, 0, 0, 0.16, 0.16, 0.14, 0.0)
CIRCLE = Thing(0, 5, 0, 0, 8, 0.84, 0.84, 0.1, 0.0)
SCENE = Scene(0, (STAR, CIRCLE))
BELLS = SoundScene(
    tuple(SoundEvent(SOUNDS.index("bell"), start, start + 0.4, -10) for start in (0.2, 1.2, 2.2)),
    -50,
)


def pairs(count: int) -> list[tuple[Scene, SoundScene]]:
    """Draw pictures with sounds."""
    rng = np.random.default_rng(41)
    return [(scene, draw_sounds(rng)) for scene in dataset.scenes("validation", count)]


def asked(
    scene: Scene | None, sounds: SoundScene | None, kind: str, count: int = 1500
) -> dict[str, set[str]]:
    """Collect the answers to each of many questions."""
    rng = np.random.default_rng(42)
    found: dict[str, set[str]] = {}
    for _ in range(count):
        question = ask_joint(rng, scene, sounds, kind)
        if question:
            found.setdefault(" ".join(question.words), set()).add(question.answer)
    return found


@pytest.mark.parametrize(
    ("kind", "words", "answer"),
    [
        ("both_exist", "is there a star and a bell", "yes"),
        ("both_exist", "is there a bell and a star", "yes"),
        ("both_exist", "do you see a circle and hear a siren", "no"),
        ("both_exist", "do you see a ring and hear a bell", "no"),
        ("either_exist", "is there a star or a bell", "yes"),
        ("either_exist", "is there a star or a siren", "yes"),
        ("either_exist", "do you see a ring or hear a bell", "yes"),
        ("more", "are there more bells than stars", "yes"),
        ("more", "are there fewer stars than sounds", "yes"),
        ("more", "are there more stars than bells", "no"),
        ("visual", "what color is the star", "red"),
        ("audible", "how many bells are there", "3"),
    ],
)
def test_answers_by_hand(kind: str, words: str, answer: str) -> None:
    """On a picture and a sound known by hand, questions get the answers of a person."""
    assert asked(SCENE, BELLS, kind, 6000)[words] == {answer}


def test_neither_is_a_no() -> None:
    """Where there is neither the thing nor the sound, "or" gets a no, and only there."""
    kinds = Counter[tuple[bool, bool, str]]()
    rng = np.random.default_rng(43)
    for _ in range(3000):
        question = ask_joint(rng, SCENE, BELLS, "either_exist")
        if question:
            matched = dict(zip(question.about, (bool(m) for _, m in question.nouns), strict=True))
            kinds[matched["image"], matched["audio"], question.answer] += 1

    assert {answer for seen, audible, answer in kinds if not (seen or audible)} == {"no"}
    assert {answer for seen, audible, answer in kinds if seen or audible} == {"yes"}


@pytest.mark.parametrize("kind", ["both_exist", "either_exist"])
def test_all_truths_are_equally_often(kind: str) -> None:
    """Thing there or not and sound there or not: each of the four is a quarter."""
    rng = np.random.default_rng(44)
    seen = Counter[tuple[bool, ...]]()
    for scene, sounds in pairs(1500):
        question = ask_joint(rng, scene, sounds, kind)
        if question:
            matched = dict(zip(question.about, (bool(m) for _, m in question.nouns), strict=True))
            seen[matched["image"], matched["audio"]] += 1

    assert len(seen) == 4
    assert all(0.2 < count / seen.total() < 0.3 for count in seen.values())


def test_comparing_is_even_and_true() -> None:
    """Comparing counts things against sounds, with as many yes as no."""
    rng = np.random.default_rng(45)
    answers = Counter[str]()
    for scene, sounds in pairs(1500):
        question = ask_joint(rng, scene, sounds, "more")
        if not question:
            continue
        one, other = (len(matched) for _, matched in question.nouns)
        assert question.answer == (
            "yes" if (one > other if "more" in question.words else one < other) else "no"
        )
        assert question.relation is not None
        assert question.relation[1:] == ((one - other) / 5, 0.0)
        answers[question.answer] += 1

    assert 0.4 < answers["yes"] / answers.total() < 0.6


@pytest.mark.parametrize("kind", JOINT_KINDS)
def test_what_is_missing_nobody_knows(kind: str) -> None:
    """A question that needs what is missing gets "I don't know"; the other kind is answered."""
    rng = np.random.default_rng(46)
    for scene, sounds, other in ((None, BELLS, "audible"), (SCENE, None, "visual")):
        made = [q for _ in range(200) if (q := ask_joint(rng, scene, sounds, kind))]
        answers = {question.answer for question in made}
        gone = "image" if scene is None else "audio"
        assert (answers == {UNKNOWN_ANSWER}) == (kind != other)
        assert not any(
            matched for q in made
            for (_, matched), about in zip(q.nouns, q.about, strict=True) if about == gone
        )  # fmt: skip


def test_every_kind_has_a_weight_and_any_is_asked() -> None:
    """Any pair, even of nothing, can be asked about in every kind."""
    rng = np.random.default_rng(47)

    assert set(JOINT_KINDS) == set(JOINT_WEIGHTS)
    for scene, sounds in ((SCENE, BELLS), (None, BELLS), (SCENE, None), (None, None)):
        made = {ask_any_joint(rng, scene, sounds).kind for _ in range(200)}
        assert made == set(JOINT_KINDS)


def test_picture_questions_say_that_they_are_about_the_image() -> None:
    """Nouns of questions about pictures refer to things."""
    rng = np.random.default_rng(48)
    made = [q for _ in range(300) if (q := ask_joint(rng, SCENE, BELLS, "visual"))]

    assert all(q.about == ["image"] * len(q.nouns) for q in made)
    assert any(q.nouns for q in made)


def test_words_about_pictures_keep_their_ids() -> None:
    """What the trained embeddings know stays in its place; new words follow in order."""
    path = Path(__file__).parents[2] / "checkpoints/playroom/tokenizer.json"
    trained: dict[str, int] = json.loads(path.read_text())["model"]["vocab"]
    known = vocabulary()
    later = [word for word, index in known.items() if index >= 102]

    assert list(known)[101] == "you"
    assert {word: known[word] for word in trained} == trained
    assert later == sorted(later)
    assert sorted(known.values()) == list(range(len(known)))


def test_the_vocabulary_holds_whatever_is_said() -> None:
    """Thousands of questions, answers, captions and search texts of all worlds can be encoded."""
    rng, words = np.random.default_rng(49), Words(vocabulary())
    for scene, sounds in pairs(400):
        clip = draw_clip(rng)
        questions = [ask_any_sound(rng, sounds) for _ in range(3)]
        questions += [ask_any_clip(rng, clip) for _ in range(4)]
        questions += [ask_any_joint(rng, scene, sounds) for _ in range(3)]
        words.questions(questions)
        words.texts([sound_caption(sounds), sound_search_text(rng, sounds).words])
        words.texts([clip_caption(clip), clip_search_text(rng, clip).words])
