"""Labels and events for the reference, written down frame by frame and track by track."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from statistics import median

import numpy as np
from numpy.typing import NDArray

from sensorium_export.recipe import Recipe

Numbers = NDArray[np.float32]


@dataclass(frozen=True, slots=True, order=True)
class Event:
    """What begins and ends when, and how probable it is."""

    start_s: float
    end_s: float
    label: str
    score: float

    def joined(self, other: "Event") -> "Event":
        """Return one event in the place of two that overlap."""
        start_s, end_s = min(self.start_s, other.start_s), max(self.end_s, other.end_s)
        return Event(start_s, end_s, self.label, max(self.score, other.score))


def ranked(scores: Sequence[float], labels: Sequence[str]) -> list[tuple[str, float]]:
    """Return labels with their scores, best first; of equal ones the first stays first."""
    return sorted(zip(labels, scores, strict=True), key=lambda pair: -pair[1])


def tag_scores(activity: Numbers, mask: NDArray[np.int64]) -> list[float]:
    """Return each sound's greatest activity in a valid frame, from [frames, sounds]."""
    heard = [row for row, valid in zip(activity, mask, strict=True) if valid]
    return [float(max((row[sound] for row in heard), default=0)) for sound in _columns(activity)]


def action_scores(actions: Numbers, spans: Numbers) -> list[float]:
    """Return each action's greatest presence times probability over the tracks."""
    return [
        float(max(span[0] * track[action] for track, span in zip(actions, spans, strict=True)))
        for action in _columns(actions)
    ]


def sound_events(activity: Numbers, mask: NDArray[np.int64], recipe: Recipe) -> list[Event]:
    """Return the sounds that are heard, from probabilities [frames, sounds]."""
    if recipe.audio is None:
        return []
    rules, hop_s, events = recipe.events, recipe.audio.hop_s, []
    for sound, label in enumerate(recipe.audio_labels):
        levels = [float(level) for level in activity[:, sound] * mask]
        heard = _smoothed([level >= rules.sound_threshold for level in levels], rules.median_frames)
        for is_heard, run in groupby(range(len(levels)), key=heard.__getitem__):
            frames = list(run)
            if is_heard and len(frames) >= rules.min_frames:
                score = sum(levels[frame] for frame in frames) / len(frames)
                start_s = max(frames[0] - 0.5, 0) * hop_s
                events.append(Event(start_s, (frames[-1] + 0.5) * hop_s, label, score))
    return events


def track_events(
    actions: Numbers, spans: Numbers, duration_s: float, recipe: Recipe
) -> list[Event]:
    """Return the actions that are seen, from probabilities [tracks, actions] and spans."""
    events = []
    for probabilities, (presence, *span) in zip(actions, spans, strict=True):
        action = int(probabilities.argmax())
        label = recipe.video_labels[action]
        start_s, end_s = (float(min(max(part, 0), 1)) * duration_s for part in sorted(span))
        is_seen = presence >= recipe.events.track_threshold and end_s > start_s
        if is_seen and label != recipe.events.idle_label:
            score = float(presence * probabilities[action])
            events.append(Event(start_s, end_s, label, score))
    return events


def merged(events: Sequence[Event]) -> list[Event]:
    """Return the events by start, those of one label that overlap made one."""
    apart: list[Event] = []
    for event in sorted(events):
        joined = event
        for other in [one for one in apart if one.label == event.label]:
            if other.end_s > joined.start_s:
                apart.remove(other)
                joined = joined.joined(other)
        apart.append(joined)
    return sorted(apart)


def _columns(rows: Numbers) -> range:
    return range(rows.shape[1])


def _smoothed(heard: Sequence[bool], frames: int) -> list[bool]:
    """Return the running median; beyond the ends is silence."""
    half = frames // 2
    padded = [False] * half + list(heard) + [False] * half
    return [bool(median(padded[frame : frame + frames])) for frame in range(len(heard))]
