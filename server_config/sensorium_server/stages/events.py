"""The stage `event_postprocess`: which sounds and actions begin and end when.

A sound is heard where the median of its activity over a few frames reaches the threshold; each run
of such frames is an event, from half a hop before its first frame's time to half a hop after its
last one's, and its score is the mean activity of the run. An action is seen where a track is
present and its most probable action is not the idle one; its score is the product of the two
probabilities. Events of one label that overlap become one, with the larger score: so they never
overlap, as usual in sound event detection.

Frames that `log_mel_mask` hides are silent, and a row whose `duration_s` is 0 has no tracks: a
missing modality adds no event, whatever its tensors hold.

Parameters in `config.pbtxt`:

| key | meaning | default |
|---|---|---|
| `audio_labels` | the sounds in the encoder's order, `beep,bell` | required |
| `video_labels` | the actions in the encoder's order, `stands still,moves left` | required |
| `idle_label` | the action that is no event | `stands still` |
| `hop_s` | time from one mel frame to the next, seconds | `0.032` |
| `sound_threshold` | least activity of a sound that is heard | `0.5` |
| `median_frames` | length of the median filter, odd | `5` |
| `min_frames` | shortest run that is an event, frames | `2` |
| `track_threshold` | least probability that a track is one | `0.5` |

Inputs `sound_activity` FP32 [n,mel_frames,sounds], `log_mel_mask` INT64 [n,mel_frames],
`track_actions` FP32 [n,tracks,actions], `track_spans` FP32 [n,tracks,3] and `duration_s` FP32
[n,1]; outputs `labels` BYTES, `scores`, `start_s` and `end_s` FP32, each [n,events], sorted by
start. Rows with fewer events than the longest end in empty labels.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from sensorium import contract
from sensorium.errors import ConfigurationError
from sensorium_server.settings import Settings
from sensorium_server.stages import Stage, StageConfig, Tensors
from sensorium_server.stages.encoded import shown
from sensorium_server.stages.labels import check_count, labels_from


class Event(NamedTuple):
    """What begins and ends when, and how probable it is."""

    label: str
    start_s: float
    end_s: float
    score: float


@dataclass(frozen=True)
class Rules:
    """When an activity or a track is an event; see the parameters above."""

    audio_labels: tuple[str, ...]
    video_labels: tuple[str, ...]
    idle_label: str = "stands still"
    hop_s: float = 0.032
    sound_threshold: float = 0.5
    median_frames: int = 5
    min_frames: int = 2
    track_threshold: float = 0.5

    def __post_init__(self) -> None:
        """Check the numbers.

        Raises:
            ConfigurationError: the filter has no middle frame, or a length is not positive.
        """
        if self.median_frames < 1 or self.median_frames % 2 == 0:
            raise ConfigurationError(
                f"median_frames = {self.median_frames} is not an odd number of frames, 1 or more"
            )
        if self.min_frames < 1 or not self.hop_s > 0:
            raise ConfigurationError(
                f"min_frames = {self.min_frames} and hop_s = {self.hop_s:g} must be positive"
            )

    @classmethod
    def from_config(cls, config: StageConfig) -> "Rules":
        """Read the parameters of `config.pbtxt`."""
        return cls(
            audio_labels=labels_from(config, "audio_labels"),
            video_labels=labels_from(config, "video_labels"),
            idle_label=config.text("idle_label", cls.idle_label),
            hop_s=config.numbers("hop_s", str(cls.hop_s))[0],
            sound_threshold=config.numbers("sound_threshold", str(cls.sound_threshold))[0],
            median_frames=config.integer("median_frames", cls.median_frames),
            min_frames=config.integer("min_frames", cls.min_frames),
            track_threshold=config.numbers("track_threshold", str(cls.track_threshold))[0],
        )


def stage(config: StageConfig, _settings: Settings) -> Stage:
    """Build the stage from its parameters."""
    rules = Rules.from_config(config)

    def postprocess(inputs: Tensors) -> Tensors:
        duration_s = shown(inputs, contract.DURATION_S)[:, 0]
        rows = zip(
            shown(inputs, contract.SOUND_ACTIVITY, inputs[contract.LOG_MEL_MASK.name]),
            shown(inputs, contract.TRACK_ACTIONS, duration_s > 0),
            shown(inputs, contract.TRACK_SPANS, duration_s > 0),
            duration_s.tolist(),
            strict=True,
        )
        return packed(
            [
                merged(sound_events(activity, rules) + track_events(actions, spans, seconds, rules))
                for activity, actions, spans, seconds in rows
            ]
        )

    return postprocess


def sound_events(activity: NDArray[Any], rules: Rules) -> list[Event]:
    """Return the sounds that are heard in one recording.

    Args:
        activity: float, [frames, sounds], probabilities; 0 in masked frames.
        rules: Labels, threshold and filter.
    """
    check_count(rules.audio_labels, activity.shape[1])
    heard = majority(activity >= rules.sound_threshold, rules.median_frames)
    kinds, firsts, ends = runs(heard.T)
    long = ends - firsts >= rules.min_frames
    kinds, firsts, ends = kinds[long], firsts[long], ends[long]
    # One more column lets a run end at the last frame; `reduceat` adds up what lies between two.
    flat = np.pad(activity.T.astype(np.float64), ((0, 0), (0, 1))).ravel()
    bounds = kinds * (len(activity) + 1) + np.stack([firsts, ends])
    scores = np.add.reduceat(flat, bounds.T.ravel())[::2] / (ends - firsts)
    starts_s = np.maximum(firsts - 0.5, 0) * rules.hop_s
    ends_s = (ends - 0.5) * rules.hop_s
    return _events(rules.audio_labels, kinds, starts_s, ends_s, scores)


def majority(active: NDArray[np.bool_], frames: int) -> NDArray[np.bool_]:
    """Return the median over an odd number of frames, [frames, …]; beyond the ends is silence.

    The median of zeros and ones is what more than half of them are.
    """
    half = frames // 2
    padded = np.pad(active, ((half, half), *((0, 0),) * (active.ndim - 1)))
    votes: NDArray[np.int64] = sliding_window_view(padded, frames, axis=0).sum(-1)
    return votes > half


def runs(
    active: NDArray[np.bool_],
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Return row, first column and column after the last of each run of True in [rows, columns]."""
    flips = np.diff(np.pad(active, ((0, 0), (1, 1))).astype(np.int8), axis=1)
    rows, firsts = np.nonzero(flips == 1)
    return rows, firsts, np.nonzero(flips == -1)[1]


