"""Questions about clips with their answers, and what each noun in them refers to."""

from collections.abc import Callable, Mapping
from itertools import permutations
from types import MappingProxyType

import numpy as np

from sensorium_training.world.clip_phrase import (
    BASE_FORMS,
    CLIP_NAMES,
    COLLIDES,
    LOOKS,
    STILL,
    actor_phrase,
    cast,
    certain,
    keeps_size,
    look_of,
    nobody,
    only,
)
from sensorium_training.world.motion import ACTIONS, Actor, Clip
from sensorium_training.world.phrase import VALUES, Filter, pick
from sensorium_training.world.question import UNKNOWN_ANSWER, Question, garbled
from sensorium_training.world.scene import BACKGROUNDS, COLORS, SHAPES, ZONES
from sensorium_training.world.sound import CLIP_S
from sensorium_training.world.sound_question import (
    SOUND_WORDS,
    ask_any_sound,
    ask_sound,
    unheard,
)
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

MARGIN_S = 0.3
"""Least difference of two starts that a question may turn on."""

ZONE_MARGIN = 0.05
"""Least distance to a zone's border, in picture sides, of a place that is asked for."""

_COLLISION_SHARE = 0.85
"""How often a collision is looked for; most clips have none, and yes and no shall be even."""

Rng = np.random.Generator
Maker = Callable[[Rng, Clip], Question | None]

TEMPLATES: Templates = MappingProxyType(
    {
        "action": ("what does the {a} do", "what happens to the {a}"),
        "actor": ("what {a}", "which {a}"),
        "color": ("what color is the {a}", "what colour is the {a}", "which color is the {a}"),
        "shape": ("what shape is the {a}", "what is the shape of the {a}"),
        "size": ("what size is the {a}", "how big is the {a}"),
        "exist": ("is there a {a}", "do you see a {a}", "can you see a {a}"),
        "happens": ("does the {a}",),
        "anything": ("does {a}",),
        "clip_count": (
            "how many {a} are there", "how many {a} do you see", "count the {a}",
            "how many {a} are in the video",
        ),
        "acting": ("how many {a}",),
        "order_before": ("does the {a} before the {b}",),
        "order_after": ("does the {a} after the {b}",),
        "first_action": ("what happens first", "what is the first action"),
        "last_action": ("what happens last", "what is the last action"),
        "collide": (
            "do the {a} and the {b} collide", "does the {a} collide with the {b}",
            "does the {a} hit the {b}",
        ),
        "hits": ("what does the {a} hit", "what does the {a} collide with"),
        "where_clip": ("where does the {a} start", "where is the {a} at first"),
        "background": (
            "what color is the background", "what colour is the background",
            "what is the background color", "what is the color of the background",
        ),
    }
)  # fmt: skip


def _any(rng: Rng, clip: Clip) -> int:
    return int(rng.integers(len(clip.actors)))


def _name(actor: Actor) -> str:
    return f"{COLORS[actor.thing.color]} {SHAPES[actor.thing.shape]}"


def _action(rng: Rng, clip: Clip) -> Question | None:
    index = _any(rng, clip)
    wanted = only(rng, clip, index)
    if wanted is None:
        return None
    phrase = actor_phrase(rng, clip, wanted)
    return say(rng, "action", ACTIONS[clip.actors[index].action], TEMPLATES["action"], phrase)


def _actor(rng: Rng, clip: Clip) -> Question | None:
    index = _any(rng, clip)
    actor = clip.actors[index]
    if cast(clip, {"action": actor.action}) != [index]:
        return None
    way = pick(rng, TEMPLATES["actor"])
    nouns = [pick(rng, ("thing", "object"))] if way.startswith("which") else []
    words = [*nouns, *ACTIONS[actor.action].split()]
    return say(rng, "actor", _name(actor), (way,), Phrase(words, 0, [index], "video"))


def _attribute(name: str) -> Maker:
    def make(rng: Rng, clip: Clip) -> Question | None:
        index = _any(rng, clip)
        actor = clip.actors[index]
        looks = [look for look in LOOKS if look != name]
        wanted = only(rng, clip, index, [*looks, "action"] if toss(rng, 0.2) else looks)
        if wanted is None or (name == "size" and not keeps_size(actor)):
            return None
        answer = VALUES[name][getattr(actor.thing, name)]
        return say(rng, name, answer, TEMPLATES[name], actor_phrase(rng, clip, wanted))

    return make


def _actor_attribute(rng: Rng, clip: Clip) -> Question | None:
    name, index = pick(rng, LOOKS), _any(rng, clip)
    actor = clip.actors[index]
    wanted = {"action": actor.action}
    if cast(clip, wanted) != [index] or (name == "size" and not keeps_size(actor)):
        return None
    answer = VALUES[name][getattr(actor.thing, name)]
    phrase = actor_phrase(rng, clip, wanted)
    return say(rng, "actor_attribute", answer, TEMPLATES[name], phrase)


