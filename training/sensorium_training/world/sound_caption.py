"""Captions of sound scenes: the whole scene in time, and partial ones as people search."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from sensorium_training.world.phrase import pick
from sensorium_training.world.sound import SOUNDS, SoundEvent, SoundScene
from sensorium_training.world.sound_phrase import LENGTHS, NAMES, SOUND_NAMES, length_of, part_of

PLACES = ("at the beginning", "in the middle", "at the end")
"""How captions say when, by the index in `PARTS`."""


def sound_caption(scene: SoundScene) -> list[str]:
    """Return the caption of `scene`: its sounds in order, "and" before what overlaps the last.

    Each has its length, and the first its place in time, unless it lies near a border.
    """
    words: list[str] = []
    for index, event in enumerate(scene.events):
        if index:
            words.append("and" if event.start_s < scene.events[index - 1].end_s else "then")
        length = length_of(event)
        words += ["a", *([] if length is None else [LENGTHS[length]]), SOUNDS[event.kind]]
        part = part_of(event)
        words += PLACES[part].split() if index == 0 and part is not None else []
    return words


SOUND_CAPTION_WORDS = frozenset(
    {"a", "and", "then", "before", "after", "at", "in", "the"} | SOUND_NAMES
)
"""Every word of captions and search texts."""


def _fits(event: SoundEvent, wanted: Mapping[str, int]) -> bool:
    values = {"kind": event.kind, "length": length_of(event), "part": part_of(event)}
    return all(values[name] == value for name, value in wanted.items())


@dataclass(frozen=True, slots=True)
class SoundSearchText:
    """A partial description: filters that different sounds match, perhaps in order of starts."""

    words: list[str]
    filters: tuple[Mapping[str, int], ...]
    ordered: bool

    def describes(self, scene: SoundScene) -> bool:
        """Return whether it is true of `scene`."""
        found = [
            [i for i, event in enumerate(scene.events) if _fits(event, wanted)]
            for wanted in self.filters
        ]
        if len(found) == 1:
            return bool(found[0])
        starts = [event.start_s for event in scene.events]
        return any(
            i != j and (not self.ordered or starts[i] < starts[j])
            for i in found[0]
            for j in found[1]
        )


def sound_search_text(rng: np.random.Generator, scene: SoundScene) -> SoundSearchText:
    """Return a partial description that is true of `scene`, of one or two sounds."""
    chosen = sorted(int(i) for i in rng.permutation(len(scene.events))[: int(rng.integers(1, 3))])
    filters = [_filter(rng, scene.events[index]) for index in chosen]
    phrases = [_phrase(rng, wanted) for wanted in filters]
    if len(chosen) == 1:
        return SoundSearchText(phrases[0], tuple(filters), ordered=False)
    link = pick(rng, ("and", "then", "before", "after"))
    if link == "and" and rng.random() < 0.5:  # noqa: PLR2004 - either may be named first
        phrases.reverse()
    if link == "after":
        phrases.reverse()
    words = [*phrases[0], link, *phrases[1]]
    return SoundSearchText(words, tuple(filters), ordered=link != "and")


def _filter(rng: np.random.Generator, event: SoundEvent) -> dict[str, int]:
    wanted = {"kind": event.kind}
    length, part = length_of(event), part_of(event)
    if length is not None and rng.random() < 0.4:  # noqa: PLR2004 - people seldom name it
        wanted["length"] = length
    if part is not None and rng.random() < 0.15:  # noqa: PLR2004 - still more seldom
        wanted["part"] = part
    return wanted


def _phrase(rng: np.random.Generator, wanted: Mapping[str, int]) -> list[str]:
    article = ["a"] if rng.random() < 0.8 else []  # noqa: PLR2004 - people leave it out
    length = [LENGTHS[wanted["length"]]] if "length" in wanted else []
    place = PLACES[wanted["part"]].split() if "part" in wanted else []
    return [*article, *length, *pick(rng, NAMES[SOUNDS[wanted["kind"]]]).split(), *place]