def track_events(
    actions: NDArray[Any], spans: NDArray[Any], duration_s: float, rules: Rules
) -> list[Event]:
    """Return the actions that are seen in one clip.

    Args:
        actions: float, [tracks, actions], probabilities.
        spans: float, [tracks, 3]: presence, start and end as parts of the clip.
        duration_s: The clip's length.
        rules: Labels and threshold.
    """
    check_count(rules.video_labels, actions.shape[1])
    presence, kinds = spans[:, 0], actions.argmax(axis=1)
    starts, ends = np.sort(np.clip(spans[:, 1:], 0, 1), axis=1).T * duration_s
    idle = np.array(rules.video_labels)[kinds] == rules.idle_label
    seen = (presence >= rules.track_threshold) & ~idle & (ends > starts)
    scores = presence * actions.max(axis=1)
    return _events(rules.video_labels, kinds[seen], starts[seen], ends[seen], scores[seen])


def merged(events: Iterable[Event]) -> list[Event]:
    """Return the events by start, those of one label that overlap made one."""
    apart: list[Event] = []
    for event in sorted(events):
        last = apart[-1] if apart else None
        if last and last.label == event.label and event.start_s < last.end_s:
            end_s, score = max(last.end_s, event.end_s), max(last.score, event.score)
            apart[-1] = Event(event.label, last.start_s, end_s, score)
        else:
            apart.append(event)
    return sorted(apart, key=lambda event: (event.start_s, event.end_s))


def packed(rows: Sequence[Sequence[Event]]) -> Tensors:
    """Return each row's events as the contract's tensors, short rows filled with empty labels."""
    shape = (len(rows), max(map(len, rows), default=0))
    labels = np.full(shape, b"", np.object_)
    starts_s, ends_s, scores = (np.zeros(shape, np.float32) for _ in range(3))
    for row, events in enumerate(rows):
        for column, event in enumerate(events):
            labels[row, column] = event.label.encode()
            starts_s[row, column], ends_s[row, column] = event.start_s, event.end_s
            scores[row, column] = event.score
    return {
        contract.EVENT_LABELS.name: labels,
        contract.EVENT_SCORES.name: scores,
        contract.START_S.name: starts_s,
        contract.END_S.name: ends_s,
    }


def _events(labels: Sequence[str], kinds: NDArray[Any], *columns: NDArray[Any]) -> list[Event]:
    """Make events of the index of each label, the starts, the ends and the scores."""
    values = (column.tolist() for column in columns)
    return [Event(labels[kind], *rest) for kind, *rest in zip(kinds.tolist(), *values, strict=True)]
