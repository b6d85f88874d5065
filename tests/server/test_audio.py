"""Sound files and sound tracks: every kind, every damage, and what becomes of a missing one."""

import io
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from tests.server import media

from sensorium.errors import InvalidInputError
from sensorium_server.settings import Settings, load
from sensorium_server.stages import Stage, StageConfig, audio
from sensorium_server.stages.log_mel import LogMel, log_mel

RATE = 16_000
PARAMETERS = {
    "sample_rate": "16000",
    "n_fft": "1024",
    "hop": "512",
    "mels": "64",
    "min_hz": "50",
    "max_hz": "7600",
    "mean": "-4",
    "std": "2",
}
LIMITS = load()
VALID = {
    "wav": media.wav(media.tone(0.3), RATE),
    "flac": media.flac(media.tone(0.3), RATE),
    "vorbis": media.ogg(media.tone(0.3), RATE),
    "opus": media.ogg(media.tone(0.3), RATE, "OPUS"),
    "mp3": media.mp3(media.tone(0.3), RATE),
}


@pytest.fixture(scope="module")
def stage() -> Stage:
    """Return the stage, with its one child for all tests."""
    return audio.stage(StageConfig("audio_preprocess", Path(), PARAMETERS), LIMITS)


def batch(**items: list[bytes]) -> dict[str, Any]:
    """Return one request of several rows."""
    return {
        name: np.array([[item] for item in column], np.object_) for name, column in items.items()
    }


