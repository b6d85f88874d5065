"""The closed vocabulary: every word of the grammar, and the tokenizer file that serving reads."""

from functools import cache
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer, normalizers, pre_tokenizers
from tokenizers.models import WordLevel

from sensorium_training.dataset import scenes
from sensorium_training.world.caption import caption, search_text
from sensorium_training.world.clip_caption import CLIP_CAPTION_WORDS
from sensorium_training.world.clip_question import CLIP_WORDS
from sensorium_training.world.joint_question import JOINT_WORDS
from sensorium_training.world.question import FOREIGN_WORD, UNKNOWN_ANSWER, ask_any
from sensorium_training.world.sound_caption import SOUND_CAPTION_WORDS
from sensorium_training.world.sound_question import SOUND_WORDS

SPECIAL = ("[PAD]", FOREIGN_WORD, "[BOS]", "[EOS]", UNKNOWN_ANSWER)
PAD_ID, UNK_ID, BOS_ID, EOS_ID = range(4)
_SAMPLE = 3000


@cache
def vocabulary() -> dict[str, int]:
    """Return every word's id: special ones first, then those about pictures, then all others.

    The words about pictures and the others are each in alphabetical order. So what one learned of
    pictures keeps its ids when the world grows; a new word belongs to the last group.
    """
    pictures = sorted(_picture_words() - set(SPECIAL))
    others = sorted(_OTHER_WORDS - set(pictures) - set(SPECIAL))
    return {word: index for index, word in enumerate((*SPECIAL, *pictures, *others))}


_OTHER_WORDS = SOUND_WORDS | SOUND_CAPTION_WORDS | CLIP_WORDS | CLIP_CAPTION_WORDS | JOINT_WORDS


def _picture_words() -> set[str]:
    """Return the words of many questions about and captions of pictures."""
    rng = np.random.default_rng(0)
    words: set[str] = set()
    for scene in scenes("train", _SAMPLE):
        words.update(caption(scene), search_text(rng, scene).words)
        for _ in range(4):
            question = ask_any(rng, scene)
            words.update(question.words)
            if question.answer != UNKNOWN_ANSWER:
                words.update(question.answer.split())
    return words


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
