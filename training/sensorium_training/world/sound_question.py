"""Questions about sound scenes with their answers, and what each noun in them refers to."""

from collections.abc import Callable, Mapping
from functools import cache
from itertools import permutations
from types import MappingProxyType

import numpy as np

from sensorium_training.world.question import UNKNOWN_ANSWER, Question, garbled
from sensorium_training.world.sound import CLIP_S, SOUNDS, SoundScene, draw_sounds
from sensorium_training.world.sound_phrase import (
    PARTS,
    SOUND_NAMES,
    absent,
    alone,
    heard,
    part_of,
    sound_phrase,
)
from sensorium_training.world.template import (
    Phrase,
    Templates,
    choose,
    fixed_words,
    say,
    toss,
    weighted,
    yes_no,
)

MARGIN_S = 0.15
"""Least difference in time that a question may turn on."""

MARGIN_DB = 4.0
OVERLAP_S = 0.12
GAP_S = 0.1
_OVERLAP_SHARE = 0.6
"""How often an overlap is looked for; fewer pairs overlap than not, and both shall be even."""

Rng = np.random.Generator
Maker = Callable[[Rng, SoundScene], Question | None]

TEMPLATES: Templates = MappingProxyType(
    {
        "heard": ("is there a {a}", "do you hear a {a}", "can you hear a {a}"),
        "heard_many": ("are there any {a}", "do you hear any {a}", "can you hear any {a}"),
        "sound_count": (
            "how many {a} are there", "how many {a} do you hear", "how many {a} can you hear",
            "count the {a}",
        ),
        "first": (
            "what is the first {a}", "which {a} comes first", "what {a} do you hear first",
            "what {a} is heard first",
        ),
        "last": (
            "what is the last {a}", "which {a} comes last", "what {a} do you hear last",
            "what {a} is heard last",
        ),
        "longest": ("what is the longest {a}", "which {a} is the longest"),
        "loudest": ("what is the loudest {a}", "which {a} is the loudest"),
        "after": (
            "what comes after the {a}", "what is heard after the {a}",
            "what do you hear after the {a}", "what comes next after the {a}",
        ),
        "before": (
            "what comes before the {a}", "what is heard before the {a}",
            "what do you hear before the {a}",
        ),
        "order_before": (
            "does the {a} come before the {b}", "is the {a} heard before the {b}",
            "do you hear the {a} before the {b}",
        ),
        "order_after": (
            "does the {a} come after the {b}", "is the {a} heard after the {b}",
            "do you hear the {a} after the {b}",
        ),
        "when": (
            "when does the {a} come", "when is the {a} heard", "when do you hear the {a}",
            "when can you hear the {a}",
        ),
        "overlap": (
            "do the {a} and the {b} overlap", "does the {a} overlap the {b}",
            "is the {a} heard during the {b}",
        ),
    }
)  # fmt: skip


def _heard(rng: Rng, scene: SoundScene) -> Question:
    truth, many = toss(rng), toss(rng, 0.25)
    kind = choose(rng, [event.kind for event in scene.events] if truth else absent(scene))
    ways = TEMPLATES["heard_many" if many else "heard"]
    return say(rng, "heard", yes_no(truth), ways, sound_phrase(rng, scene, kind, many=many))


def _count(rng: Rng, scene: SoundScene) -> Question:
    kinds = [event.kind for event in scene.events]
    form = rng.random()
    kind: int | None = None
    if form < 0.3:  # noqa: PLR2004 - shares of three forms, so that no count is rare
        kind = choose(rng, kinds)
    elif form < 0.5:  # noqa: PLR2004
        kind = max(kinds, key=kinds.count)
    elif form < 0.65:  # noqa: PLR2004
        kind = choose(rng, absent(scene))
    answer = str(len(heard(scene, kind)))
    phrase = sound_phrase(rng, scene, kind, many=True)
    return say(rng, "sound_count", answer, TEMPLATES["sound_count"], phrase)


def _outstanding(kind: str, value: Callable[[SoundScene, int], float], margin: float) -> Maker:
    """Return the maker of questions after the sound with the largest `value`."""

    def make(rng: Rng, scene: SoundScene) -> Question | None:
        best = max(range(len(scene.events)), key=lambda i: value(scene, i))
        sound = scene.events[best].kind
        others = [value(scene, i) for i, event in enumerate(scene.events) if event.kind != sound]
        if others and value(scene, best) - max(others) < margin:
            return None
        return say(rng, kind, SOUNDS[sound], TEMPLATES[kind], Phrase(["sound"], 0, [best], "audio"))

    return make


def _start(scene: SoundScene, index: int) -> float:
    return scene.events[index].start_s


def _length(scene: SoundScene, index: int) -> float:
    return scene.events[index].end_s - scene.events[index].start_s


def _next(rng: Rng, scene: SoundScene) -> Question | None:
    """Ask for the neighbour in time of a sound that is heard once."""
    after = toss(rng)
    sign = 1 if after else -1
    found = []
    for index in alone(scene):
        waits = sorted(
            (wait, event.kind)
            for event in scene.events
            if (wait := sign * (event.start_s - _start(scene, index))) > 0
        )
        if (
            waits
            and waits[0][0] >= MARGIN_S
            and (len(waits) == 1 or waits[1][0] - waits[0][0] >= MARGIN_S)
        ):
            found.append((index, waits[0][1]))
    if not found:
        return None
    index, answer = found[int(rng.integers(len(found)))]
    phrase = sound_phrase(rng, scene, scene.events[index].kind)
    return say(rng, "next", SOUNDS[answer], TEMPLATES["after" if after else "before"], phrase)


