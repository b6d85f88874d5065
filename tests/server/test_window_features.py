"""What networks of other libraries hear: equal to their own feature extractors."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from transformers import ASTFeatureExtractor, ClapFeatureExtractor, WhisperFeatureExtractor

from sensorium.errors import InvalidInputError
from sensorium_server.stages.log_mel import LogMel
from sensorium_server.stages.window_features import ast, clap, whisper

Samples = NDArray[np.float32]

WHISPER = LogMel(16_000, 400, 160, 80, 0.0, 8000.0, 0.0, 1.0, 30 * 16_000)
AST = LogMel(16_000, 512, 160, 128, 20.0, 8000.0, -4.2677393, 4.5689974, 1024)
CLAP = LogMel(48_000, 1024, 480, 64, 50.0, 14_000.0, 0.0, 1.0, 480_000)

SECONDS = (0.05, 0.5, 3.0, 9.99, 12.0)


def sound(seconds: float, rate: int) -> Samples:
    """Make a rising tone with noise."""
    random = np.random.default_rng(0)
    moments = np.arange(int(seconds * rate)) / rate
    tone = 0.4 * np.sin(2 * np.pi * (200 + 300 * moments) * moments)
    return np.asarray(tone + 0.01 * random.standard_normal(len(moments)), np.float32)


@pytest.mark.parametrize("seconds", [*SECONDS, 29.995, 30.0])
def test_whisper_hears_as_the_library(seconds: float) -> None:
    """Silence behind the sound is not transformed, and yet every frame is the library's."""
    extractor: Any = WhisperFeatureExtractor
    samples = sound(seconds, 16_000)
    padded = np.pad(samples, (0, 480_000 - len(samples)))
    expected = extractor()._np_extract_fbank_features(padded[None], "cpu")[0].T

    np.testing.assert_allclose(whisper(samples, WHISPER), expected, atol=2e-6)


def test_whisper_refuses_what_it_would_cut() -> None:
    """A sound longer than the window is told so."""
    with pytest.raises(InvalidInputError, match=r"30\.1 s long; the model hears 30 s at once"):
        whisper(sound(30.1, 16_000), WHISPER)


@pytest.mark.filterwarnings("ignore:At least one mel filter")
@pytest.mark.parametrize("seconds", SECONDS)
def test_ast_hears_as_the_library(seconds: float) -> None:
    """Kaldi's filter bank, padded with zeros or cut."""
    extractor: Any = ASTFeatureExtractor
    samples = sound(seconds, 16_000)
    expected = extractor()(samples, sampling_rate=16_000, return_tensors="np")["input_values"][0]

    np.testing.assert_allclose(ast(samples, AST), expected, atol=2e-5)


@pytest.mark.parametrize("seconds", SECONDS[:4])
def test_clap_hears_as_the_library(seconds: float) -> None:
    """A short sound is repeated as often as it fits; the rest is silence."""
    kind: Any = ClapFeatureExtractor
    extractor = kind(truncation="rand_trunc", frequency_min=50)
    samples = sound(seconds, 48_000)
    expected = extractor(samples, sampling_rate=48_000, return_tensors="np")["input_features"]

    np.testing.assert_allclose(clap(samples, CLAP), expected[0, 0], atol=2e-4)


def test_clap_hears_the_start_of_a_long_sound() -> None:
    """What comes after the window changes nothing."""
    samples = sound(12.0, 48_000)

    np.testing.assert_array_equal(clap(samples, CLAP), clap(samples[:480_000], CLAP))


@pytest.mark.parametrize(("hear", "recipe"), [(whisper, WHISPER), (ast, AST), (clap, CLAP)])
def test_silence_is_finite(hear: Any, recipe: LogMel) -> None:  # noqa: ANN401 - one of three
    """Silence has a level too."""
    assert np.isfinite(hear(np.zeros(16_000, np.float32), recipe)).all()
