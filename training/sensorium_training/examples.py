"""Batches of words: questions with their answers, captions and search texts as padded tensors."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sensorium_training.entities import IMAGE, MODALITIES
from sensorium_training.tokenizer import BOS_ID, EOS_ID, PAD_ID
from sensorium_training.world.question import UNKNOWN_ANSWER, Question
from sensorium_training.world.scene import MAX_OBJECTS


def pad(rows: Sequence[Sequence[int]]) -> Tensor:
    """Return id lists as int64 [rows, longest], padded at the end."""
    out = np.full((len(rows), max(map(len, rows))), PAD_ID, np.int64)
    for i, row in enumerate(rows):
        out[i, : len(row)] = row
    return torch.from_numpy(out)


@dataclass(frozen=True, slots=True)
class Targets:
    """What the decoder reads and what it should say next, int64 [batch, length] each."""

    inputs: Tensor
    outputs: Tensor


@dataclass(frozen=True, slots=True)
class QuestionBatch:
    """Questions as tensors.

    Attributes:
        input_ids: int64, [batch, sequence].
        mask: int64, [batch, sequence].
        targets: the answers.
        nouns: int64, [nouns, 2], question and word of each noun.
        about: int64, [nouns], the index in `MODALITIES` of what the noun is about.
        matched: bool, [nouns, entities].
        relations: int64, [relations, 2], question and word of each relation.
        difference: float, [relations, 2].
    """

    input_ids: Tensor
    mask: Tensor
    targets: Targets
    nouns: Tensor
    about: Tensor
    matched: Tensor
    relations: Tensor
    difference: Tensor


class Words:
    """The vocabulary, as training uses it: lists of words to ids."""

    def __init__(self, ids: dict[str, int]) -> None:
        self.ids = ids

    def encode(self, words: Sequence[str]) -> list[int]:
        """Return the ids of `words`; all must be known."""
        return [self.ids[word] for word in words]

    def targets(self, texts: Sequence[Sequence[str]]) -> Targets:
        """Return decoder inputs and outputs for `texts`."""
        rows = [self.encode(words) for words in texts]
        return Targets(pad([[BOS_ID, *row] for row in rows]), pad([[*row, EOS_ID] for row in rows]))

    def texts(self, texts: Sequence[Sequence[str]]) -> tuple[Tensor, Tensor]:
        """Return input_ids and attention_mask of `texts`."""
        input_ids = pad([self.encode(words) for words in texts])
        return input_ids, (input_ids != PAD_ID).long()

    def questions(self, questions: Sequence[Question], modality: str = IMAGE) -> QuestionBatch:
        """Return `questions` as tensors; nouns that do not say it are about `modality`."""
        input_ids, mask = self.texts([question.words for question in questions])
        nouns = [(i, at, m) for i, q in enumerate(questions) for at, m in q.nouns]
        matched = np.zeros((len(nouns), MAX_OBJECTS), bool)
        for row, (_, _, things) in enumerate(nouns):
            matched[row, things] = True
        about = [
            MODALITIES.index(name)
            for question in questions
            for name in question.about or [modality] * len(question.nouns)
        ]
        relations = [(i, *q.relation) for i, q in enumerate(questions) if q.relation]
        return QuestionBatch(
            input_ids,
            mask,
            self.targets([answer_words(q.answer) for q in questions]),
            torch.tensor([n[:2] for n in nouns], dtype=torch.int64).reshape(-1, 2),
            torch.tensor(about, dtype=torch.int64),
            torch.from_numpy(matched),
            torch.tensor([r[:2] for r in relations], dtype=torch.int64).reshape(-1, 2),
            torch.tensor([r[2:] for r in relations], dtype=torch.float32).reshape(-1, 2),
        )


def answer_words(answer: str) -> list[str]:
    """Return an answer's words; "I don't know" is one."""
    return [answer] if answer == UNKNOWN_ANSWER else answer.split()