def _pair(rng: Rng, scene: SoundScene, first: int, second: int) -> tuple[Phrase, Phrase]:
    kinds = scene.events[first].kind, scene.events[second].kind
    return sound_phrase(rng, scene, kinds[0]), sound_phrase(rng, scene, kinds[1])


def _order(rng: Rng, scene: SoundScene) -> Question | None:
    found = [
        pair
        for pair in permutations(alone(scene), 2)
        if abs(_start(scene, pair[0]) - _start(scene, pair[1])) >= MARGIN_S
    ]
    if not found:
        return None
    first, second = found[int(rng.integers(len(found)))]
    word = "before" if toss(rng) else "after"
    difference = _start(scene, first) - _start(scene, second)
    question = say(
        rng, "order", yes_no((difference < 0) == (word == "before")), TEMPLATES[f"order_{word}"],
        *_pair(rng, scene, first, second),
    )  # fmt: skip
    question.relation = (question.words.index(word), difference / CLIP_S, 0.0)
    return question


def _when(rng: Rng, scene: SoundScene) -> Question | None:
    found = [
        (index, PARTS[part])
        for index in alone(scene)
        if (part := part_of(scene.events[index], MARGIN_S)) is not None
    ]
    if not found:
        return None
    index, answer = found[int(rng.integers(len(found)))]
    phrase = sound_phrase(rng, scene, scene.events[index].kind)
    return say(rng, "when", answer, TEMPLATES["when"], phrase)


def _overlap(rng: Rng, scene: SoundScene) -> Question | None:
    truth = toss(rng, _OVERLAP_SHARE)
    found = []
    for first, second in permutations(alone(scene), 2):
        one, other = scene.events[first], scene.events[second]
        common = min(one.end_s, other.end_s) - max(one.start_s, other.start_s)
        if common >= OVERLAP_S if truth else common <= -GAP_S:
            found.append((first, second))
    if not found:
        return None
    phrases = _pair(rng, scene, *found[int(rng.integers(len(found)))])
    return say(rng, "overlap", yes_no(truth), TEMPLATES["overlap"], *phrases)


def _unknown(rng: Rng, scene: SoundScene) -> Question | None:
    """Return what has no answer: absent sounds, foreign words, shuffled or cut questions."""
    form = rng.random()
    if form >= 0.3:  # noqa: PLR2004 - share of questions about absent sounds
        base = None
        while base is None:
            base = SOUND_KINDS[ANSWERABLE[int(rng.integers(len(ANSWERABLE)))]](rng, scene)
        return garbled(rng, base, form, "sound_unknown")
    ways = TEMPLATES[_PRESUMING[int(rng.integers(len(_PRESUMING)))]]
    missing, present = choose(rng, absent(scene)), choose(rng, [e.kind for e in scene.events])
    phrases = [sound_phrase(rng, scene, missing), sound_phrase(rng, scene, present)]
    if "{b}" in ways[0] and toss(rng):
        phrases.reverse()
    return say(rng, "sound_unknown", UNKNOWN_ANSWER, ways, *phrases)


_PRESUMING = ("when", "when", "after", "before", "order_before", "order_after", "overlap")

SOUND_KINDS: Mapping[str, Maker] = MappingProxyType(
    {
        "heard": _heard,
        "sound_count": _count,
        "first": _outstanding("first", lambda scene, i: -_start(scene, i), MARGIN_S),
        "last": _outstanding("last", _start, MARGIN_S),
        "next": _next,
        "order": _order,
        "when": _when,
        "longest": _outstanding("longest", _length, MARGIN_S),
        "loudest": _outstanding("loudest", lambda scene, i: scene.events[i].level_db, MARGIN_DB),
        "overlap": _overlap,
        "sound_unknown": _unknown,
    }
)
ANSWERABLE = tuple(kind for kind in SOUND_KINDS if kind != "sound_unknown")
SOUND_WEIGHTS: Mapping[str, float] = MappingProxyType(
    {
        "heard": 1.0, "sound_count": 1.3, "first": 0.8, "last": 0.8, "next": 1.6, "order": 1.6,
        "when": 1.2, "longest": 0.9, "loudest": 0.9, "overlap": 1.4, "sound_unknown": 0.7,
    }
)  # fmt: skip
"""How often training asks each kind."""

SOUND_WORDS = frozenset(fixed_words(TEMPLATES) | SOUND_NAMES | {"yes", "no", *"012345"})
"""Every word of these questions and their answers."""


@cache
def _pool() -> tuple[SoundScene, ...]:
    rng = np.random.default_rng(0)
    return tuple(draw_sounds(rng) for _ in range(200))


def unheard(rng: Rng) -> SoundScene:
    """Return one of some scenes that nobody hears, to ask about sounds where there are none."""
    pool = _pool()
    return pool[int(rng.integers(len(pool)))]


def ask_sound(rng: Rng, scene: SoundScene, kind: str) -> Question | None:
    """Return a question of `kind` about `scene`, or None when none was found.

    Yes or no is drawn first where both are to be equally often, so another call may find one.
    """
    return SOUND_KINDS[kind](rng, scene)


def ask_any_sound(rng: Rng, scene: SoundScene) -> Question:
    """Return a question of a random kind, drawn by `SOUND_WEIGHTS`."""
    while True:
        question = ask_sound(rng, scene, weighted(rng, SOUND_WEIGHTS))
        if question is not None:
            return question
