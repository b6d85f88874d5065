"""How sounds are named, and which events a name matches."""

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np

from sensorium_training.world.phrase import pick
from sensorium_training.world.sound import CLIP_S, SOUNDS, SoundEvent, SoundScene
from sensorium_training.world.template import Phrase, words_of

NAMES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {sound: (sound,) for sound in SOUNDS}
    | {
        "bird": ("bird", "chirp", "bird chirp"),
        "bark": ("bark", "dog", "dog bark"),
        "drop": ("drop", "water drop"),
        "knock": ("knock", "door knock"),
    }
)
"""What each sound is called in questions; an answer uses the first, which is its own name."""

LENGTHS = ("short", "long")
LONG_S = 0.7
LENGTH_MARGIN_S = 0.05
"""Nearer than this to `LONG_S` a sound is neither called short nor long."""

PARTS = ("beginning", "middle", "end")
"""The thirds of a scene."""


def plural(name: str) -> str:
    """Return the plural of a sound's name."""
    return name + ("es" if name.endswith(("s", "z")) else "s")


def heard(scene: SoundScene, kind: int | None) -> list[int]:
    """Return the indices of the events of `kind`, or of all."""
    return [i for i, event in enumerate(scene.events) if kind is None or event.kind == kind]


def alone(scene: SoundScene) -> list[int]:
    """Return the indices of the events that are the only ones of their kind."""
    kinds = [event.kind for event in scene.events]
    return [i for i, kind in enumerate(kinds) if kinds.count(kind) == 1]


def absent(scene: SoundScene) -> list[int]:
    """Return the kinds that are not heard."""
    kinds = {event.kind for event in scene.events}
    return [kind for kind in range(len(SOUNDS)) if kind not in kinds]


def sound_phrase(
    rng: np.random.Generator, scene: SoundScene, kind: int | None, *, many: bool = False
) -> Phrase:
    """Return a name of the sounds of `kind`, or "sound" when it is None."""
    name = "sound" if kind is None else pick(rng, NAMES[SOUNDS[kind]])
    words = (plural(name) if many else name).split()
    return Phrase(words, len(words) - 1, heard(scene, kind), "audio")


def length_of(event: SoundEvent) -> int | None:
    """Return the index in `LENGTHS` of the event's length, or None near the border."""
    length = event.end_s - event.start_s
    return None if abs(length - LONG_S) < LENGTH_MARGIN_S else int(length > LONG_S)


def part_of(event: SoundEvent, margin_s: float = LENGTH_MARGIN_S) -> int | None:
    """Return the index in `PARTS` of the event's middle, or None nearer to a border than this."""
    middle = (event.start_s + event.end_s) / 2
    if any(abs(middle - CLIP_S * border / 3) < margin_s for border in (1, 2)):
        return None
    return min(int(middle * 3 / CLIP_S), 2)


SOUND_NAMES = frozenset(
    words_of((*SOUNDS, "sound", plural("sound"), *LENGTHS, *PARTS))
    | {word for names in NAMES.values() for name in names for word in words_of((name,))}
    | {word for names in NAMES.values() for name in names for word in words_of((plural(name),))}
)
"""Every word that names a sound, its length or its time."""