def _exist(rng: Rng, clip: Clip) -> Question | None:
    truth = toss(rng)
    wanted: Filter | None = None
    if truth:
        chosen = rng.permutation(len(LOOKS))[: int(rng.integers(1, len(LOOKS) + 1))]
        look = look_of(clip.actors[_any(rng, clip)], [LOOKS[i] for i in chosen])
        wanted = look if certain(clip, look) else None
    else:
        wanted = nobody(rng, clip)
    if wanted is None:
        return None
    phrase = actor_phrase(rng, clip, wanted)
    return say(rng, "exist", yes_no(truth), TEMPLATES["exist"], phrase)


def _happens(rng: Rng, clip: Clip) -> Question | None:
    truth = toss(rng)
    seen = [actor.action for actor in clip.actors]
    if toss(rng):
        missing = [action for action in range(len(ACTIONS)) if action not in seen]
        action = choose(rng, seen if truth else missing)
        words = [pick(rng, ("anything", "something")), *BASE_FORMS[ACTIONS[action]].split()]
        phrase = Phrase(words, 0, cast(clip, {"action": action}), "video")
        return say(rng, "happens", yes_no(truth), TEMPLATES["anything"], phrase)
    index = _any(rng, clip)
    wanted = only(rng, clip, index)
    if wanted is None:
        return None
    action = seen[index]
    if not truth:
        others = [other for other in seen if other != action]
        if not others or toss(rng):
            others = [other for other in range(len(ACTIONS)) if other != action]
        action = choose(rng, others)
    phrase = actor_phrase(rng, clip, wanted, verb=BASE_FORMS[ACTIONS[action]])
    return say(rng, "happens", yes_no(truth), TEMPLATES["happens"], phrase)


def _clip_count(rng: Rng, clip: Clip) -> Question | None:
    if toss(rng, 0.3):
        action = int(rng.integers(len(ACTIONS)))
        if toss(rng, 0.7):
            action = clip.actors[_any(rng, clip)].action
        noun = pick(rng, ("things", "objects"))
        doing = cast(clip, {"action": action})
        phrase = Phrase([noun, *BASE_FORMS[ACTIONS[action]].split()], 0, doing, "video")
        return say(rng, "clip_count", str(len(doing)), TEMPLATES["acting"], phrase)
    chosen = rng.permutation(len(LOOKS))[: choose(rng, (0, 1, 1, 2))]
    wanted = look_of(clip.actors[_any(rng, clip)], [LOOKS[i] for i in chosen])
    if wanted and toss(rng, 0.2):
        name = next(iter(wanted))
        wanted[name] = int(rng.integers(len(VALUES[name])))
    if not certain(clip, wanted):
        return None
    answer = str(len(cast(clip, wanted)))
    phrase = actor_phrase(rng, clip, wanted, many=True)
    return say(rng, "clip_count", answer, TEMPLATES["clip_count"], phrase)


def _order(rng: Rng, clip: Clip) -> Question | None:
    actors = clip.actors
    found = [
        (i, j)
        for i, j in permutations(range(len(actors)), 2)
        if STILL not in (actors[i].action, actors[j].action)
        and abs(actors[i].start_s - actors[j].start_s) >= MARGIN_S
    ]
    if not found:
        return None
    first, second = found[int(rng.integers(len(found)))]
    one, other = only(rng, clip, first), only(rng, clip, second)
    if one is None or other is None:
        return None
    word = "before" if toss(rng) else "after"
    difference = actors[first].start_s - actors[second].start_s
    question = say(
        rng, "order", yes_no((difference < 0) == (word == "before")), TEMPLATES[f"order_{word}"],
        actor_phrase(rng, clip, one, verb=BASE_FORMS[ACTIONS[actors[first].action]]),
        actor_phrase(rng, clip, other, verb=ACTIONS[actors[second].action]),
    )  # fmt: skip
    question.relation = (question.words.index(word), difference / CLIP_S, 0.0)
    return question


def _end_action(kind: str, sign: int) -> Maker:
    """Return the maker of questions after the first (`sign` 1) or last (-1) action to start."""

    def make(rng: Rng, clip: Clip) -> Question | None:
        acting = [actor for actor in clip.actors if actor.action != STILL]
        if not acting:
            return None
        best = min(acting, key=lambda actor: sign * actor.start_s)
        others = [sign * actor.start_s for actor in acting if actor.action != best.action]
        if others and min(others) - sign * best.start_s < MARGIN_S:
            return None
        return say(rng, kind, ACTIONS[best.action], TEMPLATES[kind])

    return make


def _collide(rng: Rng, clip: Clip) -> Question | None:
    truth = toss(rng, _COLLISION_SHARE)
    found = [
        (i, j)
        for i, j in permutations(range(len(clip.actors)), 2)
        if (clip.actors[i].partner == j) == truth
    ]
    if not found:
        return None
    one, other = (only(rng, clip, i) for i in found[int(rng.integers(len(found)))])
    if one is None or other is None:
        return None
    phrases = (actor_phrase(rng, clip, one), actor_phrase(rng, clip, other))
    return say(rng, "collide", yes_no(truth), TEMPLATES["collide"], *phrases)


