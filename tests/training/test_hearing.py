"""The audio network's dense labels, and a few steps that learn them."""

from pathlib import Path

import numpy as np
import pytest
import torch

from sensorium_export.models import ModelConfig
from sensorium_export.models.audio_encoder import FEATURES, FRAME_S, AudioEncoder
from sensorium_server.settings import load
from sensorium_training import journal
from sensorium_training.hearing import (
    HearingPlan,
    augmented,
    hear,
    hearing_figures,
    learned_by_hearing,
    mel_values,
    train_hearing,
)
from sensorium_training.recordings import FRAMES, heard_log_mel, recording, sound_scenes
from sensorium_training.sound_labels import labels_from_sounds
from sensorium_training.workers import Worker
from sensorium_training.world.sound import SOUNDS, SoundEvent, SoundScene


def test_labels_know_what_sounds_in_each_frame() -> None:
    """A sound's frames, its onset's heat, and its start and length seen from the onset."""
    start, end = 10.25 * FRAME_S, 30.5 * FRAME_S
    scenes = [
        SoundScene((SoundEvent(3, start, end, -10), SoundEvent(5, 20.1 * FRAME_S, 2.0, -20)), -50),
        SoundScene((SoundEvent(3, 1.0, 2.0, -10),), -50),
    ]
    targets = labels_from_sounds(scenes)[torch.tensor([0])].targets(FRAMES)

    assert torch.nonzero(targets.activity[0, :, 3]).ravel().tolist() == list(range(11, 31))
    assert targets.activity[0, :, 5].sum() == 62 - 20
    assert targets.activity.sum() == 20 + 42, "padded events are nowhere"
    expected = np.exp(-((np.arange(FRAMES) - 10.25) ** 2) / 2)
    np.testing.assert_allclose(targets.onset[0, :, 3], expected, atol=1e-4)
    assert torch.nonzero(targets.near[0]).ravel().tolist() == [10, 11, 20, 21]
    assert targets.start[0, 11].item() == pytest.approx(-0.75 * FRAME_S, abs=1e-4)
    assert targets.duration[0, 10].item() == pytest.approx(20.25 * FRAME_S, abs=1e-4)


def test_augmentation_keeps_the_range() -> None:
    """Sounds get louder and softer by at most 13 dB, never below silence; bands are hidden."""
    log_mel = torch.randn(64, 20, 64).clamp(-2)
    changed = augmented(log_mel, np.random.default_rng(0))

    unhidden = (changed - log_mel)[changed > -2].abs() <= 0.65
    assert changed.min() >= -2
    assert 0.9 < unhidden.float().mean() < 1
    loud = log_mel > 0
    louder = [
        float((new - old)[here].median())
        for new, old, here in zip(changed, log_mel, loud, strict=True)
    ]
    assert -0.55 < min(louder) < -0.3, "softer"
    assert 0.15 < max(louder) < 0.35, "louder"


def test_a_few_steps_learn_and_hear(tmp_path: Path) -> None:
    """On eight recordings the loss falls fast, and `hear` keeps what `select` gives."""
    torch.manual_seed(0)
    mels = np.stack([heard_log_mel(recording("train", index), load()) for index in range(8)])
    scenes = sound_scenes("train", 8)
    encoder = AudioEncoder(ModelConfig(vocabulary=1, sounds=len(SOUNDS)))
    before = [p.clone() for p in encoder.parameters()]
    path = tmp_path / "hearing.jsonl"

    plan = HearingPlan(steps=100, batch=8)
    labels = labels_from_sounds(scenes)
    train_hearing(Worker(0, 1), encoder, mels, labels, plan=plan, journal_path=path)

    first, last = journal.read(path)
    assert float(last["loss"]) < float(first["loss"]) * 0.8
    figures = hearing_figures(encoder, mels, scenes)
    assert figures["tag_accuracy"] > 0.8
    moved = {id(p) for p, q in zip(encoder.parameters(), before, strict=True) if (p != q).any()}
    assert moved == {id(p) for p in learned_by_hearing(encoder).parameters()}

    heard = hear(encoder, mels, batch=3)
    with torch.no_grad():
        described, mean, _ = encoder.select(*mel_values(mels))
    assert heard.described.shape == (8, 10, FEATURES + len(SOUNDS) + 3)
    rows = torch.tensor([5, 2])
    torch.testing.assert_close(heard[rows], (described[rows], mean[rows]), atol=0.01, rtol=0.01)
