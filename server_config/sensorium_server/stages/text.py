"""The stage `text_preprocess`: UTF-8 bytes to token ids, and token ids back to text.

Length is counted before tokenising. A text of unknown words is tokenised to unknown tokens and
left to the model; a text without any word is refused.

Parameters in `config.pbtxt`:

| key | meaning | default |
|---|---|---|
| `tokenizer` | the tokenizer's file beside `model.py` | `tokenizer.json` |
| `max_tokens` | the most tokens that the text encoder takes | required |
| `pad_id` | id that fills rows shorter than the request's longest | required |
| `pad_to` | length of every row, for a network that reads its padding | the longest row's |

Input `text` BYTES [n,1], outputs `input_ids` and `attention_mask` INT64 [n,sequence].
"""

from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from sensorium import contract
from sensorium.errors import ConfigurationError, InvalidInputError
from sensorium_server.settings import Settings
from sensorium_server.stages import Stage, StageConfig, Tensors
from sensorium_server.stages.item import map_items

_MOST_BYTES_PER_CHAR = 4


def stage(config: StageConfig, settings: Settings) -> Stage:
    """Build the stage from its parameters and the limits."""
    tokenizer = load_tokenizer(config.directory / config.text("tokenizer", "tokenizer.json"))
    max_tokens = config.integer("max_tokens")
    pad_id = config.integer("pad_id")
    pad_to = config.integer("pad_to", 0)

    def tokenize(data: bytes) -> list[int]:
        return tokens_of(decode(data, settings), tokenizer, max_tokens)

    def preprocess(inputs: Tensors) -> Tensors:
        rows = map_items(tokenize, inputs[contract.TEXT.name])
        shape = (len(rows), max(pad_to, *map(len, rows)))
        input_ids = np.full(shape, pad_id, np.int64)
        attention_mask = np.zeros(shape, np.int64)
        for index, ids in enumerate(rows):
            input_ids[index, : len(ids)] = ids
            attention_mask[index, : len(ids)] = 1
        return {
            contract.INPUT_IDS.name: input_ids,
            contract.ATTENTION_MASK.name: attention_mask,
        }

    return preprocess


def load_tokenizer(path: Path) -> Tokenizer:
    """Read a tokenizer without padding or truncation of its own.

    Raises:
        ConfigurationError: the file is missing or not a tokenizer.
    """
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises bare `Exception`
        raise ConfigurationError(
            f"{path.name} of {path.parent.parent.name} cannot be read: {error}. "
            f"Export the bundle again."
        ) from error
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def decode(data: bytes, limits: Settings) -> str:
    """Return the text of UTF-8 bytes.

    Raises:
        InvalidInputError: it is empty, too long or not UTF-8.
    """
    if len(data) > limits.max_text_chars * _MOST_BYTES_PER_CHAR:
        raise _too_long(f"{len(data):,} bytes", limits)
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise InvalidInputError(
            f"text is not valid UTF-8: byte 0x{data[error.start]:02x} at position {error.start}. "
            f"Encode it as UTF-8."
        ) from None
    if len(text) > limits.max_text_chars:
        raise _too_long(f"{len(text):,} characters", limits)
    if not text.strip():
        raise InvalidInputError("text is empty. Send at least one word.")
    return text


def _too_long(length: str, limits: Settings) -> InvalidInputError:
    return InvalidInputError(
        f"text is {length} long; the limit is {limits.max_text_chars:,} characters "
        f"(max_text_chars). Shorten it, or raise the limit on the server."
    )


def tokens_of(text: str, tokenizer: Tokenizer, max_tokens: int) -> list[int]:
    """Return a text's token ids.

    Raises:
        InvalidInputError: there is no word in it, or too many.
    """
    encoding = tokenizer.encode(text)
    ids: list[int] = encoding.ids
    if sum(encoding.special_tokens_mask) == len(ids):
        raise InvalidInputError(f'text has no word in it: "{text[:40]}". Send at least one word.')
    if len(ids) > max_tokens:
        raise InvalidInputError(
            f"text has {len(ids)} tokens; the model takes {max_tokens} (max_tokens). Shorten it."
        )
    return ids
