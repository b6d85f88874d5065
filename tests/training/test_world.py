"""The procedural world: same seed same scene, true answers, nothing held out slips in."""

import numpy as np
import pytest

from sensorium_training import dataset
from sensorium_training.tokenizer import UNK_ID, build, vocabulary
from sensorium_training.world.caption import caption, search_text
from sensorium_training.world.phrase import PLURALS, unique_filter, words_from_filter
from sensorium_training.world.picture import COLOR_RGB, render
from sensorium_training.world.question import KINDS, UNKNOWN_ANSWER, ask
from sensorium_training.world.scene import (
    BACKGROUNDS,
    COLORS,
    HELD_OUT_PAIRS,
    RADIUS_RANGES,
    Scene,
    Thing,
)

SCENES = dataset.scenes("validation", 150)
NOUNS = {*PLURALS, *PLURALS.values()}


def scene_of(*things: tuple[int, int, int, int, int]) -> Scene:
    """Build a scene from (shape, color, size, texture, zone) of each thing."""
    made = []
    for shape, color, size, texture, zone in things:
        x, y = (zone % 3 + 0.5) / 3, (zone // 3 + 0.5) / 3
        made.append(Thing(shape, color, size, texture, zone, x, y, sum(RADIUS_RANGES[size]) / 2, 0))
    return Scene(0, tuple(made))


def test_a_seed_is_a_scene_and_a_picture() -> None:
    """The same split and index give the same scene and the same JPEG bytes."""
    assert dataset.scenes("train", 3) == dataset.scenes("train", 3)
    assert dataset.jpeg("test", 5) == dataset.jpeg("test", 5)


def test_splits_differ() -> None:
    """No split repeats another's scenes."""
    first = {split: dataset.scenes(split, 20) for split in dataset.SPLITS}

    assert all(first["train"] != first[split] for split in dataset.SPLITS if split != "train")


def test_held_out_pairs_are_only_where_they_belong() -> None:
    """Training pictures never show a held-out colour and shape; the held-out split always does."""
    for scene in dataset.scenes("train", 500):
        assert not {thing.pair for thing in scene.things} & HELD_OUT_PAIRS
    for scene in dataset.scenes("held_out_pairs", 100):
        assert {thing.pair for thing in scene.things} & HELD_OUT_PAIRS


def test_things_do_not_touch() -> None:
    """Any two things keep apart by more than their radii."""
    for scene in SCENES:
        for i, a in enumerate(scene.things):
            for b in scene.things[:i]:
                assert np.hypot(a.x - b.x, a.y - b.y) > a.radius + b.radius


@pytest.mark.parametrize("size", [64, 128, 301])
def test_a_thing_is_painted_in_its_color_where_it_stands(size: int) -> None:
    """A large solid circle's centre shows its ink at every picture size."""
    for color in range(len(COLORS)):
        picture = render(scene_of((0, color, 1, 0, 8)), np.random.default_rng(0), size)
        center = picture[int(size * 5 / 6), int(size * 5 / 6)].astype(float)
        nearest = np.linalg.norm(COLOR_RGB - center, axis=1).argmin()

        assert picture.shape == (size, size, 3)
        assert nearest == color


def test_textures_change_the_picture_inside_only() -> None:
    """A striped thing differs from a solid one, and only within its outline."""
    solid, striped = (
        render(scene_of((1, 0, 1, texture, 4)), np.random.default_rng(3), 128).astype(int)
        for texture in (0, 1)
    )
    changed = np.abs(solid - striped).max(-1) > 30

    assert changed.sum() > 200
    assert not changed[:40].any()
    assert not changed[:, :40].any()


def test_unique_filter_names_one_thing() -> None:
    """The phrase that refers to a thing fits no other thing of the scene."""
    rng = np.random.default_rng(1)
    scene = scene_of((0, 0, 0, 0, 0), (0, 1, 0, 0, 1), (1, 0, 1, 2, 5))
    for index in range(3):
        wanted = unique_filter(rng, scene, index)
        assert wanted is not None
        fitting = [
            i
            for i, thing in enumerate(scene.things)
            if all(getattr(thing, name) == value for name, value in wanted.items())
        ]
        assert fitting == [index]


def test_words_say_the_filter() -> None:
    """A phrase holds its adjectives, its noun where it says, and its place."""
    wanted = {"size": 1, "color": 0, "shape": 3, "zone": 0}
    words, noun = words_from_filter(np.random.default_rng(0), wanted)

    assert words[noun] == "star"
    assert "red" in words[:noun]
    assert words[-2:] == ["top", "left"]


@pytest.mark.parametrize("kind", KINDS)
def test_questions_are_well_formed(kind: str) -> None:
    """Each kind makes questions whose nouns are nouns and whose answers are in the vocabulary."""
    rng, known = np.random.default_rng(2), vocabulary()
    made = [question for scene in SCENES if (question := ask(rng, scene, kind))]

    assert len(made) > len(SCENES) / 3
    for question in made:
        assert set(question.words) <= set(known)
        assert all(question.words[at] in NOUNS for at, _ in question.nouns)
        assert question.answer == UNKNOWN_ANSWER or set(question.answer.split()) <= set(known)


def answers(scene: Scene, kind: str, count: int = 300) -> set[tuple[str, str]]:
    """Ask many questions and collect (question, answer)."""
    rng = np.random.default_rng(7)
    made = [ask(rng, scene, kind) for _ in range(count)]
    return {(" ".join(q.words), q.answer) for q in made if q}


def test_answers_are_true() -> None:
    """On a scene known by hand, questions of each kind get the answers of a person."""
    scene = scene_of((3, 0, 1, 1, 0), (0, 5, 0, 0, 2), (0, 3, 0, 2, 7))

    assert ("what color is the star", "red") in answers(scene, "color")
    assert ("what shape is the blue thing", "circle") in answers(scene, "shape")
    assert ("what size is the star", "large") in answers(scene, "size")
    assert ("what texture is the star", "striped") in answers(scene, "texture")
    assert ("what color is the background", "black") in answers(scene, "background")
    assert ("is there a circle", "yes") in answers(scene, "exist")
    assert ("where is the star", "top left") in answers(scene, "where")
    assert ("what color is the bottommost thing", "green") in answers(scene, "extreme")
    assert ("how many circles are there", "2") in answers(scene, "count")


def two_phrase(scene: Scene, kind: str, word: str) -> set[str]:
    """Collect answers to many questions with `word` about the first thing and another."""
    rng = np.random.default_rng(8)
    made = [question for _ in range(400) if (question := ask(rng, scene, kind))]
    return {q.answer for q in made if word in q.words and q.nouns[0][1] == [0]}


def test_answers_about_two_things_are_true() -> None:
    """The first thing is leftmost, the only large one and alone in its shape."""
    scene = scene_of((3, 0, 1, 1, 0), (0, 5, 0, 0, 2), (0, 3, 0, 0, 7))

    assert two_phrase(scene, "relation", "left") == {"yes"}
    assert two_phrase(scene, "relation", "right") == {"no"}
    assert two_phrase(scene, "relation", "below") == {"no"}
    assert two_phrase(scene, "same", "size") == {"no"}
    assert ("are there more circles than stars", "yes") in answers(scene, "compare", 900)


def test_caption_names_everything_in_reading_order() -> None:
    """A caption lists each thing with all attributes, then the background."""
    scene = scene_of((3, 0, 1, 1, 0), (0, 5, 0, 0, 5))

    assert " ".join(caption(scene)) == (
        "a large red striped star at the top left and a small blue solid circle at the right "
        f"on a {BACKGROUNDS[0]} background"
    )


def test_search_texts_are_true_of_their_scene() -> None:
    """A partial description fits the scene that it was made from."""
    rng = np.random.default_rng(3)

    assert all(search_text(rng, scene).describes(scene) for scene in SCENES)


def test_tokenizer_folds_case_and_punctuation_and_marks_foreign_words() -> None:
    """Users' spelling reaches the vocabulary; other words become [UNK]."""
    words = vocabulary()
    tokenizer = build(words)

    assert tokenizer.encode("What COLOR is the star?").tokens == [
        "what",
        "color",
        "is",
        "the",
        "star",
    ]
    assert tokenizer.encode("zebra").ids == [UNK_ID]
