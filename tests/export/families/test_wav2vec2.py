"""wav2vec 2.0: what it is with a batch, its tokenizer, and what is refused."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from tests import families

from sensorium.errors import ConfigurationError
from sensorium_export.source import open_source
from sensorium_export.stage_parameters import parameters_of
from sensorium_server.settings import load
from sensorium_server.stages import StageConfig, transcripts


def changed(path: Path, **values: object) -> None:
    """Change some values of a JSON file."""
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


@pytest.mark.parametrize("name", ["wav2vec2", "wav2vec2_classifier"])
def test_padding_changes_nothing(name: str, tmp_path: Path) -> None:
    """A sound that shares its batch with a longer one gives what it gives alone."""
    encoder: Any = open_source(getattr(families, name)(tmp_path / name)).model.audio_encoder
    short, long = torch.randn(1, 3000), torch.randn(1, 5000)
    ones = torch.ones(1, 3000, dtype=torch.long)
    noise = torch.cat([short, torch.randn(1, 2000)], dim=1)
    mask = torch.nn.functional.pad(ones, (0, 2000))

    with torch.no_grad():
        alone = encoder(short, ones)
        both = encoder(torch.cat([noise, long]), torch.cat([mask, torch.ones_like(mask)]))
    alone, both = (one if isinstance(one, torch.Tensor) else one[0] for one in (alone, both))

    torch.testing.assert_close(both[:1, : alone.shape[1]], alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "options", [{}, {"do_lower_case": True}, {"clean_up_tokenization_spaces": True}]
)
def test_spelling_is_the_tokenizers(options: dict[str, bool], tmp_path: Path) -> None:
    """Served and by the library, the same tokens are the same text, whatever the tokenizer says."""
    path = families.wav2vec2(tmp_path / "speech")
    changed(path / "tokenizer_config.json", **options)
    source = open_source(path)
    tokenizer = transformers.AutoTokenizer.from_pretrained(path)
    config = StageConfig("ctc_postprocess", path, parameters_of("ctc_postprocess", source.recipe))
    stage, drawn = transcripts.stage(config, load()), torch.Generator().manual_seed(5)

    for _ in range(50):
        logits = torch.randn(1, 30, 32, generator=drawn)
        logits[..., [4, 5, 24]] += 1.0
        found = stage({"ctc_logits": logits.numpy(), "ctc_mask": torch.ones(1, 30).numpy()})

        assert found["transcript"].item().decode() == tokenizer.decode(logits[0].argmax(-1))


BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "no head": (
        lambda path: changed(path / "config.json", architectures=["Wav2Vec2Model"]),
        'architectures = "Wav2Vec2Model" has no task.*Wav2Vec2ForCTC',
    ),
    "adapters": (
        lambda path: changed(path / "config.json", adapter_attn_dim=4, do_stable_layer_norm=True),
        "speech",
    ),
    "no vocabulary": (lambda path: (path / "vocab.json").unlink(), "lacks vocab.json"),
    "another vocabulary": (
        lambda path: changed(path / "vocab.json", Ä=99),
        "names 33 tokens.*knows 32: they are not of one checkpoint",
    ),
    "other spaces": (
        lambda path: changed(path / "tokenizer_config.json", replace_word_delimiter_char="_"),
        'replace_word_delimiter_char = "_" cannot be served',
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_directory_is_refused(case: str, tmp_path: Path) -> None:
    """What cannot be served is told with the file and the setting."""
    spoil, message = BROKEN[case]
    path = families.wav2vec2(tmp_path / "speech")
    spoil(path)

    with pytest.raises(ConfigurationError, match=message) as caught:
        open_source(path)

    assert str(tmp_path) not in str(caught.value)


def test_a_network_that_hears_too_little(tmp_path: Path) -> None:
    """One whose frame is longer than the shortest sound that is let in is refused."""
    path = families.wav2vec2(tmp_path / "speech", conv_kernel=[900, 3, 3, 3, 3, 2, 2])

    with pytest.raises(ConfigurationError, match="hears nothing in 800 samples"):
        open_source(path)
