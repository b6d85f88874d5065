"""The closed vocabulary: every word of the grammar, and the tokenizer file that serving reads."""

from functools import cache
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer, normalizers, pre_tokenizers
from tokenizers.models import WordLevel

from sensorium_training.dataset import scenes
from sensorium_training.world.caption import caption, search_text
from sensorium_training.world.question import FOREIGN_WORD, UNKNOWN_ANSWER, ask_any

SPECIAL = ("[PAD]", FOREIGN_WORD, "[BOS]", "[EOS]", UNKNOWN_ANSWER)
PAD_ID, UNK_ID, BOS_ID, EOS_ID = range(4)
_SAMPLE = 3000


@cache
def vocabulary() -> dict[str, int]:
    """Return every word's id: special ones first, then the grammar's in alphabetical order."""
    rng = np.random.default_rng(0)
    words: set[str] = set()
    for scene in scenes("train", _SAMPLE):
        words.update(caption(scene), search_text(rng, scene).words)
        for _ in range(4):
            question = ask_any(rng, scene)
            words.update(question.words)
            if question.answer != UNKNOWN_ANSWER:
                words.update(question.answer.split())
    grammar = sorted(words - set(SPECIAL))
    return {word: index for index, word in enumerate((*SPECIAL, *grammar))}


def build(words: dict[str, int]) -> Tokenizer:
    """Return a tokenizer that lower-cases, drops punctuation and splits at spaces."""
    tokenizer = Tokenizer(WordLevel(words, unk_token=FOREIGN_WORD))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Whitespace(), pre_tokenizers.Punctuation("removed")]
    )
    return tokenizer


def save(words: dict[str, int], path: Path) -> None:
    """Write the tokenizer as `path`."""
    build(words).save(str(path))
