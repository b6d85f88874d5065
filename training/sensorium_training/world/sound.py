"""Sound scenes: which sounds are heard when, drawn from a seed. Times are in seconds."""

from dataclasses import dataclass

import numpy as np

SOUNDS = (
    "beep", "bell", "siren", "whistle", "buzz", "drum", "knock", "hiss", "horn", "bird", "bark",
    "drop",
)  # fmt: skip
MAX_SOUNDS = 5
CLIP_S = 4.0
"""Length of the world's sound scenes and clips."""

ORDER_GAP_S = 0.2
"""Least time between two starts, and between two events of one kind."""


@dataclass(frozen=True, slots=True)
class SoundEvent:
    """One sound; `kind` is an index into `SOUNDS`, `level_db` its loudness against full scale."""

    kind: int
    start_s: float
    end_s: float
    level_db: float


@dataclass(frozen=True, slots=True)
class SoundScene:
    """One to five sounds in order of their starts, over noise of `noise_db`."""

    events: tuple[SoundEvent, ...]
    noise_db: float


_MARGIN_S = 0.1
_DURATION_S = (0.25, 1.2)
_LEVEL_DB = (-24.0, -8.0)
_NOISE_DB = (-65.0, -35.0)
_REPEAT = 0.3
"""Chance that a sound repeats one that is already there, so that counting is worth asking."""

_TRIES = 40


def draw_sounds(rng: np.random.Generator) -> SoundScene:
    """Draw one to five sounds; sounds of different kinds may overlap."""
    count = int(rng.integers(1, MAX_SOUNDS + 1))
    events: list[SoundEvent] = []
    for _ in range(_TRIES):
        event = _draw_event(rng, events)
        if all(_apart(event, other) for other in events):
            events.append(event)
        if len(events) == count:
            break
    events.sort(key=lambda event: event.start_s)
    return SoundScene(tuple(events), float(rng.uniform(*_NOISE_DB)))


def _draw_event(rng: np.random.Generator, others: list[SoundEvent]) -> SoundEvent:
    kind = int(rng.integers(len(SOUNDS)))
    if others and rng.random() < _REPEAT:
        kind = others[int(rng.integers(len(others)))].kind
    duration = rng.uniform(*_DURATION_S)
    start = rng.uniform(_MARGIN_S, CLIP_S - _MARGIN_S - duration)
    return SoundEvent(kind, float(start), float(start + duration), float(rng.uniform(*_LEVEL_DB)))


def _apart(one: SoundEvent, other: SoundEvent) -> bool:
    """Tell whether two sounds can be told apart: by their starts, and by silence if of one kind."""
    if abs(one.start_s - other.start_s) < ORDER_GAP_S:
        return False
    silence = max(one.start_s - other.end_s, other.start_s - one.end_s)
    return one.kind != other.kind or silence >= ORDER_GAP_S