def level(samples: Any, hz: float) -> float:  # noqa: ANN401 - an array
    """Return a frequency's amplitude in the middle half of a sound."""
    part = samples[len(samples) // 4 : len(samples) * 3 // 4]
    wave = np.exp(-2j * np.pi * hz * np.arange(len(part)) / RATE)
    return float(2 * np.abs((part * wave).mean()))


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE"])
def test_wav_of_every_depth(subtype: str) -> None:
    """WAV of 8 to 32 bits and float give the very samples, up to their own steps."""
    tone = media.tone(0.2)

    samples = audio.samples_of(media.wav(tone, RATE, subtype), LIMITS, RATE)

    step = 1 / 127 if subtype == "PCM_U8" else 1 / 32_767
    np.testing.assert_allclose(samples, tone[:, 0], atol=step)
    assert samples.dtype == np.float32


@pytest.mark.parametrize(
    "encode",
    [media.flac, media.ogg, lambda tone, rate: media.ogg(tone, rate, "OPUS"), media.mp3],
    ids=["flac", "vorbis", "opus", "mp3"],
)
def test_compressed_formats(encode: Callable[..., bytes]) -> None:
    """FLAC, OGG Vorbis, OGG Opus and MP3 keep a tone's pitch, level and length."""
    samples = audio.samples_of(encode(media.tone(1.0), RATE), LIMITS, RATE)

    assert level(samples, 440) == pytest.approx(0.25, rel=0.05)
    assert len(samples) == pytest.approx(RATE, abs=1200)


@pytest.mark.parametrize("rate", [8000, 11_025, 22_050, 44_100, 48_000, 96_000, 192_000])
def test_every_rate_is_resampled(rate: int) -> None:
    """From 8 to 192 kHz a tone keeps its pitch, level and length."""
    samples = audio.samples_of(media.wav(media.tone(0.5, rate), rate), LIMITS, RATE)

    assert len(samples) == pytest.approx(RATE // 2, abs=1)
    assert level(samples, 440) == pytest.approx(0.25, rel=0.01)


def test_resampling_lets_nothing_alias() -> None:
    """A tone above half the model's rate is gone, not folded down."""
    samples = audio.samples_of(media.wav(media.tone(0.5, 48_000, 12_000), 48_000), LIMITS, RATE)

    assert level(samples, 4000) < 1e-4
    assert level(samples, 440) < 1e-4


@pytest.mark.parametrize("channels", [1, 2, 6, 8])
def test_channels_are_averaged(channels: int) -> None:
    """Mono to eight channels become their mean."""
    tone = media.tone(0.2, channels=channels)
    tone[:, -1] = 0

    samples = audio.samples_of(media.wav(tone, RATE), LIMITS, RATE)

    np.testing.assert_allclose(samples, tone.mean(axis=1), atol=1e-4)


def test_silence_is_fine(stage: Stage) -> None:
    """Silence is the floor of the spectrogram, every frame valid."""
    outputs = stage(batch(audio=[media.wav(np.zeros(RATE), RATE)]))

    assert np.unique(outputs["log_mel"]).tolist() == [-2.0]
    assert outputs["log_mel_mask"].all()


def riff(size: int, data_size: int | None = None) -> bytes:
    """Return a valid WAV with another length in its header."""
    data = bytearray(VALID["wav"])
    data[4:8] = struct.pack("<I", size)
    if data_size is not None:
        data[40:44] = struct.pack("<I", data_size)
    return bytes(data)


def test_wav_of_unknown_length() -> None:
    """A WAV that was streamed, its lengths unknown when written, is read to its end."""
    samples = audio.samples_of(riff(0xFFFF_FFFF, 0xFFFF_FFFF), LIMITS, RATE)

    assert len(samples) == RATE * 3 // 10


BAD = {
    "empty": (b"", r"audio is empty \(0 bytes\). Send the bytes of a WAV, FLAC, OGG or MP3"),
    "text": (
        b"hello, I am a text file",
        "not a WAV, FLAC, OGG or MP3: its 23 bytes start with 68 65 6c",
    ),
    "video": (media.mp4(media.clip(3)), "not a WAV, FLAC, OGG or MP3"),
    "magic only": (b"fLaC", "damaged or truncated: its 4 bytes"),
    "one ogg page header": (b"OggS" + bytes(23), "damaged or truncated"),
    "wave without data": (VALID["wav"][:36], "damaged or truncated"),
    "mp3 of noise": (b"\xff\xfb" + bytes(range(256)) * 9, "damaged or truncated"),
    "longer header than file": (riff(10**6), "damaged or truncated"),
    "one sample": (media.wav(np.zeros(1), RATE), r"0.000 s long \(1 samples\); the least is 0.05"),
    "no sample": (media.wav(np.zeros(0), RATE), r"0.000 s long \(0 samples\)"),
    "short": (media.wav(np.zeros(799), RATE), "0.050 s long"),
    "NaN": (
        media.wav(np.array([0.0] * 900 + [np.nan]), RATE, "FLOAT"),
        "1 samples that are NaN, infinite .*, the first at position 900",
    ),
    "infinity": (media.wav(np.full(900, -np.inf), RATE, "DOUBLE"), "900 samples that are NaN"),
    "integers as floats": (
        media.wav(np.full(900, 20_000.0), RATE, "FLOAT"),
        "sample of 20,000 at position 0; float samples lie in -1 to 1",
    ),
    "nine channels": (media.wav(np.zeros((900, 9)), RATE), "9 channels; the most is 8"),
    "4 kHz": (media.wav(np.zeros(900), 4000), "4,000 samples per second; they may be 8,000 to"),
    "384 kHz": (media.wav(np.zeros(99_999), 384_000), "384,000 samples per second"),
    "ten minutes": (
        media.wav(np.zeros(600 * RATE, np.int16), RATE),
        r"600.0 s long; the limit is 60 s \(max_audio_s\)",
    ),
    "ten minutes of MP3": (media.mp3(np.zeros(600 * 8000), 8000), "60[0-9].[0-9] s long"),
    "ten minutes of OGG": (media.ogg(np.zeros(600 * 8000), 8000), "600.0 s long"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_sound_is_refused(case: str) -> None:
    """Each kind of bad file is refused with what is wrong and the way out."""
    data, message = BAD[case]

    with pytest.raises(InvalidInputError, match=message):
        audio.samples_of(data, LIMITS, RATE)


@pytest.mark.parametrize("kind", VALID)
def test_truncated_file_is_refused(kind: str) -> None:
    """A file that ends in its middle is refused, not heard in part."""
    data = VALID[kind]

    with pytest.raises(InvalidInputError):
        audio.samples_of(data[: len(data) // 2], LIMITS, RATE)


def test_long_ogg_cut_between_two_pages() -> None:
    """An OGG cut in a late page is refused, though libsndfile would play its start."""
    noise = np.random.default_rng(0).normal(0, 0.2, 10 * RATE)
    data = media.ogg(noise, RATE)
    assert len(soundfile.read(io.BytesIO(data[:-100]))[0]) > RATE

    with pytest.raises(InvalidInputError, match="truncated"):
        audio.samples_of(data[:-100], LIMITS, RATE)


def test_bytes_are_counted_first() -> None:
    """A file beyond the limit on bytes is refused unread."""
    with pytest.raises(InvalidInputError, match=r"20.0 MB; the limit is 20 MB \(max_audio_bytes"):
        audio.samples_of(bytes(20_000_001), LIMITS, RATE)


@pytest.mark.parametrize(("told", "heard"), [(9000, 9000), (0, None)])
def test_header_that_lies(told: int, heard: int | None) -> None:
    """No more is decoded than the header says, so that its limit holds; it must say something."""
    data = bytearray(media.flac(media.tone(5.0), RATE))
    data[21:26] = bytes([data[21] & 0xF0]) + struct.pack(">I", told)

    if heard is None:
        with pytest.raises(InvalidInputError, match="does not tell its length"):
            audio.samples_of(bytes(data), LIMITS, RATE)
    else:
        assert len(audio.samples_of(bytes(data), LIMITS, RATE)) == heard


@pytest.mark.parametrize("kind", VALID)
@hypothesis_settings(max_examples=40, deadline=None)
@given(st.data())
def test_any_damage_is_refused_or_read(kind: str, data: st.DataObject) -> None:
    """Cut or flipped bits give finite samples or `InvalidInputError`, nothing else."""
    damaged = bytearray(VALID[kind])
    for _ in range(data.draw(st.integers(0, 8))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    cut = data.draw(st.integers(0, len(damaged)))
    try:
        samples = audio.samples_of(bytes(damaged[:cut]), LIMITS, RATE)
    except InvalidInputError:
        return

    assert np.isfinite(samples).all()


def test_stage_gives_the_recipes_spectrogram(stage: Stage) -> None:
    """The stage's rows are `log_mel` of the samples, padded with zeros and masked."""
    long, short = media.tone(1.0), media.tone(0.4, hz=900)
    wavs = [media.wav(each, RATE, "FLOAT") for each in (long, short)]

    outputs = stage(batch(audio=wavs))

    frames = 1 + int(0.4 * RATE) // 512
    assert outputs["log_mel"].shape == (2, 1 + RATE // 512, 64)
    assert outputs["log_mel_mask"].sum(axis=1).tolist() == [1 + RATE // 512, frames]
    np.testing.assert_array_equal(outputs["log_mel"][0], log_mel(long[:, 0], LogMel()))
    np.testing.assert_array_equal(outputs["log_mel"][1, :frames], log_mel(short[:, 0], LogMel()))
    assert not outputs["log_mel"][1, frames:].any()


@pytest.mark.parametrize("normalize", ["false", "true"])
def test_stage_gives_samples(normalize: str) -> None:
    """With `waveform` the rows are the samples, each normalised alone, padded and masked."""
    parameters = {"sample_rate": str(RATE), "features": "waveform", "normalize": normalize}
    stage = audio.stage(StageConfig("audio_preprocess", Path(), parameters), LIMITS)
    sounds = [media.tone(0.2)[:, 0], media.tone(0.1, hz=900)[:, 0] * 0.5 + 0.1]

    outputs = stage(batch(audio=[media.wav(each, RATE, "FLOAT") for each in sounds]))

    assert outputs["waveform_mask"].sum(axis=1).tolist() == [each.size for each in sounds]
    for row, sound in zip(outputs["waveform"], sounds, strict=True):
        expected = sound.astype(np.float32)
        if normalize == "true":
            expected = (expected - expected.mean()) / expected.std()
        np.testing.assert_allclose(row[: sound.size], expected, atol=1e-5)
        assert not row[sound.size :].any()


def test_noise_reduction_is_a_parameter() -> None:
    """`noise_reduction` changes what a noisy sound looks like: the noise gets darker."""
    noise = np.random.default_rng(0).normal(0, 0.05, RATE)
    request = batch(audio=[media.wav(noise, RATE)])
    plain, gated = (
        audio.stage(
            StageConfig("audio_preprocess", Path(), PARAMETERS | {"noise_reduction": step}), LIMITS
        )(request)["log_mel"]
        for step in ("none", "spectral_gate")
    )

    assert gated.mean() < plain.mean() - 0.5


def test_recipe_is_read_from_the_parameters() -> None:
    """Each parameter reaches its field of the recipe."""
    config = StageConfig("audio_preprocess", Path(), PARAMETERS | {"hop": "256"})

    assert audio.recipe_of(config) == replace(LogMel(), hop=256)


def test_sound_track_stands_in_for_audio(stage: Stage) -> None:
    """An item without audio is the sound track of its video."""
    tone = media.tone(1.0)[:, 0]
    clip = media.mp4(media.clip(10), audio=tone)

    outputs = stage(batch(audio=[b""], video=[clip]))

    expected = log_mel(audio.sound_track_of(clip, LIMITS, RATE), LogMel())
    np.testing.assert_array_equal(outputs["log_mel"][0], expected)
    np.testing.assert_array_equal(stage(batch(video=[clip]))["log_mel"][0], expected)
    assert outputs["log_mel_mask"].all()


def test_audio_beats_the_sound_track(stage: Stage) -> None:
    """Where both are given, the audio file is heard."""
    tone = media.tone(0.5)
    clip = media.mp4(media.clip(10), audio=media.tone(1.0, hz=2000)[:, 0])

    outputs = stage(batch(audio=[media.wav(tone, RATE, "FLOAT")], video=[clip]))

    np.testing.assert_array_equal(outputs["log_mel"][0], log_mel(tone[:, 0], LogMel()))


@pytest.mark.parametrize("other", [{"image": [b"any"]}, {"video": [media.mp4(media.clip(3))]}])
def test_missing_sound_is_masked(stage: Stage, other: dict[str, list[bytes]]) -> None:
    """Only an image, or a silent video, gives one frame of zeros that is not valid."""
    outputs = stage(batch(audio=[b""], **other))

    assert outputs["log_mel"].shape == (1, 1, 64)
    assert not outputs["log_mel"].any()
    assert outputs["log_mel_mask"].tolist() == [[0]]


def test_rows_are_each_their_own(stage: Stage) -> None:
    """In one request, a row with sound and a row without keep to themselves."""
    outputs = stage(batch(audio=[b"", VALID["wav"]], image=[b"any", b""]))

    assert outputs["log_mel_mask"].sum(axis=1).tolist() == [0, 1 + int(0.3 * RATE) // 512]


@pytest.mark.parametrize("request_", [{}, {"audio": [b""]}, {"audio": [b""], "video": [b""]}])
def test_nothing_at_all_is_refused(stage: Stage, request_: dict[str, list[bytes]]) -> None:
    """Without any modality the audio is told to be empty."""
    with pytest.raises(InvalidInputError, match=r"^audio is empty"):
        stage(batch(**request_))


def test_bad_item_is_named(stage: Stage) -> None:
    """In a request of several the bad one is told by its index."""
    with pytest.raises(InvalidInputError, match=r"^item 1 of 2: audio is not a WAV"):
        stage(batch(audio=[VALID["wav"], b"garbage"]))


def test_decoder_that_is_too_slow(settings: Settings) -> None:
    """A sound that takes too long to decode is refused with the setting to change."""
    hasty = settings.model_copy(update={"decode_timeout_s": 0.02})
    slow = audio.stage(StageConfig("audio_preprocess", Path(), PARAMETERS), hasty)
    minute = media.flac(np.random.default_rng(0).normal(0, 0.2, 5_000_000), 96_000)

    with pytest.raises(InvalidInputError, match=r"audio took longer than 0.02 s .*decode_timeout"):
        slow(batch(audio=[minute]))
