"""Noun phrases: a filter on things, the things it matches and the words that say it."""

from collections.abc import Mapping, Sequence

import numpy as np

from sensorium_training.world.scene import COLORS, SHAPES, SIZES, TEXTURES, ZONES, Scene, Thing

Filter = Mapping[str, int]
"""Wanted values by attribute: shape, color, size, texture, zone."""

VALUES: Mapping[str, tuple[str, ...]] = {
    "size": SIZES, "color": COLORS, "texture": TEXTURES, "shape": SHAPES, "zone": ZONES,
}  # fmt: skip
SYNONYMS: Mapping[str, tuple[str, ...]] = {
    "small": ("small", "little"),
    "large": ("large", "big"),
    "gray": ("gray", "grey"),
}
PLURALS: Mapping[str, str] = {
    shape: shape + ("es" if shape == "cross" else "s") for shape in SHAPES
} | {"thing": "things", "object": "objects"}

_ADJECTIVES = ("size", "color", "texture")


def fits(thing: Thing, wanted: Filter) -> bool:
    """Return whether `thing` has every wanted value."""
    return all(getattr(thing, name) == value for name, value in wanted.items())


def matches(scene: Scene, wanted: Filter) -> list[int]:
    """Return the indices of the things in `scene` that fit."""
    return [i for i, thing in enumerate(scene.things) if fits(thing, wanted)]


def pick(rng: np.random.Generator, options: Sequence[str]) -> str:
    """Return one of `options`."""
    return options[int(rng.integers(len(options)))]


def word(rng: np.random.Generator, value: str) -> str:
    """Return `value` or a synonym."""
    return pick(rng, SYNONYMS.get(value, (value,)))


def words_from_filter(
    rng: np.random.Generator, wanted: Filter, *, plural: bool = False
) -> tuple[list[str], int]:
    """Return the words of, say, "large red star in the top left", and the noun's index."""
    words = [word(rng, VALUES[name][wanted[name]]) for name in _ADJECTIVES if name in wanted]
    noun = SHAPES[wanted["shape"]] if "shape" in wanted else pick(rng, ("thing", "object"))
    at = len(words)
    words.append(PLURALS[noun] if plural else noun)
    if "zone" in wanted:
        words += [pick(rng, ("in", "at")), "the", *ZONES[wanted["zone"]].split()]
    return words, at


def filter_of(rng: np.random.Generator, thing: Thing, names: Sequence[str], count: int) -> Filter:
    """Return the values that `thing` has of `count` random attributes among `names`."""
    chosen = rng.permutation(len(names))[:count]
    return {names[i]: int(getattr(thing, names[i])) for i in chosen}


def unique_filter(
    rng: np.random.Generator, scene: Scene, index: int, without: Sequence[str] = ()
) -> Filter | None:
    """Return a random filter that only thing `index` fits, or None if none was found."""
    names = [name for name in VALUES if name not in (*without, "zone")]
    if "zone" not in without and rng.random() < 0.2:  # noqa: PLR2004 - people seldom name the place
        names.append("zone")
    for count in sorted(rng.integers(1, len(names) + 1, size=4)):
        wanted = filter_of(rng, scene.things[index], names, int(count))
        if matches(scene, wanted) == [index]:
            return wanted
    return None


def near_miss(rng: np.random.Generator, scene: Scene) -> Filter | None:
    """Return a filter that nothing fits but that is one value away from something."""
    for _ in range(8):
        thing = scene.things[int(rng.integers(len(scene.things)))]
        names = ("size", "color", "texture", "shape")
        wanted = dict(filter_of(rng, thing, names, int(rng.integers(1, 4))))
        name = list(wanted)[int(rng.integers(len(wanted)))]
        wanted[name] = int(rng.integers(len(VALUES[name])))
        if not matches(scene, wanted):
            return wanted
    return None
