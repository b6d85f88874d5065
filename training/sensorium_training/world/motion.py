"""Clips: what moves how and when, drawn from a seed.

Times are in seconds, lengths in units of the picture's side, as in `scene`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from sensorium_training.world import sound
from sensorium_training.world.scene import (
    BACKGROUNDS,
    MAX_TILT_RAD,
    RADIUS_RANGES,
    SIZES,
    TEXTURES,
    Thing,
    draw_kind,
)
from sensorium_training.world.sound import CLIP_S, SoundScene

ACTIONS = (
    "stands still", "moves left", "moves right", "moves up", "moves down", "grows", "shrinks",
    "appears", "disappears", "blinks", "shakes", "circles", "jumps", "collides",
)  # fmt: skip
MAX_ACTORS = 4

_COUNT_WEIGHTS = (0.24, 0.32, 0.28, 0.16)
_COLLISIONS = 0.16
_SILENT = 0.5
_REACH = {
    "moves left": (0.25, 0.4), "moves right": (0.25, 0.4), "moves up": (0.25, 0.4),
    "moves down": (0.25, 0.4), "shakes": (0.045, 0.055), "circles": (0.07, 0.09),
    "jumps": (0.15, 0.2),
}  # fmt: skip
_HEADING = {
    "moves left": (-1, 0), "moves right": (1, 0), "moves up": (0, -1), "moves down": (0, 1),
}  # fmt: skip
_SPAN_S = (1.0, 2.5)
_FADE_S = (0.3, 0.6)
_CALM_S = 0.2
_BLINK_S = 0.25
_SHAKE_S = 0.4
_GAP = 0.012
_APART = (0.2, 0.5)
"""Range of the free way between two that will collide."""

_ZONE_MARGIN = 0.025
_ATTEMPTS = 60
_CHECK_TIMES = tuple(float(t) for t in np.linspace(0, CLIP_S, 41))


@dataclass(frozen=True, slots=True)
class Actor:
    """A thing, where it stands at first (once it is there), and the one action that it does.

    `action` is an index into `ACTIONS`; "stands still" spans the whole clip. Two actors of a clip
    never share colour and shape. Who collides does so with its `partner`, an index into the clip's
    actors: both act over the same span and meet in the middle of it. `reach` is how far the action
    goes: the length of a move, the height of a jump, the amplitude of a shake, the radius of a
    circle (below zero: upwards first), or the radius that a thing grows or shrinks to.
    """

    thing: Thing
    action: int
    start_s: float
    end_s: float
    partner: int | None = None
    reach: float = 0.0


@dataclass(frozen=True, slots=True)
class Clip:
    """A background, one to four actors in reading order of their zones, and perhaps sounds."""

    background: int
    actors: tuple[Actor, ...]
    sounds: SoundScene | None

    def poses(self, t: float) -> "list[Pose]":
        """Return where each actor is at time `t`."""
        return [
            pose(a, None if a.partner is None else self.actors[a.partner], t) for a in self.actors
        ]


class Pose(NamedTuple):
    """Where an actor's thing is at one time, and how opaque: 0 is out of sight, 1 fully there."""

    x: float
    y: float
    radius: float
    visible: float


def pose(actor: Actor, partner: Actor | None, t: float) -> Pose:
    """Return the actor's pose at time `t`; `partner` is who it collides with."""
    thing, name = actor.thing, ACTIONS[actor.action]
    part = min(max((t - actor.start_s) / (actor.end_s - actor.start_s), 0.0), 1.0)
    acts = actor.start_s <= t < actor.end_s
    eased = part * part * (3 - 2 * part)
    dx = dy = 0.0
    radius, visible = thing.radius, 1.0
    if name in _HEADING:
        dx, dy = (h * actor.reach * eased for h in _HEADING[name])
    elif name in {"grows", "shrinks"}:
        radius += (actor.reach - radius) * eased
    elif name == "appears":
        visible = part
    elif name == "disappears":
        visible = 1 - part
    elif name == "blinks":
        visible = float(not acts or int((t - actor.start_s) / _BLINK_S) % 2 == 1)
    elif name == "shakes":
        dx = acts * actor.reach * math.sin(2 * math.pi * (t - actor.start_s) / _SHAKE_S)
    elif name == "circles":
        dx = actor.reach * math.sin(2 * math.pi * part)
        dy = actor.reach * (1 - math.cos(2 * math.pi * part))
    elif name == "jumps":
        dy = -actor.reach * 4 * part * (1 - part)
    elif name == "collides" and partner is not None:
        away_x, away_y = partner.thing.x - thing.x, partner.thing.y - thing.y
        apart = math.hypot(away_x, away_y)
        closer = (apart - radius - partner.thing.radius) / 2 * (1 - abs(2 * part - 1)) / apart
        dx, dy = away_x * closer, away_y * closer
    return Pose(thing.x + dx, thing.y + dy, radius, visible)