def _hits(rng: Rng, clip: Clip) -> Question | None:
    hitting = cast(clip, {"action": COLLIDES})
    if not hitting:
        return None
    index = choose(rng, hitting)
    partner, wanted = clip.actors[index].partner, only(rng, clip, index)
    if wanted is None or partner is None:
        return None
    answer = _name(clip.actors[partner])
    return say(rng, "hits", answer, TEMPLATES["hits"], actor_phrase(rng, clip, wanted))


def _where(rng: Rng, clip: Clip) -> Question | None:
    index = _any(rng, clip)
    thing, wanted = clip.actors[index].thing, only(rng, clip, index)
    borders = (abs(v - border) for v in (thing.x, thing.y) for border in (1 / 3, 2 / 3))
    if wanted is None or min(borders) < ZONE_MARGIN:
        return None
    zone = ZONES[3 * int(thing.y * 3) + int(thing.x * 3)]
    return say(rng, "where_clip", zone, TEMPLATES["where_clip"], actor_phrase(rng, clip, wanted))


def _background(rng: Rng, clip: Clip) -> Question:
    return say(rng, "background", BACKGROUNDS[clip.background], TEMPLATES["background"])


def _sound_track(rng: Rng, clip: Clip) -> Question:
    """Ask what is heard; in a clip without sounds there is no bell, and no saying when it comes."""
    if clip.sounds is not None:
        question = ask_any_sound(rng, clip.sounds)
    else:
        sounds, kind = unheard(rng), pick(rng, ("heard", "heard", "sound_count", ""))
        question = (ask_sound(rng, sounds, kind) if kind else None) or ask_any_sound(rng, sounds)
        answers = {"heard": "no", "sound_count": "0"}
        question.answer = answers.get(question.kind, UNKNOWN_ANSWER)
        question.nouns = [(at, []) for at, _ in question.nouns]
        question.relation = None
    question.kind = "sound_track"
    return question


def _unknown(rng: Rng, clip: Clip) -> Question | None:
    """Return what has no answer: absent actors and actions, foreign words, shuffled questions."""
    form = rng.random()
    if form >= 0.3:  # noqa: PLR2004 - share of questions about what is absent
        base = None
        while base is None:
            base = CLIP_KINDS[ANSWERABLE[int(rng.integers(len(ANSWERABLE)))]](rng, clip)
        return garbled(rng, base, form, "clip_unknown")
    wanted: Filter | None = None
    if form < 0.1:  # noqa: PLR2004 - a third of them about an action that nobody does
        wanted = {"action": int(rng.integers(len(ACTIONS)))}
        wanted = None if cast(clip, wanted) else wanted
    else:
        wanted = nobody(rng, clip)
    if wanted is None:
        return None
    asked = [name for name in ("action", "where_clip", *LOOKS) if name not in wanted]
    ways = TEMPLATES[pick(rng, asked)]
    return say(rng, "clip_unknown", UNKNOWN_ANSWER, ways, actor_phrase(rng, clip, wanted))


CLIP_KINDS: Mapping[str, Maker] = MappingProxyType(
    {
        "action": _action,
        "actor": _actor,
        "actor_attribute": _actor_attribute,
        **{name: _attribute(name) for name in ("color", "shape", "size")},
        "exist": _exist,
        "happens": _happens,
        "clip_count": _clip_count,
        "order": _order,
        "first_action": _end_action("first_action", 1),
        "last_action": _end_action("last_action", -1),
        "collide": _collide,
        "hits": _hits,
        "where_clip": _where,
        "background": _background,
        "sound_track": _sound_track,
        "clip_unknown": _unknown,
    }
)
ANSWERABLE = tuple(kind for kind in CLIP_KINDS if kind != "clip_unknown")
CLIP_WEIGHTS: Mapping[str, float] = MappingProxyType(
    {
        "action": 1.4, "actor": 1.1, "actor_attribute": 0.8, "color": 0.6, "shape": 0.6,
        "size": 0.6, "exist": 0.6, "happens": 1.4, "clip_count": 1.2, "order": 2.4,
        "first_action": 0.9, "last_action": 0.9, "collide": 3.0, "hits": 2.4, "where_clip": 1.0,
        "background": 0.3, "sound_track": 1.4, "clip_unknown": 0.7,
    }
)  # fmt: skip
"""How often training asks each kind; what few clips allow weighs more."""

CLIP_WORDS = frozenset(
    fixed_words(TEMPLATES)
    | CLIP_NAMES
    | SOUND_WORDS
    | words_of((*ZONES, *BACKGROUNDS, "anything something yes no 0 1 2 3 4"))
)
"""Every word of these questions and their answers."""


def ask_clip(rng: Rng, clip: Clip, kind: str) -> Question | None:
    """Return a question of `kind` about `clip`, or None when none was found.

    Yes or no is drawn first where both are to be equally often, so another call may find one.
    """
    return CLIP_KINDS[kind](rng, clip)


def ask_any_clip(rng: Rng, clip: Clip) -> Question:
    """Return a question of a random kind, drawn by `CLIP_WEIGHTS`."""
    while True:
        question = ask_clip(rng, clip, weighted(rng, CLIP_WEIGHTS))
        if question is not None:
            return question
