"""Questions about a picture and a sound together; what is missing nobody can know."""

from collections.abc import Callable, Mapping
from functools import cache
from types import MappingProxyType

import numpy as np

from sensorium_training.world.phrase import (
    PLURALS,
    SYNONYMS,
    VALUES,
    Filter,
    filter_of,
    matches,
    near_miss,
    words_from_filter,
)
from sensorium_training.world.question import UNKNOWN_ANSWER, Question, ask_any
from sensorium_training.world.scene import Scene, draw_scene
from sensorium_training.world.sound import SoundScene
from sensorium_training.world.sound_phrase import SOUND_NAMES, absent, heard, sound_phrase
from sensorium_training.world.sound_question import SOUND_WORDS, ask_any_sound, unheard
from sensorium_training.world.template import (
    Phrase,
    Templates,
    choose,
    fixed_words,
    say,
    toss,
    weighted,
    words_of,
    yes_no,
)

Rng = np.random.Generator
Maker = Callable[[Rng, Scene, SoundScene], Question | None]

TEMPLATES: Templates = MappingProxyType(
    {
        "both": ("is there a {a} and a {b}",),
        "see_and_hear": ("do you see a {a} and hear a {b}", "can you see a {a} and hear a {b}"),
        "either": ("is there a {a} or a {b}",),
        "see_or_hear": ("do you see a {a} or hear a {b}", "can you see a {a} or hear a {b}"),
        "more": ("are there more {a} than {b}",),
        "fewer": ("are there fewer {a} than {b}",),
    }
)
_MORE_SHARE = 0.56
"""How often "yes" is looked for; it is found less often, and both shall be even."""

_LOOKS = ("size", "color", "texture", "shape")


def _thing_phrase(rng: Rng, scene: Scene, wanted: Filter, *, many: bool = False) -> Phrase:
    words, noun = words_from_filter(rng, wanted, plural=many)
    return Phrase(words, noun, matches(scene, wanted), "image")


def _exist(kind: str, link: str) -> Maker:
    """Return the maker of questions after one thing `link` ("and", "or") one sound."""

    def make(rng: Rng, scene: Scene, sounds: SoundScene) -> Question | None:
        seen, audible = toss(rng), toss(rng)
        thing = scene.things[int(rng.integers(len(scene.things)))]
        wanted = filter_of(rng, thing, _LOOKS, int(rng.integers(1, 4))) if seen else None
        wanted = wanted or near_miss(rng, scene)
        if wanted is None or bool(matches(scene, wanted)) != seen:
            return None
        heard_kinds = [event.kind for event in sounds.events]
        sound = choose(rng, heard_kinds if audible else absent(sounds))
        phrases = [_thing_phrase(rng, scene, wanted), sound_phrase(rng, sounds, sound)]
        apart = toss(rng, 0.4)
        if not apart and toss(rng):
            phrases.reverse()
        ways = TEMPLATES[(f"see_{link}_hear") if apart else kind.removesuffix("_exist")]
        truth = seen and audible if link == "and" else seen or audible
        return say(rng, kind, yes_no(truth), ways, *phrases)

    return make


def _more(rng: Rng, scene: Scene, sounds: SoundScene) -> Question | None:
    truth, word = toss(rng, _MORE_SHARE), "more" if toss(rng, 0.7) else "fewer"
    thing_first = toss(rng)
    for _ in range(8):
        thing = scene.things[int(rng.integers(len(scene.things)))]
        wanted = filter_of(rng, thing, _LOOKS, choose(rng, (0, 1, 1, 2)))
        kind = None if toss(rng, 0.4) else choose(rng, [event.kind for event in sounds.events])
        counts = len(matches(scene, wanted)), len(heard(sounds, kind))
        difference = counts[0] - counts[1] if thing_first else counts[1] - counts[0]
        if (difference > 0 if word == "more" else difference < 0) == truth:
            break
    else:
        return None
    phrases = [
        _thing_phrase(rng, scene, wanted, many=True),
        sound_phrase(rng, sounds, kind, many=True),
    ]
    if not thing_first:
        phrases.reverse()
    question = say(rng, "more", yes_no(truth), TEMPLATES[word], *phrases)
    question.relation = (question.words.index(word), difference / 5, 0.0)
    return question


def _visual(rng: Rng, scene: Scene, _: SoundScene) -> Question:
    question = ask_any(rng, scene)
    question.kind = "visual"
    return question


def _audible(rng: Rng, _: Scene, sounds: SoundScene) -> Question:
    question = ask_any_sound(rng, sounds)
    question.kind = "audible"
    return question


JOINT_KINDS: Mapping[str, Maker] = MappingProxyType(
    {
        "visual": _visual,
        "audible": _audible,
        "both_exist": _exist("both_exist", "and"),
        "either_exist": _exist("either_exist", "or"),
        "more": _more,
    }
)
JOINT_WEIGHTS: Mapping[str, float] = MappingProxyType(
    {"visual": 1.0, "audible": 1.0, "both_exist": 0.8, "either_exist": 0.8, "more": 1.0}
)
"""How often training asks each kind."""

JOINT_WORDS = frozenset(
    fixed_words(TEMPLATES)
    | SOUND_NAMES
    | SOUND_WORDS
    | words_of((*PLURALS, *PLURALS.values()))
    | {word for name in _LOOKS for word in VALUES[name]}
    | {word for words in SYNONYMS.values() for word in words}
)
"""Every word of these questions and their answers that picture questions do not have."""


@cache
def _pool() -> tuple[Scene, ...]:
    rng = np.random.default_rng(0)
    return tuple(draw_scene(rng) for _ in range(200))


def ask_joint(
    rng: Rng, scene: Scene | None, sounds: SoundScene | None, kind: str
) -> Question | None:
    """Return a question of `kind` about picture and sound, or None when none was found.

    What is None is missing: questions that need it are asked as if it were there, and answered
    "I don't know".
    """
    pool = _pool()
    seen = scene or pool[int(rng.integers(len(pool)))]
    question = JOINT_KINDS[kind](rng, seen, sounds or unheard(rng))
    needed = {"visual": {"image"}, "audible": {"audio"}}.get(kind, {"image", "audio"})
    missing = {"image"} if scene is None else set()
    missing |= {"audio"} if sounds is None else set()
    if question is not None and needed & missing:
        question.answer, question.relation = UNKNOWN_ANSWER, None
        question.nouns = [
            (at, [] if about in missing else matched)
            for (at, matched), about in zip(question.nouns, question.about, strict=True)
        ]
    return question


def ask_any_joint(rng: Rng, scene: Scene | None, sounds: SoundScene | None) -> Question:
    """Return a question of a random kind, drawn by `JOINT_WEIGHTS`."""
    while True:
        question = ask_joint(rng, scene, sounds, weighted(rng, JOINT_WEIGHTS))
        if question is not None:
            return question
