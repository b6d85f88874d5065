"""The stage `ctc_postprocess`: each frame's likeliest token, put together to a text.

Tokens that follow each other unchanged count once, and the blank, which comes between equal ones,
is left out (Graves et al., 2006, section 3.1).

Parameters in `config.pbtxt`:

| key | meaning | default |
|---|---|---|
| `tokens` | what each id stands for, a JSON list: `["<pad>", "|", "E"]` | required |
| `blank` | the token that stands for nothing | required |
| `word_delimiter` | the token that becomes a space | required |
| `lower_case` | `true`: the text is put in small letters | `false` |
| `clean_up` | `true`: no space stays before punctuation and English contractions | `false` |

Inputs `ctc_logits` FP32 [n,speech_frames,vocabulary] and `ctc_mask` INT64 [n,speech_frames],
outputs `transcript` BYTES [n,1] and `score` FP32 [n,1]: the probability of the likeliest tokens of
all frames together.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from sensorium import contract
from sensorium.errors import ConfigurationError, ServerError
from sensorium_server.settings import Settings
from sensorium_server.stages import Stage, StageConfig, Tensors
from sensorium_server.stages.labels import texts_from

_SWITCH = ("false", "true")
_TIGHT = (".", "?", "!", ",", "'", "n't", "'m", "'s", "'ve", "'re")


@dataclass(frozen=True, slots=True)
class Spelling:
    """How tokens become a text."""

    tokens: tuple[str, ...]
    blank: str
    word_delimiter: str
    lower_case: bool
    clean_up: bool

    def text(self, ids: Sequence[int]) -> str:
        """Return the text of the frames' tokens."""
        kept = [token for token, _ in groupby(self.tokens[one] for one in ids)]
        parts = [" " if one == self.word_delimiter else one for one in kept if one != self.blank]
        text = "".join(parts).strip()
        text = text.lower() if self.lower_case else text
        return _tightened(text) if self.clean_up else text


def stage(config: StageConfig, _settings: Settings) -> Stage:
    """Build the stage from its parameters."""
    spelling = Spelling(
        texts_from(config, "tokens"),
        config.text("blank"),
        config.text("word_delimiter"),
        lower_case=config.choice("lower_case", _SWITCH, "false") == "true",
        clean_up=config.choice("clean_up", _SWITCH, "false") == "true",
    )

    def postprocess(inputs: Tensors) -> Tensors:
        said = [
            _said(logits[mask != 0], spelling)
            for logits, mask in zip(
                inputs[contract.CTC_LOGITS.name], inputs[contract.CTC_MASK.name], strict=True
            )
        ]
        return {
            contract.TRANSCRIPT.name: np.array([[text.encode()] for text, _ in said], np.object_),
            contract.SCORE.name: np.array([[score] for _, score in said], np.float32),
        }

    return postprocess


def _said(logits: NDArray[np.float32], spelling: Spelling) -> tuple[str, float]:
    """Return the text of frames [frames, vocabulary], and its probability."""
    if logits.shape[1] != len(spelling.tokens):
        raise ConfigurationError(
            f"config.pbtxt names {len(spelling.tokens)} tokens, but the encoder knows "
            f"{logits.shape[1]}. Export the bundle again."
        )
    values = logits.astype(np.float64)
    if not np.isfinite(values).all():
        raise ServerError("the network put out NaN or infinity as ctc_logits")
    best = values.max(axis=1, keepdims=True)
    log_probability = -np.log(np.exp(values - best).sum(axis=1)).sum()
    return spelling.text(values.argmax(axis=1).tolist()), float(np.exp(log_probability))


def _tightened(text: str) -> str:
    for end in _TIGHT:
        text = text.replace(" ' " if end == "'" else f" {end}", end)
    return text
