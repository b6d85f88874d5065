"""Questions about and captions of clips: true answers, even answers, nothing endless."""

import re
from collections import Counter
from collections.abc import Callable
from functools import cache

import numpy as np
import pytest

from sensorium_training.world.clip_caption import clip_caption, clip_search_text
from sensorium_training.world.clip_phrase import BASE_FORMS
from sensorium_training.world.clip_question import (
    CLIP_KINDS,
    CLIP_WEIGHTS,
    CLIP_WORDS,
    ask_any_clip,
    ask_clip,
)
from sensorium_training.world.motion import ACTIONS, Actor, Clip, draw_clip
from sensorium_training.world.phrase import PLURALS, SYNONYMS
from sensorium_training.world.question import UNKNOWN_ANSWER
from sensorium_training.world.scene import BACKGROUNDS, COLORS, SHAPES, SIZES, ZONES, Thing
from sensorium_training.world.sound import SOUNDS, SoundEvent, SoundScene

CANONICAL = (
    {said: name for name, ways in SYNONYMS.items() for said in ways}
    | {many: one for one, many in PLURALS.items()}
    | {"object": "thing", "objects": "thing"}
)
NOUNS = {*SHAPES, "thing"}
YES_NO = ("exist", "happens", "order", "collide")
SOUNDTRACK = SoundScene((SoundEvent(SOUNDS.index("bell"), 0.4, 1.0, -10),), -50)


def thing(size: str, color: str, shape: str, x: float, y: float) -> Thing:
    """Build a solid thing."""
    zone = 3 * int(y * 3) + int(x * 3)
    return Thing(
        SHAPES.index(shape), COLORS.index(color), SIZES.index(size), 0, zone, x, y, 0.1, 0.0
    )


def actor(
    look: str, action: str, span: tuple[float, float], at: float, partner: int | None = None
) -> Actor:
    """Build an actor whose place, on the diagonal of the picture, is `at`."""
    size, color, shape = look.split()
    what = thing(size, color, shape, at, at)
    return Actor(what, ACTIONS.index(action), *span, partner)


BY_HAND = Clip(
    1,
    (
        actor("small red star", "moves left", (0.5, 1.5), 0.15),
        actor("large blue circle", "grows", (1.5, 3.0), 0.5),
        actor("small red circle", "stands still", (0.0, 4.0), 0.85),
    ),
    SOUNDTRACK,
)
CRASH = Clip(
    0,
    (
        actor("small red star", "collides", (0.5, 1.5), 0.15, 1),
        actor("large blue circle", "collides", (0.5, 1.5), 0.5, 0),
        actor("small pink ring", "jumps", (2.0, 3.0), 0.85),
    ),
    None,
)
LONELY = Clip(2, (actor("large pink heart", "stands still", (0.0, 4.0), 0.34),), None)


@pytest.fixture(scope="module")
def drawn() -> list[Clip]:
    """Draw many clips."""
    rng = np.random.default_rng(31)
    return [draw_clip(rng) for _ in range(1500)]


def fitting(clip: Clip, words: list[str]) -> list[int]:
    """Return the actors that a phrase's words mean, read word by word."""
    text = " ".join(CANONICAL.get(word, word) for word in words)
    look, _, doing = text.partition(" that ")
    base = {**{b: a for a, b in BASE_FORMS.items()}, **{CANONICAL.get(a, a): a for a in ACTIONS}}
    wanted = set(look.split()) - {"thing", "a", "the", "any"}
    found = []
    for i, one in enumerate(clip.actors):
        values = {SIZES[one.thing.size], COLORS[one.thing.color], SHAPES[one.thing.shape]}
        acts = not doing or ACTIONS[one.action] == base.get(doing, doing)
        if wanted <= values and acts:
            found.append(i)
    return found


