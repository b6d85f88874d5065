"""Questions about and captions of sound scenes: true answers, even answers, nothing endless."""

from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest

from sensorium_training.world.question import UNKNOWN_ANSWER, Question
from sensorium_training.world.sound import CLIP_S, SOUNDS, SoundEvent, SoundScene, draw_sounds
from sensorium_training.world.sound_caption import sound_caption, sound_search_text
from sensorium_training.world.sound_phrase import NAMES, plural
from sensorium_training.world.sound_question import (
    SOUND_KINDS,
    SOUND_WEIGHTS,
    SOUND_WORDS,
    ask_any_sound,
    ask_sound,
)

SURFACE = {
    form: sound for sound, names in NAMES.items() for name in names for form in (name, plural(name))
}
YES_NO = ("heard", "order", "overlap")


def sounds(*events: tuple[str, float, float, float]) -> SoundScene:
    """Build a scene from (sound, start, end, level)."""
    return SoundScene(tuple(SoundEvent(SOUNDS.index(e[0]), *e[1:]) for e in events), -50.0)


BY_HAND = sounds(
    ("bell", 0.2, 1.4, -20), ("bark", 0.9, 1.2, -10),
    ("beep", 1.8, 2.2, -20), ("bark", 3.2, 3.6, -16),
)  # fmt: skip
LONELY = sounds(("drop", 1.3, 1.6, -12))


@pytest.fixture(scope="module")
def drawn() -> list[SoundScene]:
    """Draw many scenes."""
    rng = np.random.default_rng(21)
    return [draw_sounds(rng) for _ in range(2000)]


def named(words: list[str]) -> list[str]:
    """Return the sounds that `words` name, in order, by the longest names first."""
    found, at = [], 0
    while at < len(words):
        for size in (2, 1):
            form = " ".join(words[at : at + size])
            if form in SURFACE:
                found.append(SURFACE[form])
                at += size - 1
                break
        at += 1
    return found


def spans(scene: SoundScene, sound: str) -> list[SoundEvent]:
    """Return the events of `sound`."""
    return [event for event in scene.events if SOUNDS[event.kind] == sound]


def heard(scene: SoundScene, words: list[str]) -> str:
    """Answer "is there a bell"."""
    return "yes" if spans(scene, named(words)[0]) else "no"


def count(scene: SoundScene, words: list[str]) -> str:
    """Answer "how many bells are there"."""
    return str(len(spans(scene, named(words)[0])) if named(words) else len(scene.events))


def order(scene: SoundScene, words: list[str]) -> str:
    """Answer "does the bell come before the drum"."""
    (one,), (other,) = (spans(scene, name) for name in named(words))
    earlier = one.start_s < other.start_s
    return "yes" if earlier == ("before" in words) else "no"


def overlap(scene: SoundScene, words: list[str]) -> str:
    """Answer "do the bell and the drum overlap"."""
    (one,), (other,) = (spans(scene, name) for name in named(words))
    return "yes" if one.start_s < other.end_s and other.start_s < one.end_s else "no"


def neighbour(scene: SoundScene, words: list[str]) -> str:
    """Answer "what comes after the bell"."""
    names = [SOUNDS[event.kind] for event in scene.events]
    return names[names.index(named(words)[0]) + (1 if "after" in words else -1)]


def when(scene: SoundScene, words: list[str]) -> str:
    """Answer "when is the bell heard"."""
    (event,) = spans(scene, named(words)[0])
    middle = (event.start_s + event.end_s) / 2
    return "beginning" if middle < CLIP_S / 3 else "middle" if middle < CLIP_S * 2 / 3 else "end"


def most(value: Callable[[SoundEvent], float]) -> Callable[[SoundScene, list[str]], str]:
    """Answer "what is the loudest sound"."""
    return lambda scene, _: SOUNDS[max(scene.events, key=value).kind]


