"""The stage "watching": whose slots and tracks are, what it learns, what it hands on."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from sensorium_export.models import ModelConfig
from sensorium_export.models.cnn import CHANNELS, CnnImageEncoder
from sensorium_export.models.tracker import Tracker
from sensorium_export.models.video_encoder import VideoEncoder
from sensorium_training import journal
from sensorium_training.clip_labels import ClipLabels, labels_from_clips
from sensorium_training.films import clips
from sensorium_training.watching import (
    WatchingPlan,
    glimpse,
    learned_by_watching,
    owners,
    train_watching,
    true_actions,
    watch,
    watching_figures,
)
from sensorium_training.workers import Worker
from sensorium_training.world.motion import ACTIONS

CONFIG = ModelConfig(vocabulary=1, actions=len(ACTIONS))
CLIPS = clips("train", 128)
LABELS = labels_from_clips(CLIPS, CONFIG.frames)


def encoder_of(seed: int) -> VideoEncoder:
    """Build an untrained encoder."""
    torch.manual_seed(seed)
    return VideoEncoder(CONFIG, CnnImageEncoder(CONFIG)).eval()


def ideal_slots(labels: ClipLabels) -> torch.Tensor:
    """Return slots as a perfect image network would see them: kind and opacity as features."""
    opacity = (labels.visible * labels.present[..., None]).transpose(1, 2)
    count, frames, actors = opacity.shape
    slots = torch.zeros(count, frames, CONFIG.objects, CHANNELS + 3)
    kinds = torch.cat(
        [
            torch.nn.functional.one_hot(labels.attributes[..., i], 8).float() * 2
            for i in range(labels.attributes.shape[-1])
        ],
        dim=-1,
    )
    slots[:, :, :actors, :32] = kinds[:, None] * opacity[..., None]
    slots[:, :, :actors, 32] = 8 * opacity
    slots[..., CHANNELS : CHANNELS + 2] = torch.rand(*slots.shape[:3], 2)
    slots[:, :, :actors, CHANNELS : CHANNELS + 2] = labels.place.transpose(1, 2)
    slots[:, :, :actors, CHANNELS + 2] = opacity
    return slots


def test_the_second_track_of_an_actor_is_none() -> None:
    """A track that starts at an owned slot is its actor's, but only the first one counts."""
    labels = LABELS[torch.tensor([next(i for i, c in enumerate(CLIPS) if len(c.actors) == 1)])]
    frame = int(labels.visible[0, 0].argmax())
    slots = ideal_slots(labels)
    position, objectness = slots[..., CHANNELS:-1], slots[..., -1]
    first = frame * CONFIG.objects
    picked = torch.tensor([[first + 5, first, first]])

    known = owners(labels, position, objectness, picked)

    assert known.owned.tolist() == [[False, True, True]]
    assert known.first.tolist() == [[False, True, False]]
    assert known.opacity[0, frame].tolist() == [1] + [0] * 7


def test_watch_keeps_what_select_gives() -> None:
    """The language stage's cache holds `select`'s described slots and mean cells."""
    encoder = encoder_of(0)
    films = np.random.default_rng(0).integers(0, 256, (3, 16, 64, 64, 3), np.uint8)
    described, mean = watch(encoder, films, batch=2)[torch.tensor([2, 0])]
    frames = torch.from_numpy(films[[2, 0]]).permute(0, 1, 4, 2, 3).float() / 127.5 - 1
    with torch.no_grad():
        expected = encoder.select(frames)

    torch.testing.assert_close(mean, expected[1], rtol=2e-3, atol=2e-3)
    assert described.dtype == torch.float32
    torch.testing.assert_close(described, expected[0], rtol=0.02, atol=0.02)


def test_what_was_learned_can_be_put_into_another_encoder() -> None:
    """The stage's weights are the tracker's alone."""
    one, other = encoder_of(0), encoder_of(1)
    learned_by_watching(other).load_state_dict(learned_by_watching(one).state_dict())

    for a, b in zip(one.tracker.parameters(), other.tracker.parameters(), strict=True):
        assert torch.equal(a, b)
    assert not torch.equal(one.whole.weight, other.whole.weight)


def test_standing_still_is_no_event() -> None:
    """True events are all actions but standing still, those of one action that overlap merged."""
    for clip in CLIPS:
        events = true_actions(clip)
        assert {event.label for event in events} == {
            ACTIONS[actor.action] for actor in clip.actors
        } - {"stands still"}


def test_frames_without_objects_give_no_track() -> None:
    """A tracker that finds all slots weak says so by its clearness."""
    torch.manual_seed(0)
    tracker = Tracker(CONFIG)
    tracker.strength.bias.data.fill_(-9)
    seen = tracker.look(torch.zeros(1, 16, 8, CHANNELS), torch.rand(1, 16, 8, 2))

    assert (tracker.pick(seen, seen.strength)[1] < -8).all()


@pytest.mark.slow
def test_the_tracker_learns(tmp_path: Path) -> None:
    """A few dozen steps on what a perfect image network sees find most objects and actions."""
    torch.set_num_threads(1)
    encoder, path = encoder_of(0), tmp_path / "journal.jsonl"
    slots = ideal_slots(LABELS).half()
    before = watching_figures(encoder, slots, CLIPS)

    plan = WatchingPlan(steps=150, batch=32)
    train_watching(Worker(0, 1), encoder.tracker, slots, LABELS, plan=plan, journal_path=path)

    after = watching_figures(encoder, slots, CLIPS)
    reports = journal.read(path)
    assert [report["step"] for report in reports] == [50, 100, 150]
    assert float(reports[-1]["loss"]) < float(reports[0]["loss"])
    assert after["event_f1"] > before["event_f1"] + 0.3
    assert after["counted"] > 0.6


def test_the_command_explains_itself() -> None:
    """`--help` names every option."""
    command = [sys.executable, "-m", "sensorium_training.watching", "--help"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout

    for option in ("--cache", "--checkpoint", "--workers", "--clips", "--steps"):
        assert option in shown


def test_glimpses_are_each_frames_own() -> None:
    """What is seen of a frame does not depend on the frames around it."""
    encoder = encoder_of(0)
    films = np.random.default_rng(1).integers(0, 256, (1, 16, 64, 64, 3), np.uint8)
    backwards = np.ascontiguousarray(films[:, ::-1])

    one, other = glimpse(encoder, films).slots, glimpse(encoder, backwards).slots
    torch.testing.assert_close(one.flip(1), other, rtol=2e-3, atol=2e-3)