def phrases(clip: Clip, words: list[str]) -> list[list[int]]:
    """Return whom the noun phrases after "the" mean, up to and including their nouns."""
    found = []
    for at, word in enumerate(words):
        if word == "the":
            end = next(
                (i for i in range(at, len(words)) if CANONICAL.get(words[i], words[i]) in NOUNS),
                None,
            )
            if end is not None:
                found.append(fitting(clip, words[at + 1 : end + 1]))
    return found


def test_every_kind_has_a_weight() -> None:
    """No kind of question goes unasked."""
    assert set(CLIP_KINDS) == set(CLIP_WEIGHTS)


def truth_action(clip: Clip, words: list[str]) -> str:
    """Answer "what does the red star do"."""
    ((index,),) = phrases(clip, words)
    return ACTIONS[clip.actors[index].action]


def truth_order(clip: Clip, words: list[str]) -> str:
    """Answer "does the red star jump before the blue circle grows"."""
    (one,), (other,) = phrases(clip, words)
    assert BASE_FORMS[ACTIONS[clip.actors[one].action]] in " ".join(words)
    assert " ".join(words).endswith(ACTIONS[clip.actors[other].action])
    earlier = clip.actors[one].start_s < clip.actors[other].start_s
    return "yes" if earlier == ("before" in words) else "no"


def truth_happens(clip: Clip, words: list[str]) -> str:
    """Answer "does the red star jump" and "does anything grow"."""
    said = " ".join(words)
    (action,) = [
        a
        for a, base in BASE_FORMS.items()
        if said.endswith(" " + base) and (base != "circle" or words[-2:] != ["the", "circle"])
    ]
    who = (
        phrases(clip, words[: -len(BASE_FORMS[action].split())])
        if "the" in words
        else [[*range(len(clip.actors))]]
    )
    return "yes" if any(ACTIONS[clip.actors[i].action] == action for i in who[0]) else "no"


def truth_collide(clip: Clip, words: list[str]) -> str:
    """Answer "do the red star and the blue circle collide"."""
    (one,), (other,) = phrases(clip, words)
    return "yes" if clip.actors[one].partner == other else "no"


def truth_hits(clip: Clip, words: list[str]) -> str:
    """Answer "what does the red star hit"."""
    ((one,),) = phrases(clip, words)
    partner = clip.actors[one].partner
    assert partner is not None
    return f"{COLORS[clip.actors[partner].thing.color]} {SHAPES[clip.actors[partner].thing.shape]}"


def truth_where(clip: Clip, words: list[str]) -> str:
    """Answer "where does the red star start"."""
    ((one,),) = phrases(clip, words)
    return ZONES[clip.actors[one].thing.zone]


def truth_actor(clip: Clip, words: list[str]) -> str:
    """Answer "what moves left"."""
    action = next(a for a in ACTIONS if " ".join(words).endswith(f" {a}"))
    (one,) = [x for x in clip.actors if ACTIONS[x.action] == action]
    return f"{COLORS[one.thing.color]} {SHAPES[one.thing.shape]}"


def truth_exist(clip: Clip, words: list[str]) -> str:
    """Answer "is there a red star"."""
    return "yes" if fitting(clip, words[words.index("a") + 1 :]) else "no"


def acting_ends(*, last: bool) -> Callable[[Clip, list[str]], str]:
    """Answer "what happens first" or "what happens last"."""

    def answer(clip: Clip, _: list[str]) -> str:
        acting = [x for x in clip.actors if ACTIONS[x.action] != "stands still"]
        acting.sort(key=lambda x: x.start_s, reverse=last)
        return ACTIONS[acting[0].action]

    return answer


TRUTH: dict[str, Callable[[Clip, list[str]], str]] = {
    "action": truth_action, "order": truth_order, "happens": truth_happens,
    "collide": truth_collide, "hits": truth_hits, "where_clip": truth_where,
    "actor": truth_actor, "exist": truth_exist,
    "first_action": acting_ends(last=False), "last_action": acting_ends(last=True),
    "background": lambda clip, _: BACKGROUNDS[clip.background],
    "clip_unknown": lambda _, __: UNKNOWN_ANSWER,
}  # fmt: skip


