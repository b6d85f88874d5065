"""Captions: the whole scene in reading order, and partial ones as people type into a search box."""

from dataclasses import dataclass

import numpy as np

from sensorium_training.world.phrase import Filter, filter_of, matches, word, words_from_filter
from sensorium_training.world.scene import (
    BACKGROUNDS,
    COLORS,
    SHAPES,
    SIZES,
    TEXTURES,
    ZONES,
    Scene,
)


def caption(scene: Scene) -> list[str]:
    """Return the caption of `scene`: every thing with all attributes, then the background."""
    words: list[str] = []
    for thing in scene.things:
        words += ["and"] if words else []
        words += ["a", SIZES[thing.size], COLORS[thing.color], TEXTURES[thing.texture]]
        words += [SHAPES[thing.shape], "at", "the", *ZONES[thing.zone].split()]
    return [*words, "on", "a", BACKGROUNDS[scene.background], "background"]


_PLACE_SHARE = 0.3
"""How often a search text may name the place."""


@dataclass(frozen=True, slots=True)
class SearchText:
    """A partial description: filters that all must match, and perhaps a background."""

    words: list[str]
    filters: tuple[Filter, ...]
    background: int | None

    def describes(self, scene: Scene) -> bool:
        """Return whether it is true of `scene`."""
        if self.background is not None and scene.background != self.background:
            return False
        return all(matches(scene, wanted) for wanted in self.filters)


def search_text(rng: np.random.Generator, scene: Scene) -> SearchText:
    """Return a partial description that is true of `scene`, of one or two things."""
    names = ("size", "color", "texture", "shape", "zone")
    chosen = rng.permutation(len(scene.things))[: int(rng.integers(1, 3))]
    words: list[str] = []
    filters = []
    for index in chosen:
        thing = scene.things[int(index)]
        wanted = filter_of(
            rng, thing, names[: 4 + (rng.random() < _PLACE_SHARE)], int(rng.integers(1, 5))
        )
        words += ["and"] if words else []
        words += ["a"] if rng.random() < 0.8 else []  # noqa: PLR2004 - people leave it out
        words += words_from_filter(rng, wanted)[0]
        filters.append(wanted)
    background = scene.background if rng.random() < 0.2 else None  # noqa: PLR2004
    if background is not None:
        words += ["on", "a", word(rng, BACKGROUNDS[background]), "background"]
    return SearchText(words, tuple(filters), background)
