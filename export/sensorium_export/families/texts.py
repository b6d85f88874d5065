"""A library's tokenizer as the parameters of `text_preprocess`, for any family."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from sensorium_export.recipe import TextRecipe

Tokenizer = Any
Read = Callable[[str], list[int]]


def text_tokenizer(path: Path) -> Tokenizer:
    """Return the library's own tokenizer."""
    return AutoTokenizer.from_pretrained(path, local_files_only=True, trust_remote_code=False)


def reading(tokenizer: Tokenizer) -> Read:
    """Return what gives the ids of a text, by the library itself."""

    def read(text: str) -> list[int]:
        ids: list[int] = tokenizer(text).input_ids
        return ids

    return read


def text_recipe(tokenizer: Tokenizer, max_tokens: int, **generation: Any) -> TextRecipe:  # noqa: ANN401
    """Return how texts are read.

    Args:
        tokenizer: Loaded by `text_tokenizer`.
        max_tokens: The longest text that the encoder takes, in tokens.
        generation: Fields of `TextRecipe` for those that generate.
    """

    def known(*ids: int | None) -> int:
        return next((one for one in ids if one is not None), 0)

    end = known(tokenizer.eos_token_id, tokenizer.sep_token_id)
    tokens = {
        "pad_id": known(tokenizer.pad_token_id, end),
        "unk_id": known(tokenizer.unk_token_id),
        "bos_id": known(tokenizer.bos_token_id, tokenizer.cls_token_id),
        "eos_id": end,
        "max_new_tokens": 1,
    }
    return TextRecipe(max_tokens=max_tokens, **(tokens | generation))
