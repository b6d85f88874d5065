"""Phrases about actors: a filter on looks and action, whom it matches and the words that say it."""

from collections.abc import Mapping, Sequence
from itertools import combinations
from types import MappingProxyType

import numpy as np

from sensorium_training.world.motion import ACTIONS, Actor, Clip
from sensorium_training.world.phrase import (
    PLURALS,
    SYNONYMS,
    VALUES,
    Filter,
    fits,
    words_from_filter,
)
from sensorium_training.world.template import Phrase, words_of

LOOKS = ("size", "color", "shape")
STILL = ACTIONS.index("stands still")
COLLIDES = ACTIONS.index("collides")
_RESIZING = (ACTIONS.index("grows"), ACTIONS.index("shrinks"))

BASE_FORMS: Mapping[str, str] = MappingProxyType(
    {
        "stands still": "stand still", "moves left": "move left", "moves right": "move right",
        "moves up": "move up", "moves down": "move down", "grows": "grow", "shrinks": "shrink",
        "appears": "appear", "disappears": "disappear", "blinks": "blink", "shakes": "shake",
        "circles": "circle", "jumps": "jump", "collides": "collide",
    }
)  # fmt: skip
"""Each action as it stands after "does" and after a plural."""


def performs(actor: Actor, wanted: Filter) -> bool:
    """Return whether `actor` looks at first, and does, as wanted; the action is optional."""
    looks = {name: value for name, value in wanted.items() if name != "action"}
    return wanted.get("action", actor.action) == actor.action and fits(actor.thing, looks)


def cast(clip: Clip, wanted: Filter) -> list[int]:
    """Return the indices of the actors that perform as wanted."""
    return [i for i, actor in enumerate(clip.actors) if performs(actor, wanted)]


def certain(clip: Clip, wanted: Filter) -> bool:
    """Return whether no change of size makes it doubtful whom `wanted` means."""
    if "size" not in wanted:
        return True
    rest = {name: value for name, value in wanted.items() if name != "size"}
    return not any(clip.actors[i].action in _RESIZING for i in cast(clip, rest))


def keeps_size(actor: Actor) -> bool:
    """Return whether the actor is as large at the end as at first."""
    return actor.action not in _RESIZING


def look_of(actor: Actor, names: Sequence[str]) -> dict[str, int]:
    """Return the actor's values of `names`."""
    return {
        name: actor.action if name == "action" else int(getattr(actor.thing, name))
        for name in names
    }


def only(
    rng: np.random.Generator, clip: Clip, index: int, names: Sequence[str] = LOOKS
) -> Filter | None:
    """Return a random filter on some of `names` that only actor `index` passes, if there is one."""
    filters = [
        wanted
        for count in range(1, len(names) + 1)
        for chosen in combinations(names, count)
        if cast(clip, wanted := look_of(clip.actors[index], chosen)) == [index]
        and certain(clip, wanted)
    ]
    return filters[int(rng.integers(len(filters)))] if filters else None


def nobody(rng: np.random.Generator, clip: Clip) -> Filter | None:
    """Return a filter on looks that no actor passes but that is one value away from an actor."""
    for _ in range(8):
        actor = clip.actors[int(rng.integers(len(clip.actors)))]
        chosen = rng.permutation(len(LOOKS))[: int(rng.integers(1, len(LOOKS) + 1))]
        wanted = look_of(actor, [LOOKS[i] for i in chosen])
        name = LOOKS[int(chosen[0])]
        wanted[name] = int(rng.integers(len(VALUES[name])))
        if not cast(clip, wanted) and certain(clip, wanted):
            return wanted
    return None


def actor_phrase(
    rng: np.random.Generator,
    clip: Clip,
    wanted: Filter,
    *,
    many: bool = False,
    verb: str = "",
) -> Phrase:
    """Return the words of, say, "red star that moves left", followed by the words of `verb`."""
    looks = {name: value for name, value in wanted.items() if name != "action"}
    words, noun = words_from_filter(rng, looks, plural=many)
    if "action" in wanted:
        action = ACTIONS[wanted["action"]]
        words += ["that", *(BASE_FORMS[action] if many else action).split()]
    return Phrase([*words, *verb.split()], noun, cast(clip, wanted), "video")


CLIP_NAMES = frozenset(
    words_of((*ACTIONS, *BASE_FORMS.values(), *PLURALS, *PLURALS.values(), "that"))
    | {word for name in LOOKS for word in VALUES[name]}
    | {word for words in SYNONYMS.values() for word in words}
)
"""Every word that names an actor or an action."""
