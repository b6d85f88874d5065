"""Captions of clips: every actor and what it does, and partial ones as people search."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sensorium_training.world.clip_phrase import CLIP_NAMES, LOOKS, actor_phrase, cast, look_of
from sensorium_training.world.motion import ACTIONS, Actor, Clip
from sensorium_training.world.phrase import Filter, word
from sensorium_training.world.scene import BACKGROUNDS, COLORS, SHAPES, SIZES


def clip_caption(clip: Clip) -> list[str]:
    """Return the caption of `clip`: each actor, as large as it is at first, and its action.

    Of two that collide the first says so, with the second as its object.
    """
    words: list[str] = []
    for index, actor in enumerate(clip.actors):
        if actor.partner is not None and actor.partner < index:
            continue
        words += ["and"] if words else []
        words += [*_named(actor), *ACTIONS[actor.action].split()]
        words += [] if actor.partner is None else ["with", *_named(clip.actors[actor.partner])]
    return [*words, "on", "a", BACKGROUNDS[clip.background], "background"]


def _named(actor: Actor) -> Sequence[str]:
    thing = actor.thing
    return ["a", SIZES[thing.size], COLORS[thing.color], SHAPES[thing.shape]]


CLIP_CAPTION_WORDS = frozenset({"a", "and", "with", "on", "background", *BACKGROUNDS} | CLIP_NAMES)
"""Every word of captions and search texts."""


@dataclass(frozen=True, slots=True)
class ClipSearchText:
    """A partial description: filters that all must match, and perhaps a background."""

    words: list[str]
    filters: tuple[Filter, ...]
    background: int | None

    def describes(self, clip: Clip) -> bool:
        """Return whether it is true of `clip`."""
        if self.background is not None and clip.background != self.background:
            return False
        return all(cast(clip, wanted) for wanted in self.filters)


def clip_search_text(rng: np.random.Generator, clip: Clip) -> ClipSearchText:
    """Return a partial description that is true of `clip`, of one or two actors."""
    chosen = rng.permutation(len(clip.actors))[: int(rng.integers(1, 3))]
    words: list[str] = []
    filters = []
    for index in chosen:
        names = [LOOKS[i] for i in rng.permutation(len(LOOKS))[: int(rng.integers(0, 4))]]
        looks = look_of(clip.actors[int(index)], names)
        acts = not looks or rng.random() < 0.8  # noqa: PLR2004 - most tell what happens
        verb = ACTIONS[clip.actors[int(index)].action] if acts else ""
        words += ["and"] if words else []
        words += ["a"] if rng.random() < 0.8 else []  # noqa: PLR2004 - people leave it out
        words += actor_phrase(rng, clip, looks, verb=verb).words
        filters.append(looks | ({"action": clip.actors[int(index)].action} if acts else {}))
    background = clip.background if rng.random() < 0.2 else None  # noqa: PLR2004
    if background is not None:
        words += ["on", "a", word(rng, BACKGROUNDS[background]), "background"]
    return ClipSearchText(words, tuple(filters), background)
