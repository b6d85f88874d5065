"""Evaluation of sounds, clips and joint questions on held-out seeds, from the bytes of files.

Tags and events come through the server's own postprocessing.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sensorium_export.models import MultimodalModel
from sensorium_export.models.audio_encoder import AudioEncoder
from sensorium_export.models.video_encoder import VideoEncoder
from sensorium_server.stages.events import Event, Rules, merged, sound_events, track_events
from sensorium_training.dataset import pixels, scenes
from sensorium_training.detection import AUDIO_COLLAR_S, VIDEO_COLLAR_S, Span, detection, tagging
from sensorium_training.entities import AUDIO, IMAGE, VIDEO
from sensorium_training.evaluate import Answered, Seen, answer, captioning, percent, retrieving, see
from sensorium_training.examples import Words
from sensorium_training.films import clips, frames, sound_tracks
from sensorium_training.material import Posed, joined
from sensorium_training.recordings import log_mels, sound_scenes
from sensorium_training.vision import pixel_values
from sensorium_training.world.clip_caption import clip_caption
from sensorium_training.world.clip_question import CLIP_KINDS, ask_clip
from sensorium_training.world.joint_question import JOINT_KINDS, ask_joint
from sensorium_training.world.motion import ACTIONS, Clip
from sensorium_training.world.question import Question
from sensorium_training.world.sound import CLIP_S, SOUNDS, SoundScene
from sensorium_training.world.sound_caption import sound_caption
from sensorium_training.world.sound_question import SOUND_KINDS, ask_sound

RULES = Rules(SOUNDS, ACTIONS)
_BATCH = 100
_STILL = ACTIONS.index("stands still")

Figures = dict[str, Any]


@torch.no_grad()
def hear(
    encoder: AudioEncoder, scenes_heard: list[SoundScene], mels: NDArray[np.float16]
) -> tuple[Seen[SoundScene], Tensor]:
    """Encode log-mels; return what was heard and the activity [recordings, frames, sounds]."""
    parts = []
    for start in range(0, len(mels), _BATCH):
        log_mel = torch.from_numpy(np.array(mels[start : start + _BATCH], np.float32))
        parts.append(encoder(log_mel, torch.ones(log_mel.shape[:2], dtype=torch.int64)))
    tokens, mask, embedding, activity = (torch.cat(column) for column in zip(*parts, strict=True))
    return Seen(scenes_heard, tokens, mask, embedding), activity


@torch.no_grad()
def watch(
    encoder: VideoEncoder, clips_seen: list[Clip], pictures: NDArray[np.uint8]
) -> tuple[Seen[Clip], Tensor, Tensor]:
    """Encode the frames of clips; return what was seen, and track actions and spans."""
    parts = [
        encoder(torch.stack([pixel_values(clip) for clip in pictures[start : start + _BATCH]]))
        for start in range(0, len(pictures), _BATCH)
    ]
    tokens, mask, embedding, actions, spans = (
        torch.cat(column) for column in zip(*parts, strict=True)
    )
    return Seen(clips_seen, tokens, mask, embedding), actions, spans


def sounds_of(scene: SoundScene | None) -> list[Event]:
    """Return the true events of a sound scene."""
    events = scene.events if scene else ()
    return [Event(SOUNDS[e.kind], e.start_s, e.end_s, 1.0) for e in events]


def actions_of(clip: Clip) -> list[Event]:
    """Return the true events of a clip; those of one action that overlap are one."""
    return merged(
        Event(ACTIONS[actor.action], actor.start_s, actor.end_s, 1.0)
        for actor in clip.actors
        if actor.action != _STILL
    )


def labelled(truth: NDArray[np.bool_], scores: NDArray[np.float32]) -> Figures:
    """Return tagging measures in percent, at a threshold of 0.5."""
    return _in_percent(asdict(tagging(truth, scores)))


def detected(
    truth: Iterable[Sequence[Event]], found: Iterable[Sequence[Event]], collar_s: float
) -> Figures:
    """Return event-based F1, precision, recall and temporal IoU in percent."""
    pairs = [
        ([Span(*one[:3]) for one in true], [Span(*one[:3]) for one in other])
        for true, other in zip(truth, found, strict=True)
    ]
    return _in_percent(asdict(detection(pairs, collar_s)))


def _in_percent(measures: Mapping[str, float | None]) -> Figures:
    return {name: percent(value) for name, value in measures.items() if value is not None}


def answered_share(done: Mapping[str, Sequence[Answered]]) -> Figures:
    """Return the share of right answers of each kind, and over all of them."""
    every = [one.right for kind in done.values() for one in kind]
    return {
        "overall": percent(np.mean(every)),
        **{kind: percent(np.mean([one.right for one in d])) for kind, d in done.items() if d},
    }


Ask = Callable[..., Question | None]


def answering(
    reader: tuple[MultimodalModel, Words],
    media: tuple[Tensor, Tensor],
    worlds: Sequence[Any],
    ask: Ask,
    kinds: Iterable[str],
) -> dict[str, list[Answered]]:
    """Answer one question of every kind about every world that allows it."""
    done = {}
    for number, kind in enumerate(kinds):
        rng = np.random.default_rng([97, number])
        asked = [(i, ask(rng, world, kind)) for i, world in enumerate(worlds)]
        done[kind] = answer(*reader, media, [(i, q) for i, q in asked if q is not None])
    return done


def evaluate_sounds(model: MultimodalModel, words: Words, cache: Path, count: int) -> Figures:
    """Return all figures about recordings."""
    mels = log_mels("test", count, cache)
    seen, activity = hear(model.audio_encoder, sound_scenes("test", count), mels)
    truth = np.zeros((count, len(SOUNDS)), bool)
    for row, scene in enumerate(seen.worlds):
        truth[row, [event.kind for event in scene.events]] = True
    found = [sound_events(row, RULES) for row in activity.numpy()]
    done = answering((model, words), (seen.tokens, seen.mask), seen.worlds, ask_sound, SOUND_KINDS)
    return {
        "recordings": count,
        "questions": sum(map(len, done.values())),
        "tagging": labelled(truth, activity.amax(1).numpy()),
        "events": detected(map(sounds_of, seen.worlds), found, AUDIO_COLLAR_S),
        "answers": answered_share(done),
        "retrieval": retrieving(model, words, seen, sound_caption, AUDIO),
    }


def evaluate_clips(model: MultimodalModel, words: Words, cache: Path, count: int) -> Figures:
    """Return all figures about clips."""
    seen, actions, spans = watch(
        model.video_encoder, clips("test", count), frames("test", count, cache)
    )
    scores = (spans[..., :1] * actions).amax(1).numpy()
    truth = np.zeros((count, len(ACTIONS)), bool)
    for row, clip in enumerate(seen.worlds):
        truth[row, [actor.action for actor in clip.actors]] = True
    found = [
        merged(track_events(a, s, CLIP_S, RULES))
        for a, s in zip(actions.numpy(), spans.numpy(), strict=True)
    ]
    audible = {row: clip.sounds for row, clip in enumerate(seen.worlds) if clip.sounds}
    loud = list(audible)
    heard, activity = hear(
        model.audio_encoder,
        list(audible.values()),
        sound_tracks("test", count, cache)[loud],
    )
    of_row = {row: at for at, row in enumerate(loud)}
    empty = Question("")
    media = joined(
        [
            Posed(empty, {VIDEO: row} | ({AUDIO: of_row[row]} if row in of_row else {}))
            for row in range(count)
        ],
        {VIDEO: (seen.tokens, seen.mask), AUDIO: (heard.tokens, heard.mask)},
    )
    done = answering((model, words), media, seen.worlds, ask_clip, CLIP_KINDS)
    both = [
        merged([*found[row], *sound_events(activity[at].numpy(), RULES)])
        for row, at in of_row.items()
    ]
    all_true = [
        merged([*actions_of(seen.worlds[row]), *sounds_of(seen.worlds[row].sounds)]) for row in loud
    ]
    return {
        "clips": count,
        "questions": sum(map(len, done.values())),
        "actions": labelled(truth, scores),
        "events": detected(map(actions_of, seen.worlds), found, VIDEO_COLLAR_S),
        "events_with_sound": detected(all_true, both, VIDEO_COLLAR_S),
        "answers": answered_share(done),
        "captions": captioning(model, words, seen, clip_caption),
        "retrieval": retrieving(model, words, seen, clip_caption, VIDEO),
    }


def evaluate_joint(model: MultimodalModel, words: Words, cache: Path, count: int) -> Figures:
    """Return how many questions about a picture and a recording together are answered right."""
    size = model.config.image_size
    seen = see(model, "test", pixels("test", count, size, cache))
    heard, _ = hear(
        model.audio_encoder, sound_scenes("test", count), log_mels("test", count, cache)
    )
    pairs = list(zip(scenes("test", count), heard.worlds, strict=True))
    rows = [Posed(Question(""), {IMAGE: row, AUDIO: row}) for row in range(count)]
    media = joined(rows, {IMAGE: (seen.tokens, seen.mask), AUDIO: (heard.tokens, heard.mask)})

    def ask(rng: np.random.Generator, pair: tuple[Any, Any], kind: str) -> Question | None:
        return ask_joint(rng, *pair, kind)

    done = answering((model, words), media, pairs, ask, JOINT_KINDS)
    return {"questions": sum(map(len, done.values())), "answers": answered_share(done)}
