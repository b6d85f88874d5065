"""Bytes to arrays for the reference."""

from dataclasses import replace

import numpy as np
import pytest
from tests.server import media

from sensorium.errors import ConfigurationError
from sensorium_export.recipe import AudioRecipe, ImageRecipe, VideoRecipe
from sensorium_export.reference_input import clip, log_mel, track_log_mel

AUDIO = AudioRecipe(
    sample_rate=16_000, n_fft=1024, hop=512, mels=64, min_hz=50, max_hz=7600, mean=-4, std=2
)
PICTURE = ImageRecipe(8, "bicubic", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), "squash")
FLOOR = -2.0
"""What the least power of 1e-8 becomes."""


def test_silence_is_the_floor() -> None:
    """A second without sound is 32 frames of the least value."""
    silent = log_mel(media.wav(np.zeros(16_000, np.float32), 16_000), AUDIO)

    assert silent.shape == (1, 32, 64)
    assert np.all(silent == FLOOR)


@pytest.mark.parametrize(("hertz", "band"), [(440, 8), (2000, 35)])
def test_tone_is_loudest_in_its_band(hertz: float, band: int) -> None:
    """Slaney's scale is linear below 1 kHz and logarithmic above, whatever the file's rate."""
    for rate in (16_000, 44_100):
        heard = log_mel(media.wav(media.tone(1, rate, hertz), rate), AUDIO)

        assert int(heard[0, 16].argmax()) == band


def test_channels_are_averaged() -> None:
    """Two opposite channels are silence."""
    tone = media.tone(0.5)

    heard = log_mel(media.wav(np.concatenate([tone, -tone], axis=1), 16_000, "FLOAT"), AUDIO)

    assert np.all(heard == FLOOR)


def test_noise_reduction_is_not_proven() -> None:
    """What has no reference is refused, not passed over."""
    with pytest.raises(ConfigurationError, match="noise_reduction = spectral_gate has no"):
        log_mel(media.wav(media.tone(0.5), 16_000), replace(AUDIO, noise_reduction="spectral_gate"))


def test_sound_track_is_heard() -> None:
    """A clip's sound becomes a spectrogram as a sound file's does; a silent clip has none."""
    pictures = media.clip(10)

    heard = track_log_mel(media.mp4(pictures, 10, media.tone(1)[:, 0]), AUDIO)

    assert heard is not None
    assert int(heard[0, 16].argmax()) == 8
    assert track_log_mel(media.mp4(pictures, 10), AUDIO) is None


def test_frames_are_the_middles_of_equal_parts() -> None:
    """Of ten frames in four parts, those on the screen at 1/8, 3/8, 5/8 and 7/8 are taken."""
    seen = clip(media.mp4(media.clip(10), 10), PICTURE, VideoRecipe(4))

    greys = (seen.frames.mean(axis=(0, 2, 3, 4)) + 1) * 127.5
    assert seen.frames.shape == (1, 4, 3, 8, 8)
    assert seen.duration_s == pytest.approx(1.0, abs=0.05)
    assert np.abs(greys - media.greys(10)[[1, 3, 6, 8]]).max() < 4


def test_frames_by_rate_stand_still_at_the_end() -> None:
    """At two frames a second, four frames are two seconds, of which one has pictures."""
    seen = clip(media.mp4(media.clip(10), 10), PICTURE, VideoRecipe(4, "fps", 2))

    greys = (seen.frames.mean(axis=(0, 2, 3, 4)) + 1) * 127.5
    assert seen.duration_s == 2.0
    assert np.abs(greys - media.greys(10)[[2, 7, 9, 9]]).max() < 4


def test_turned_clip_is_upright() -> None:
    """A file that says "turn me by a quarter" is."""
    pictures = media.clip(3)
    pictures[:, :, 32:] = 0

    seen = clip(media.mp4(pictures, 10, rotation=90), PICTURE, VideoRecipe(1))

    assert seen.frames[0, 0, 0, :2].mean() > seen.frames[0, 0, 0, -2:].mean() + 0.3