@pytest.mark.parametrize("kind", TRUTH)
def test_answers_are_what_the_words_ask_for(kind: str, drawn: list[Clip]) -> None:
    """Reading a question's words and going through the actors gives its answer."""
    rng = np.random.default_rng(32)
    made = [(clip, question) for clip in drawn if (question := ask_clip(rng, clip, kind))]

    assert len(made) > 100
    for clip, question in made:
        assert question.answer == TRUTH[kind](clip, question.words)
        assert question.kind == kind
        assert question.about == ["video"] * len(question.nouns) or kind == "clip_unknown"


@pytest.mark.parametrize("kind", YES_NO)
def test_yes_and_no_are_even(kind: str, drawn: list[Clip]) -> None:
    """Neither answer can be guessed."""
    rng = np.random.default_rng(33)
    answers = Counter(
        question.answer
        for clip in drawn
        for _ in range(2)
        if (question := ask_clip(rng, clip, kind))
    )

    assert set(answers) == {"yes", "no"}
    assert 0.4 < answers["yes"] / answers.total() < 0.6


@cache
def asked(clip: Clip, kind: str) -> set[tuple[str, str]]:
    """Collect (question, answer) of many questions."""
    rng = np.random.default_rng(34)
    made = [ask_clip(rng, clip, kind) for _ in range(4000)]
    return {(" ".join(q.words), q.answer) for q in made if q}


@pytest.mark.parametrize(
    ("clip", "kind", "words", "answer"),
    [
        (BY_HAND, "action", "what does the star do", "moves left"),
        (BY_HAND, "action", "what happens to the blue thing", "grows"),
        (BY_HAND, "actor", "what moves left", "red star"),
        (BY_HAND, "actor", "which thing stands still", "red circle"),
        (BY_HAND, "actor_attribute", "what color is the object that grows", "blue"),
        (BY_HAND, "actor_attribute", "what size is the thing that moves left", "small"),
        (BY_HAND, "color", "what color is the star", "red"),
        (BY_HAND, "shape", "what shape is the blue thing", "circle"),
        (BY_HAND, "size", "how big is the star", "small"),
        (BY_HAND, "exist", "is there a blue circle", "yes"),
        (BY_HAND, "exist", "is there a blue star", "no"),
        (BY_HAND, "happens", "does anything grow", "yes"),
        (BY_HAND, "happens", "does anything jump", "no"),
        (BY_HAND, "happens", "does the star move left", "yes"),
        (BY_HAND, "happens", "does the star grow", "no"),
        (BY_HAND, "clip_count", "how many things are there", "3"),
        (BY_HAND, "clip_count", "how many circles do you see", "2"),
        (BY_HAND, "clip_count", "how many things move left", "1"),
        (BY_HAND, "order", "does the star move left before the blue circle grows", "yes"),
        (BY_HAND, "order", "does the star move left after the blue circle grows", "no"),
        (BY_HAND, "first_action", "what happens first", "moves left"),
        (BY_HAND, "last_action", "what happens last", "grows"),
        (BY_HAND, "collide", "do the star and the blue circle collide", "no"),
        (BY_HAND, "where_clip", "where does the star start", "top left"),
        (BY_HAND, "background", "what color is the background", "gray"),
        (BY_HAND, "sound_track", "is there a bell", "yes"),
        (BY_HAND, "clip_unknown", "what does the square do", UNKNOWN_ANSWER),
        (BY_HAND, "clip_unknown", "what color is the thing that jumps", UNKNOWN_ANSWER),
        (CRASH, "collide", "do the star and the circle collide", "yes"),
        (CRASH, "collide", "does the star hit the ring", "no"),
        (CRASH, "hits", "what does the star hit", "blue circle"),
        (CRASH, "first_action", "what happens first", "collides"),
        (CRASH, "clip_count", "how many objects collide", "2"),
        (CRASH, "sound_track", "is there a bell", "no"),
        (CRASH, "sound_track", "how many sounds are there", "0"),
        (CRASH, "sound_track", "what is the first sound", UNKNOWN_ANSWER),
    ],
)  # fmt: skip
def test_answers_by_hand(clip: Clip, kind: str, words: str, answer: str) -> None:
    """On clips known by hand, questions get the answers of a person."""
    assert {a for w, a in asked(clip, kind) if w == words} == {answer}