TRUTH: dict[str, Callable[[SoundScene, list[str]], str]] = {
    "heard": heard, "sound_count": count, "order": order, "overlap": overlap, "next": neighbour,
    "when": when, "first": most(lambda e: -e.start_s), "last": most(lambda e: e.start_s),
    "longest": most(lambda e: e.end_s - e.start_s), "loudest": most(lambda e: e.level_db),
    "sound_unknown": lambda _, __: UNKNOWN_ANSWER,
}  # fmt: skip


def test_every_kind_has_a_truth_and_a_weight() -> None:
    """No kind of question goes unchecked or unasked."""
    assert set(TRUTH) == set(SOUND_KINDS) == set(SOUND_WEIGHTS)


@pytest.mark.parametrize("kind", SOUND_KINDS)
def test_answers_are_what_the_words_ask_for(kind: str, drawn: list[SoundScene]) -> None:
    """Reading a question's words and going through the events gives its answer."""
    rng = np.random.default_rng(22)
    asked = [(scene, question) for scene in drawn if (question := ask_sound(rng, scene, kind))]

    assert len(asked) > 500
    for scene, question in asked:
        assert question.answer == TRUTH[kind](scene, question.words)
        assert question.kind == kind
        assert question.about == ["audio"] * len(question.nouns)


@pytest.mark.parametrize("kind", YES_NO)
def test_yes_and_no_are_even(kind: str, drawn: list[SoundScene]) -> None:
    """Neither answer can be guessed."""
    rng = np.random.default_rng(23)
    answers = Counter(q.answer for scene in drawn if (q := ask_sound(rng, scene, kind)))

    assert set(answers) == {"yes", "no"}
    assert 0.4 < answers["yes"] / answers.total() < 0.6


def asked(scene: SoundScene, kind: str) -> set[tuple[str, str]]:
    """Collect (question, answer) of many questions."""
    rng = np.random.default_rng(24)
    made = [ask_sound(rng, scene, kind) for _ in range(600)]
    return {(" ".join(q.words), q.answer) for q in made if q}


@pytest.mark.parametrize(
    ("kind", "words", "answer"),
    [
        ("heard", "is there a bell", "yes"),
        ("heard", "do you hear a dog bark", "yes"),
        ("heard", "are there any sirens", "no"),
        ("sound_count", "how many sounds do you hear", "4"),
        ("sound_count", "how many barks are there", "2"),
        ("first", "what is the first sound", "bell"),
        ("last", "which sound comes last", "bark"),
        ("next", "what comes after the bell", "bark"),
        ("next", "what is heard before the beep", "bark"),
        ("order", "does the bell come before the beep", "yes"),
        ("order", "is the bell heard after the beep", "no"),
        ("when", "when is the bell heard", "beginning"),
        ("when", "when is the beep heard", "middle"),
        ("longest", "what is the longest sound", "bell"),
        ("loudest", "what is the loudest sound", "bark"),
        ("overlap", "do the bell and the beep overlap", "no"),
        ("sound_unknown", "when does the siren come", UNKNOWN_ANSWER),
    ],
)
def test_answers_by_hand(kind: str, words: str, answer: str) -> None:
    """On a scene known by hand, questions get the answers of a person."""
    found = asked(BY_HAND, kind)

    assert (words, answer) in found
    assert {a for w, a in found if w == words} == {answer}


def test_overlapping_sounds_overlap() -> None:
    """A pair that is heard together for long enough gets a yes."""
    scene = sounds(("horn", 0.5, 1.5, -10), ("hiss", 1.0, 2.0, -10))

    assert {answer for _, answer in asked(scene, "overlap")} == {"yes"}


@pytest.mark.parametrize(
    ("kind", "scene"),
    [
        ("next", LONELY),
        ("order", LONELY),
        ("overlap", LONELY),
        ("when", LONELY),
        ("overlap", sounds(("horn", 0.5, 1.5, -10), ("hiss", 1.45, 2.0, -10))),
        ("longest", sounds(("horn", 0.5, 1.5, -10), ("hiss", 2.0, 2.9, -10))),
        ("loudest", sounds(("horn", 0.5, 1.5, -10), ("hiss", 2.0, 2.9, -13))),
        ("order", sounds(("bark", 0.5, 0.8, -10), ("bark", 2.0, 2.3, -10))),
    ],
)
def test_what_is_too_close_is_not_asked(kind: str, scene: SoundScene) -> None:
    """Within the margins, or with nothing to compare, there is no question."""
    assert asked(scene, kind) == set()


