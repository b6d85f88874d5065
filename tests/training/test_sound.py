"""Sound scenes, their waveforms and their recordings."""

import io
import itertools

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from sensorium_server.settings import load
from sensorium_server.stages.log_mel import log_mel
from sensorium_training.dataset import scene_and_rng
from sensorium_training.recordings import (
    FORMATS,
    FRAMES,
    RECIPE,
    heard_log_mel,
    recording,
    sound_scenes,
    sounds_and_rng,
)
from sensorium_training.world.sound import (
    CLIP_S,
    MAX_SOUNDS,
    ORDER_GAP_S,
    SOUNDS,
    SoundEvent,
    SoundScene,
)
from sensorium_training.world.waveform import RATE, VOICES, synthesise

SCENES = sound_scenes("test", 300)


def played(*events: SoundEvent, noise_db: float = -65, seed: int = 0) -> NDArray[np.float32]:
    """Return the waveform of some events."""
    return synthesise(SoundScene(events, noise_db), np.random.default_rng(seed))


def rms_db(samples: NDArray[np.float32]) -> float:
    """Return the level of samples against full scale."""
    return float(10 * np.log10((samples.astype(np.float64) ** 2).mean()))


def test_scenes_keep_their_rules() -> None:
    """Starts lie apart, sounds of one kind do too, and all lie inside the clip."""
    for scene in SCENES:
        assert 1 <= len(scene.events) <= MAX_SOUNDS
        assert -65 <= scene.noise_db <= -35
        for event in scene.events:
            assert 0.1 <= event.start_s < event.end_s <= CLIP_S - 0.1
            assert 0.25 - 1e-9 <= event.end_s - event.start_s <= 1.2 + 1e-9
            assert -24 <= event.level_db <= -8
        for one, other in itertools.combinations(scene.events, 2):
            assert other.start_s - one.start_s >= ORDER_GAP_S, "in the order of their starts"
            if one.kind == other.kind:
                assert other.start_s - one.end_s >= ORDER_GAP_S


def test_the_world_is_varied() -> None:
    """Every kind and every count occurs; kinds are repeated and overlap."""
    pairs = [pair for scene in SCENES for pair in itertools.combinations(scene.events, 2)]

    assert {event.kind for scene in SCENES for event in scene.events} == set(range(len(SOUNDS)))
    assert {len(scene.events) for scene in SCENES} == set(range(1, MAX_SOUNDS + 1))
    assert any(one.kind == other.kind for one, other in pairs)
    assert any(other.start_s < one.end_s for one, other in pairs)


def test_every_sound_has_a_voice() -> None:
    """The voices are those of the vocabulary of sounds."""
    assert tuple(VOICES) == SOUNDS


@pytest.mark.parametrize("kind", range(len(SOUNDS)), ids=SOUNDS)
@pytest.mark.parametrize("length_s", [0.25, 0.6, 1.2])
def test_a_sound_is_heard_from_its_start_to_its_end(kind: int, length_s: float) -> None:
    """A sound of the least level stands out of middling noise in its first and last 100 ms."""
    event = SoundEvent(kind, 1.0, 1.0 + length_s, -24)
    for seed in range(4):
        loud = log_mel(played(event, noise_db=-50, seed=seed), RECIPE)
        background = np.concatenate([loud[:25], loud[-25:]])
        above = ((loud - background.mean(0)) / background.std(0)).max(1)
        first, last = round(1 / 0.032), round(event.end_s / 0.032)

        assert above[first : first + 4].max() > 5, "its start"
        assert above[last - 3 : last + 1].max() > 5, "its end"


@pytest.mark.parametrize("kind", range(len(SOUNDS)), ids=SOUNDS)
def test_level_and_variety(kind: int) -> None:
    """The loudest 50 ms have the event's level; two events of a kind are not the same sound."""
    event = SoundEvent(kind, 1.0, 1.5, -20)
    one, other = played(event), played(event, seed=1)
    parts = [one[i : i + 800] for i in range(16_000, 24_000, 800)]

    assert one.dtype == np.float32
    assert len(one) == CLIP_S * RATE
    assert max(map(rms_db, parts)) == pytest.approx(-20, abs=1)
    assert rms_db(one[:15_900]) == pytest.approx(-65, abs=1), "noise before"
    assert rms_db(one[24_100:]) == pytest.approx(-65, abs=1), "noise after"
    assert not np.allclose(one, other, atol=0.01)


def test_a_loud_mix_does_not_clip() -> None:
    """Five loud sounds at once stay within full scale."""
    events = [SoundEvent(kind, 1.0, 2.0, 0) for kind in (0, 2, 4, 8, 10)]

    assert 0.9 < np.abs(played(*events)).max() < 1


def test_recordings_are_files_of_four_formats() -> None:
    """By turns WAV, FLAC, OGG and MP3, mono or stereo, at several rates; all last 4 seconds."""
    files = [soundfile.SoundFile(io.BytesIO(recording("test", index))) for index in range(24)]

    assert [file.format for file in files[:4]] == [each.container for each in FORMATS]
    assert {file.channels for file in files} == {1, 2}
    assert {file.samplerate for file in files} == {16_000, 22_050, 44_100, 48_000}
    assert all(abs(file.frames / file.samplerate - CLIP_S) < 0.06 for file in files)


def test_a_recording_is_made_from_its_seed() -> None:
    """The same split and number give the same bytes; others, and pictures, draw otherwise."""
    assert recording("test", 5) == recording("test", 5)
    assert sounds_and_rng("test", 5)[0] != sounds_and_rng("validation", 5)[0]
    picture_rng, sound_rng = scene_and_rng("test", 5)[1], sounds_and_rng("test", 5)[1]
    assert picture_rng.bit_generator.seed_seq != sound_rng.bit_generator.seed_seq


@pytest.mark.parametrize("index", range(8))
def test_training_hears_the_scene_in_time(index: int) -> None:
    """No format moves the sounds: the spectrogram correlates best without a shift."""
    scene, rng = sounds_and_rng("test", index)
    made = log_mel(synthesise(scene, rng), RECIPE)

    heard = heard_log_mel(recording("test", index), load()).astype(np.float32)

    assert heard.shape == (FRAMES, RECIPE.mels)
    inner = made[4:-4].ravel()
    likeness = [
        np.corrcoef(inner, heard[4 + shift : FRAMES - 4 + shift].ravel())[0, 1]
        for shift in range(-4, 5)
    ]
    assert int(np.argmax(likeness)) == 4
    assert likeness[4] > 0.9