def draw_clip(rng: np.random.Generator, *, held_out: bool = False) -> Clip:
    """Draw a clip; with `held_out`, one thing is a held-out pair, else none is."""
    (ear,) = rng.spawn(1)
    count = int(rng.choice(len(_COUNT_WEIGHTS), p=_COUNT_WEIGHTS)) + 1
    kinds: list[tuple[int, int]] = []
    while len(kinds) < count:
        kind = draw_kind(rng, held_out=held_out and not kinds)
        if kind not in kinds:
            kinds.append(kind)
    actors: list[Actor] = []
    if count > 1 and rng.random() < _COLLISIONS:
        actors = _draw_collision(rng, kinds[0], kinds[1])
    for kind in kinds[len(actors) :]:
        actors += _draw_actor(rng, kind, actors)
    return Clip(
        int(rng.integers(len(BACKGROUNDS))),
        _in_reading_order(actors),
        None if ear.random() < _SILENT else sound.draw_sounds(ear),
    )


def _in_reading_order(actors: Sequence[Actor]) -> tuple[Actor, ...]:
    order = sorted(range(len(actors)), key=lambda i: actors[i].thing.zone)
    return tuple(
        actor if actor.partner is None else replace(actor, partner=order.index(actor.partner))
        for actor in (actors[i] for i in order)
    )


def _draw_collision(
    rng: np.random.Generator, first: tuple[int, int], second: tuple[int, int]
) -> list[Actor]:
    """Draw two that meet head-on, side by side or one above the other."""
    start_s, end_s = _draw_span(rng, "collides")
    while True:
        a, b = _draw_thing(rng, first), _draw_thing(rng, second)
        b = _moved(b, b.x, a.y) if rng.random() < 1 / 2 else _moved(b, a.x, b.y)
        apart = math.hypot(a.x - b.x, a.y - b.y) - a.radius - b.radius
        pair = [
            Actor(thing, ACTIONS.index("collides"), start_s, end_s, 1 - i)
            for i, thing in enumerate((a, b))
        ]
        if _APART[0] < apart < _APART[1] and all(_fits(actor, []) for actor in pair):
            return pair


def _draw_actor(
    rng: np.random.Generator, kind: tuple[int, int], others: Sequence[Actor]
) -> list[Actor]:
    """Draw one actor that keeps clear of the others, or none if that does not work out."""
    action = int(rng.integers(len(ACTIONS) - 1))
    name = ACTIONS[action]
    start_s, end_s = _draw_span(rng, name)
    for _ in range(_ATTEMPTS if others else _ATTEMPTS**2):
        thing = _draw_thing(rng, kind, {"grows": 0, "shrinks": 1}.get(name))
        reach = float(rng.uniform(*_REACH.get(name, (0, 0))))
        if name in {"grows", "shrinks"}:
            reach = float(rng.uniform(*RADIUS_RANGES[1 - thing.size]))
        elif name == "circles" and rng.random() < 1 / 2:
            reach = -reach
        actor = Actor(thing, action, start_s, end_s, reach=reach)
        if _fits(actor, others):
            return [actor]
    return []


def _draw_span(rng: np.random.Generator, name: str) -> tuple[float, float]:
    if name == "stands still":
        return 0.0, CLIP_S
    if name in {"appears", "disappears"}:
        start_s = float(rng.uniform(2 * _CALM_S, 0.75 * CLIP_S))
        return start_s, start_s + float(rng.uniform(*_FADE_S))
    length = float(rng.uniform(*_SPAN_S))
    start_s = float(rng.uniform(_CALM_S, CLIP_S - _CALM_S - length))
    return start_s, start_s + length


def _draw_thing(rng: np.random.Generator, kind: tuple[int, int], size: int | None = None) -> Thing:
    size = int(rng.integers(len(SIZES))) if size is None else size
    radius = float(rng.uniform(*RADIUS_RANGES[size]))
    x, y = (float(v) for v in rng.uniform(radius, 1 - radius, 2))
    texture = int(rng.integers(len(TEXTURES)))
    tilt_rad = float(rng.uniform(-MAX_TILT_RAD, MAX_TILT_RAD))
    return _moved(Thing(kind[1], kind[0], size, texture, 0, x, y, radius, tilt_rad), x, y)


def _moved(thing: Thing, x: float, y: float) -> Thing:
    return replace(thing, x=x, y=y, zone=int(y * 3) * 3 + int(x * 3))


def _fits(actor: Actor, others: Sequence[Actor]) -> bool:
    """Tell whether the actor starts well inside a zone of its own, stays in and touches nobody."""
    thing = actor.thing
    if any(other.thing.zone == thing.zone for other in others):
        return False
    if any(abs(v - line) < _ZONE_MARGIN for v in (thing.x, thing.y) for line in (1 / 3, 2 / 3)):
        return False
    for t in _CHECK_TIMES:
        here = pose(actor, None, t)
        if not all(here.radius <= v <= 1 - here.radius for v in (here.x, here.y)):
            return False
        for other in others:
            there = pose(other, None if other.partner is None else others[other.partner], t)
            reach = here.radius + there.radius + _GAP
            if math.hypot(here.x - there.x, here.y - there.y) < reach:
                return False
    return True