def test_nouns_point_at_their_events() -> None:
    """A noun is a sound's last word, and its matches are the events of that sound."""
    rng = np.random.default_rng(25)
    for _ in range(500):
        question = ask_sound(rng, BY_HAND, "sound_count")
        assert question is not None
        ((at, matched),) = question.nouns
        wanted = named(question.words)
        assert wanted or question.words[at] == "sounds"
        assert matched == [
            i for i, e in enumerate(BY_HAND.events) if not wanted or SOUNDS[e.kind] == wanted[0]
        ]
        assert any(form.split()[-1] == question.words[at] for form in (*SURFACE, "sounds"))


def test_order_tells_the_difference_of_the_starts() -> None:
    """The comparing word carries how much earlier the first sound starts, in clips."""
    rng = np.random.default_rng(26)
    made = [q for _ in range(50) if (q := ask_sound(rng, BY_HAND, "order"))]

    assert {q.relation[1:] for q in made if q.relation} == {(-0.4, 0.0), (0.4, 0.0)}
    assert all(q.relation and q.words[q.relation[0]] in {"before", "after"} for q in made)


@pytest.mark.parametrize(
    "scene", [LONELY, BY_HAND, sounds(*[("bell", i, i + 0.5, -9) for i in range(4)])]
)
def test_any_scene_can_be_asked_about(scene: SoundScene) -> None:
    """Even one sound allows many questions, all of known words."""
    rng = np.random.default_rng(27)
    made: list[Question] = [ask_any_sound(rng, scene) for _ in range(300)]

    assert len({q.kind for q in made}) > 3
    assert all({*q.words} - {"[UNK]"} <= SOUND_WORDS for q in made)


def test_caption_tells_sounds_in_time() -> None:
    """Sounds stand in order with their lengths, joined by "and" where they overlap."""
    assert " ".join(sound_caption(BY_HAND)) == (
        "a long bell at the beginning and a short bark then a short beep then a short bark"
    )


def test_caption_leaves_out_what_is_doubtful() -> None:
    """A length or a place near its border is not told."""
    assert " ".join(sound_caption(sounds(("horn", 1.0, 1.68, -9)))) == "a horn"


def test_captions_mostly_differ(drawn: list[SoundScene]) -> None:
    """Among scenes of two or more sounds nearly every caption is the only one of its kind."""
    captions = Counter(" ".join(sound_caption(s)) for s in drawn[:1200] if len(s.events) > 1)

    assert len(captions) > 0.95 * captions.total()


def test_search_texts_tell_scenes_apart(drawn: list[SoundScene]) -> None:
    """A partial description fits its own scene and few others."""
    rng = np.random.default_rng(28)
    texts = [(scene, sound_search_text(rng, scene)) for scene in drawn[:300]]
    fitting = [text.describes(other) for _, text in texts for other in drawn[:100]]

    assert all(text.describes(scene) for scene, text in texts)
    assert 0.005 < np.mean(fitting) < 0.3


def test_search_texts_keep_the_order() -> None:
    """What says "after" is false of the scene the other way round."""
    rng = np.random.default_rng(29)
    scene = sounds(("horn", 0.5, 0.8, -9), ("hiss", 1.5, 1.8, -9))
    turned = sounds(("hiss", 0.5, 0.8, -9), ("horn", 1.5, 1.8, -9))
    texts = [sound_search_text(rng, scene) for _ in range(200)]
    ordered = [text for text in texts if text.ordered]

    assert {"then", "before", "after"} <= {word for text in ordered for word in text.words}
    assert not any(text.describes(turned) for text in ordered)
    for text in ordered:
        first_named = "hiss" if "after" in text.words else "horn"
        assert next(w for w in text.words if w in {"horn", "hiss"}) == first_named
