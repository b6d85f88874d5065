"""Questions about scenes with their answers, and what each noun in them refers to."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np

from sensorium_training.world.phrase import (
    VALUES,
    Filter,
    filter_of,
    matches,
    near_miss,
    pick,
    unique_filter,
    words_from_filter,
)
from sensorium_training.world.scene import BACKGROUNDS, Scene

UNKNOWN_ANSWER = "I don't know"
"""The answer to whatever lies outside the grammar or asks about what is not there."""

MARGIN = 0.06
"""Least difference in position, in picture sides, that a question may turn on."""

RELATIONS: Mapping[str, tuple[int, int]] = MappingProxyType(
    {"left of": (0, -1), "right of": (0, 1), "above": (1, -1), "below": (1, 1)}
)
"""Axis (x, y) and sign of each relation."""

EXTREMES: Mapping[str, tuple[int, int]] = MappingProxyType(
    {"leftmost": (0, -1), "rightmost": (0, 1), "topmost": (1, -1), "bottommost": (1, 1)}
)
ASKABLE = ("color", "shape", "size", "texture")


@dataclass
class Question:
    """Words and the answer; for training also what nouns and the relation refer to.

    Attributes:
        kind: the question's type, a key of `KINDS`.
        words: in lower case, without punctuation.
        answer: words with spaces between.
        nouns: for each noun, its index in `words` and the things it matches.
        relation: index of the comparing word and the difference it is about: (x, y) of the two
            things, (count difference / 5, 0) or (difference of the starts / 4 s, 0).
        about: for each noun, what its matches are of: the image, the audio or the video.
    """

    kind: str
    words: list[str] = field(default_factory=list)
    answer: str = ""
    nouns: list[tuple[int, list[int]]] = field(default_factory=list)
    relation: tuple[int, float, float] | None = None
    about: list[str] = field(default_factory=list)

    def say(self, words: str) -> "Question":
        """Append plain words."""
        self.words += words.split()
        return self

    def refer(
        self, rng: np.random.Generator, scene: Scene, wanted: Filter, *, plural: bool = False
    ) -> "Question":
        """Append a noun phrase."""
        words, noun = words_from_filter(rng, wanted, plural=plural)
        return self.mention(words, noun, matches(scene, wanted))

    def mention(
        self, words: list[str], noun: int, matched: list[int], about: str = "image"
    ) -> "Question":
        """Append `words` whose noun, at index `noun`, refers to the `matched` of `about`."""
        self.nouns.append((len(self.words) + noun, matched))
        self.about.append(about)
        self.words += words
        return self


Rng = np.random.Generator
Maker = Callable[[Rng, Scene], Question | None]


def _index(rng: Rng, scene: Scene) -> int:
    return int(rng.integers(len(scene.things)))


def _color_word(rng: Rng, name: str) -> str:
    return pick(rng, ("color", "colour")) if name == "color" else name


_ATTRIBUTE_OPENINGS: Mapping[str, tuple[str, ...]] = {
    "color": (
        "what color is the", "what colour is the", "what is the color of the", "which color is the",
    ),
    "shape": ("what shape is the", "what is the shape of the", "which shape is the"),
    "size": ("what size is the", "what is the size of the", "how big is the"),
    "texture": ("what texture is the", "what is the texture of the", "what pattern is on the"),
}  # fmt: skip


def _attribute(name: str) -> Maker:
    def make(rng: Rng, scene: Scene) -> Question | None:
        index = _index(rng, scene)
        wanted = unique_filter(rng, scene, index, without=(name,))
        if wanted is None:
            return None
        question = Question(name, answer=VALUES[name][getattr(scene.things[index], name)])
        question.say(pick(rng, _ATTRIBUTE_OPENINGS[name]))
        return question.refer(rng, scene, wanted)

    return make


def _background(rng: Rng, scene: Scene) -> Question:
    text = pick(
        rng,
        ("what color is the background", "what colour is the background",
         "what is the background color", "what is the color of the background"),
    )  # fmt: skip
    return Question("background", answer=BACKGROUNDS[scene.background]).say(text)


def _exist(rng: Rng, scene: Scene) -> Question | None:
    if rng.random() < 0.5:  # noqa: PLR2004 - as many yes as no
        names = ("size", "color", "texture", "shape")
        thing = scene.things[_index(rng, scene)]
        wanted: Filter | None = filter_of(rng, thing, names, int(rng.integers(1, 4)))
        answer = "yes"
    else:
        wanted, answer = near_miss(rng, scene), "no"
    if wanted is None:
        return None
    plural = rng.random() < 0.25  # noqa: PLR2004 - the rarer form
    openings = (
        ("are there any",)
        if plural
        else ("is there a", "is there an", "do you see a", "can you see a")
    )
    question = Question("exist", answer=answer).say(pick(rng, openings))
    return question.refer(rng, scene, wanted, plural=plural)


def _where(rng: Rng, scene: Scene) -> Question | None:
    index = _index(rng, scene)
    wanted = unique_filter(rng, scene, index, without=("zone",))
    if wanted is None:
        return None
    question = Question("where", answer=VALUES["zone"][scene.things[index].zone])
    question.say(
        pick(rng, ("where is the", "what is the position of the", "what is the place of the"))
    )
    return question.refer(rng, scene, wanted)


def _extreme(rng: Rng, scene: Scene) -> Question | None:
    word = pick(rng, tuple(EXTREMES))
    axis, sign = EXTREMES[word]
    places = sorted((sign * (thing.x, thing.y)[axis], i) for i, thing in enumerate(scene.things))
    if len(places) > 1 and places[-1][0] - places[-2][0] < MARGIN:
        return None
    index = places[-1][1]
    name = pick(rng, ASKABLE)
    question = Question("extreme", answer=VALUES[name][getattr(scene.things[index], name)])
    question.say(f"what {_color_word(rng, name)} is the {word}")
    return question.mention([pick(rng, ("object", "thing"))], 0, [index])


def _group(rng: Rng, scene: Scene) -> Filter:
    """Return a filter of one or two values, usually one that something fits."""
    thing = scene.things[_index(rng, scene)]
    wanted = dict(
        filter_of(rng, thing, ("size", "color", "texture", "shape"), int(rng.integers(0, 3)))
    )
    if wanted and rng.random() < 0.15:  # noqa: PLR2004 - sometimes nothing fits
        name = next(iter(wanted))
        wanted[name] = int(rng.integers(len(VALUES[name])))
    return wanted


def _count(rng: Rng, scene: Scene) -> Question:
    wanted = max((_group(rng, scene) for _ in range(2)), key=lambda w: len(matches(scene, w)))
    if rng.random() < 0.5:  # noqa: PLR2004 - else small counts would be rare
        wanted = _group(rng, scene)
    question = Question("count", answer=str(len(matches(scene, wanted))))
    if rng.random() < 0.2:  # noqa: PLR2004 - the rarer form
        return question.say("count the").refer(rng, scene, wanted, plural=True)
    question.say("how many").refer(rng, scene, wanted, plural=True)
    return question.say(pick(rng, ("are there", "do you see", "are in the picture")))


def _two_things(
    rng: Rng, scene: Scene, without: tuple[str, ...] = ()
) -> tuple[int, int, Filter, Filter] | None:
    if len(scene.things) < 2:  # noqa: PLR2004 - two are needed
        return None
    first, second = (int(i) for i in rng.permutation(len(scene.things))[:2])
    one = unique_filter(rng, scene, first, without=without)
    other = unique_filter(rng, scene, second, without=without)
    return None if one is None or other is None else (first, second, one, other)


def _relation(rng: Rng, scene: Scene) -> Question | None:
    two = _two_things(rng, scene, without=("zone",))
    if two is None:
        return None
    first, second = (scene.things[i] for i in two[:2])
    word = pick(rng, tuple(RELATIONS))
    axis, sign = RELATIONS[word]
    difference = (first.x - second.x, first.y - second.y)
    if abs(difference[axis]) < MARGIN:
        return None
    question = Question("relation", answer="yes" if difference[axis] * sign > 0 else "no")
    question.say("is the").refer(rng, scene, two[2])
    if axis == 0 and rng.random() < 0.5:  # noqa: PLR2004 - both forms are common
        question.say("to the")
    question.relation = (len(question.words), *difference)
    return question.say(word).say("the").refer(rng, scene, two[3])


def _compare(rng: Rng, scene: Scene) -> Question | None:
    truth = rng.random() < 0.5  # noqa: PLR2004 - as many yes as no
    more = rng.random() < 0.7  # noqa: PLR2004 - "fewer" is the rarer form
    for _ in range(8):
        one, other = _group(rng, scene), _group(rng, scene)
        counts = len(matches(scene, one)), len(matches(scene, other))
        larger = counts[0] > counts[1] if more else counts[0] < counts[1]
        if one != other and larger == truth:
            break
    else:
        return None
    question = Question("compare", answer="yes" if truth else "no").say("are there")
    question.relation = (len(question.words), (counts[0] - counts[1]) / 5, 0.0)
    question.say("more" if more else "fewer").refer(rng, scene, one, plural=True).say("than")
    return question.refer(rng, scene, other, plural=True)


def _same(rng: Rng, scene: Scene) -> Question | None:
    name = pick(rng, ASKABLE)
    truth = rng.random() < 0.5  # noqa: PLR2004 - as many yes as no
    for _ in range(6):
        two = _two_things(rng, scene, without=(name,))
        if two is None:
            continue
        first, second = (scene.things[i] for i in two[:2])
        if (getattr(first, name) == getattr(second, name)) == truth:
            break
    else:
        return None
    question = Question("same", answer="yes" if truth else "no")
    said = _color_word(rng, name)
    if rng.random() < 0.6:  # noqa: PLR2004 - the more usual form
        question.say("is the").refer(rng, scene, two[2]).say(f"the same {said} as the")
        return question.refer(rng, scene, two[3])
    question.say("do the").refer(rng, scene, two[2]).say("and the").refer(rng, scene, two[3])
    return question.say(f"have the same {said}")


def _unknown(rng: Rng, scene: Scene) -> Question | None:
    """Return what has no answer: absent things, foreign words, shuffled or cut questions."""
    form = rng.random()
    if form < 0.3:  # noqa: PLR2004 - shares of four forms
        wanted = near_miss(rng, scene)
        if wanted is None:
            return None
        names = [name for name in ASKABLE if name not in wanted]
        opening = pick(rng, _ATTRIBUTE_OPENINGS[names[0]]) if names else "where is the"
        return Question("unknown", answer=UNKNOWN_ANSWER).say(opening).refer(rng, scene, wanted)
    base = None
    while base is None:
        base = KINDS[pick(rng, ANSWERABLE)](rng, scene)
    return garbled(rng, base, form)


def garbled(rng: Rng, base: Question, form: float, kind: str = "unknown") -> Question | None:
    """Return `base` with foreign nouns, cut or shuffled, as `form` in [0.3, 1) says."""
    words = list(base.words)
    if form < 0.6:  # noqa: PLR2004
        for at, _ in base.nouns or [(len(words) - 1, [])]:
            words[at] = FOREIGN_WORD
    elif form < 0.8:  # noqa: PLR2004
        chosen = rng.random(len(words)) < 0.7  # noqa: PLR2004
        words = [FOREIGN_WORD if c else w for c, w in zip(chosen, words, strict=True)]
        words = words[: int(rng.integers(1, len(words) + 1))]
        if not chosen[: len(words)].any():
            words[-1] = FOREIGN_WORD
    else:
        if len(words) < 6:  # noqa: PLR2004 - a short question shuffled may still be one
            return None
        words = [words[i] for i in rng.permutation(len(words))]
    return Question(kind, words, UNKNOWN_ANSWER)


FOREIGN_WORD = "[UNK]"
"""How the tokenizer shows any word that it does not know."""

KINDS: Mapping[str, Maker] = MappingProxyType(
    {
        **{name: _attribute(name) for name in ASKABLE},
        "background": _background,
        "exist": _exist,
        "where": _where,
        "extreme": _extreme,
        "count": _count,
        "relation": _relation,
        "compare": _compare,
        "same": _same,
        "unknown": _unknown,
    }
)
ANSWERABLE = tuple(kind for kind in KINDS if kind != "unknown")
WEIGHTS: Mapping[str, float] = MappingProxyType(
    {
        "color": 0.8, "shape": 0.8, "size": 0.7, "texture": 0.8, "background": 0.3, "exist": 1.0,
        "where": 0.9, "extreme": 1.3, "count": 1.4, "relation": 1.8, "compare": 1.6, "same": 1.8,
        "unknown": 0.7,
    }
)  # fmt: skip
"""How often training asks each kind; two-phrase questions are the slow ones to learn."""


def ask(rng: Rng, scene: Scene, kind: str) -> Question | None:
    """Return a question of `kind` about `scene`, or None when this scene allows none."""
    for _ in range(12):
        question = KINDS[kind](rng, scene)
        if question is not None:
            return question
    return None


def ask_any(rng: Rng, scene: Scene) -> Question:
    """Return a question of a random kind, drawn by `WEIGHTS`."""
    weights = np.array(list(WEIGHTS.values()))
    while True:
        kind = list(WEIGHTS)[int(rng.choice(len(weights), p=weights / weights.sum()))]
        question = ask(rng, scene, kind)
        if question is not None:
            return question