def test_sizes_that_change_are_neither_asked_nor_named() -> None:
    """The circle grows: nothing is asked about its size, and no phrase or count relies on it."""
    doubtful = re.compile(
        r"\b(large|big|small|little) (blue )?(thing|object|circle)s?(?! that (move|stand))"
    )
    rng = np.random.default_rng(38)
    made = [ask_any_clip(rng, BY_HAND) for _ in range(4000)]
    answered = [" ".join(q.words) for q in made if q.answer != UNKNOWN_ANSWER]

    assert any("small" in text for text in answered)
    assert not [text for text in answered if doubtful.search(text)]
    assert not any(
        text.startswith(("what size", "how big")) and "blue" in text for text in answered
    )


@pytest.mark.parametrize(
    "kind", ["order", "first_action", "last_action", "collide", "hits", "where_clip"]
)
def test_what_cannot_be_told_is_not_asked(kind: str) -> None:
    """One thing at a zone's border that stands still allows none of these."""
    assert asked(LONELY, kind) == set()


def test_nothing_is_asked_within_the_margin() -> None:
    """Two starts a quarter of a second apart have no order."""
    clip = Clip(
        0,
        (
            actor("small red star", "jumps", (1.0, 2.0), 0.15),
            actor("large blue ring", "grows", (1.25, 2.5), 0.5),
        ),
        None,
    )

    assert not [kind for kind in ("order", "first_action", "last_action") if asked(clip, kind)]


@pytest.mark.parametrize("clip", [BY_HAND, CRASH, LONELY])
def test_any_clip_can_be_asked_about(clip: Clip) -> None:
    """Even a single thing allows many questions, all of known words and well-placed nouns."""
    rng = np.random.default_rng(35)
    made = [ask_any_clip(rng, clip) for _ in range(500)]

    assert len({q.kind for q in made}) > 6
    for question in made:
        assert {*question.words} - {"[UNK]"} <= CLIP_WORDS
        assert len(question.about) == len(question.nouns)
        for (_, matched), about in zip(question.nouns, question.about, strict=True):
            events = clip.sounds.events if clip.sounds else ()
            assert all(i < len(clip.actors if about == "video" else events) for i in matched)


def test_order_tells_the_difference_of_the_starts() -> None:
    """The comparing word carries how much earlier the first actor starts, in clips."""
    rng = np.random.default_rng(36)
    made = [q for _ in range(80) if (q := ask_clip(rng, BY_HAND, "order"))]

    assert {q.relation[1:] for q in made if q.relation} == {(-0.25, 0.0), (0.25, 0.0)}
    assert all(q.relation and q.words[q.relation[0]] in {"before", "after"} for q in made)


def test_caption_tells_every_actor() -> None:
    """Actors stand in order with what they do; a collision is told once."""
    assert " ".join(clip_caption(BY_HAND)) == (
        "a small red star moves left and a large blue circle grows and a small red circle "
        "stands still on a gray background"
    )
    assert " ".join(clip_caption(CRASH)) == (
        "a small red star collides with a large blue circle and a small pink ring jumps "
        "on a black background"
    )


def test_search_texts_tell_clips_apart(drawn: list[Clip]) -> None:
    """A partial description fits its own clip and few others."""
    rng = np.random.default_rng(37)
    texts = [(clip, clip_search_text(rng, clip)) for clip in drawn[:300]]
    fits = [text.describes(other) for _, text in texts for other in drawn[:100]]

    assert all(text.describes(clip) for clip, text in texts)
    assert 0.005 < np.mean(fits) < 0.3
