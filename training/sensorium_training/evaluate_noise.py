"""What noise does to event detection, with and without the preprocessing step that reduces it."""

from dataclasses import replace

import numpy as np
import torch

from sensorium_export.models.audio_encoder import AudioEncoder
from sensorium_server.stages.denoise import NOISE_REDUCTION
from sensorium_server.stages.events import sound_events
from sensorium_server.stages.log_mel import log_mel
from sensorium_training.detection import AUDIO_COLLAR_S
from sensorium_training.evaluate_media import RULES, Figures, detected, sounds_of
from sensorium_training.recordings import RECIPE, sounds_and_rng
from sensorium_training.world.waveform import synthesise

NOISE_DB = (-45.0, -30.0, -20.0)
"""Levels against full scale; training hears nothing above -35."""


def evaluate_noise(encoder: AudioEncoder, count: int) -> dict[str, Figures]:
    """Return event F1 by noise level, for each way to reduce noise."""
    return {
        f"{level_db:g} dBFS": {
            name: detected_in_noise(encoder, count, level_db, name) for name in NOISE_REDUCTION
        }
        for level_db in NOISE_DB
    }


@torch.no_grad()
def detected_in_noise(encoder: AudioEncoder, count: int, level_db: float, step: str) -> float:
    """Return the event F1, in percent, of `count` recordings in noise of one level."""
    truth, found = [], []
    for index in range(count):
        scene, rng = sounds_and_rng("test", index)
        noisy = synthesise(replace(scene, noise_db=level_db), rng)
        mel = torch.from_numpy(log_mel(NOISE_REDUCTION[step](noisy), RECIPE))[None]
        activity = encoder(mel, torch.ones(mel.shape[:2], dtype=torch.int64))[-1][0]
        truth.append(sounds_of(scene))
        found.append(sound_events(np.asarray(activity), RULES))
    return float(detected(truth, found, AUDIO_COLLAR_S)["f1"])
