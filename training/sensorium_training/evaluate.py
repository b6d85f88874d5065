"""Evaluation on held-out seeds: exact match by question type, captions, retrieval, calibration.

Pictures are judged from their JPEG bytes through the server's own preprocessing.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import sacrebleu
import torch
from numpy.typing import NDArray
from torch import Tensor

from sensorium_export.models import MultimodalModel
from sensorium_training.dataset import pixels, scenes
from sensorium_training.entities import IMAGE
from sensorium_training.examples import Words
from sensorium_training.tokenizer import BOS_ID, EOS_ID
from sensorium_training.vision import pixel_values
from sensorium_training.world.caption import caption
from sensorium_training.world.question import KINDS, Question, ask
from sensorium_training.world.scene import HELD_OUT_PAIRS, Scene

GALLERY = 1000
_BATCH = 250
_RECALL_AT = (1, 5, 10)

World = TypeVar("World")


@dataclass(frozen=True, slots=True)
class Answered:
    """A question, the model's answer and its probability."""

    question: Question
    answer: str
    score: float

    @property
    def right(self) -> bool:
        """Whether the answer matches exactly."""
        return self.answer == self.question.answer


@dataclass(frozen=True, slots=True)
class Seen(Generic[World]):
    """What an encoder gave for a split's first pictures, recordings or clips."""

    worlds: list[World]
    tokens: Tensor
    mask: Tensor
    embedding: Tensor


@torch.no_grad()
def see(model: MultimodalModel, split: str, pictures: NDArray[np.uint8]) -> Seen[Scene]:
    """Encode the pictures of `split`."""
    parts = [
        model.image_encoder(pixel_values(pictures[i : i + _BATCH]))
        for i in range(0, len(pictures), _BATCH)
    ]
    tokens, mask, embedding = (torch.cat(column) for column in zip(*parts, strict=True))
    return Seen(scenes(split, len(pictures)), tokens, mask, embedding)


@torch.no_grad()
def generate(
    model: MultimodalModel, memory: Tensor, mask: Tensor, limit: int
) -> tuple[list[list[int]], list[float]]:
    """Return greedy token ids without the end token, and each sequence's probability."""
    decoder = model.text_decoder
    rows, width = len(memory), model.config
    cross = decoder.cross(memory)
    past = torch.zeros(rows, width.kv_layers, width.heads, limit, width.head_dim)
    token = torch.full((rows,), BOS_ID)
    alive = torch.ones(rows, dtype=torch.bool)
    total = torch.zeros(rows)
    out: list[list[int]] = [[] for _ in range(rows)]
    for at in range(limit):
        position = torch.full((rows,), at)
        logits, past[:, :, :, at] = decoder.step(token, position, past[:, :, :, :at], cross, mask)
        best, token = logits.log_softmax(-1).max(-1)
        total += best * alive
        alive &= token != EOS_ID
        if not alive.any():
            break
        for row in alive.nonzero()[:, 0].tolist():
            out[row].append(int(token[row]))
    return out, total.exp().tolist()


@torch.no_grad()
def answer(
    model: MultimodalModel,
    words: Words,
    media: tuple[Tensor, Tensor],
    asked: Sequence[tuple[int, Question]],
) -> list[Answered]:
    """Answer questions, each about the row of its index in the tokens and mask of `media`."""
    all_tokens, all_masks = media
    names = {index: word for word, index in words.ids.items()}
    done: list[Answered] = []
    for start in range(0, len(asked), _BATCH):
        part = asked[start : start + _BATCH]
        which = torch.tensor([i for i, _ in part])
        input_ids, mask = words.texts([q.words for _, q in part])
        fused = model.fusion(
            model.text_encoder.tokens(input_ids, mask), mask, all_tokens[which], all_masks[which]
        )
        ids, scores = generate(model, fused, mask, 6)
        done += [
            Answered(question, " ".join(names[i] for i in row), score)
            for (_, question), row, score in zip(part, ids, scores, strict=True)
        ]
    return done


def questions(scenes_of: Sequence[Scene], kind: str, seed: int) -> list[tuple[int, Question]]:
    """Return one question of `kind` about every picture that allows one."""
    rng = np.random.default_rng([seed, list(KINDS).index(kind)])
    asked = [(i, ask(rng, scene, kind)) for i, scene in enumerate(scenes_of)]
    return [(i, question) for i, question in asked if question is not None]


def answering(model: MultimodalModel, words: Words, seen: Seen[Scene]) -> dict[str, list[Answered]]:
    """Answer every kind of question about every picture."""
    media = seen.tokens, seen.mask
    return {kind: answer(model, words, media, questions(seen.worlds, kind, 99)) for kind in KINDS}


def captioning(
    model: MultimodalModel, words: Words, seen: Seen[World], say: Callable[[World], list[str]]
) -> dict[str, float]:
    """Return BLEU-4 (Papineni et al., 2002) and the share of exact captions, in percent."""
    names = {index: word for word, index in words.ids.items()}
    written: list[str] = []
    for start in range(0, len(seen.tokens), _BATCH):
        part = slice(start, start + _BATCH)
        ids, _ = generate(model, seen.tokens[part], seen.mask[part], model.config.max_new_tokens)
        written += [" ".join(names[i] for i in row) for row in ids]
    truth = [" ".join(say(world)) for world in seen.worlds]
    bleu = sacrebleu.corpus_bleu(written, [truth], tokenize="none", force=True).score
    exact = np.mean([a == b for a, b in zip(written, truth, strict=True)])
    return {"bleu4": round(bleu, 2), "exact": percent(exact)}


@torch.no_grad()
def retrieving(
    model: MultimodalModel,
    words: Words,
    seen: Seen[World],
    say: Callable[[World], list[str]],
    modality: str = IMAGE,
) -> dict[str, float]:
    """Return recall@k both ways in a gallery of `GALLERY` worlds with captions all different.

    Raises:
        ValueError: fewer than `GALLERY` captions are different.
    """
    chosen: dict[str, int] = {}
    for i, world in enumerate(seen.worlds):
        chosen.setdefault(" ".join(say(world)), i)
    indices = list(chosen.values())[:GALLERY]
    if len(indices) < GALLERY:
        raise ValueError(f"{len(indices)} different captions; the gallery needs {GALLERY}")
    texts = [say(seen.worlds[i]) for i in indices]
    vectors = torch.cat(
        [
            model.text_encoder(*words.texts(texts[i : i + _BATCH]))[1]
            for i in range(0, GALLERY, _BATCH)
        ]
    )
    similarity = vectors @ seen.embedding[indices].T
    report = {}
    for name, scores in (
        (f"text_to_{modality}", similarity),
        (f"{modality}_to_text", similarity.T),
    ):
        rank = (scores > scores.diagonal()[:, None]).sum(1)
        for k in _RECALL_AT:
            report[f"{name}_r{k}"] = percent((rank < k).float().mean())
    return report


def percent(share: "float | np.floating[Any] | Tensor") -> float:
    """Return a share as percent with two decimals."""
    return round(100 * float(share), 2)


def calibration_error(answered: Sequence[Answered], bins: int = 10) -> float:
    """Return the expected calibration error of the answers' probabilities, in percent.

    Source: Guo et al., "On Calibration of Modern Neural Networks" (2017), equation 3.
    """
    scores = np.array([a.score for a in answered])
    right = np.array([a.right for a in answered])
    bin_of = np.minimum((scores * bins).astype(int), bins - 1)
    error = sum(
        abs(right[bin_of == b].mean() - scores[bin_of == b].mean()) * (bin_of == b).mean()
        for b in range(bins)
        if (bin_of == b).any()
    )
    return percent(error)


def about_held_out(question: Question, scene: Scene) -> bool:
    """Return whether the question is about one thing only, of a pair never seen in training."""
    things = {i for _, matched in question.nouns for i in matched}
    return len(things) == 1 and scene.things[next(iter(things))].pair in HELD_OUT_PAIRS


def evaluate(
    model: MultimodalModel,
    words: Words,
    cache: Path,
    count: int = 2000,
    *,
    held_out: bool = True,
    split: str = "test",
) -> dict[str, object]:
    """Return all figures of the model card, in percent, from `count` pictures of `split`."""
    size = model.config.image_size
    seen = see(model, split, pixels(split, count, size, cache))
    answered = answering(model, words, seen)
    every = [a for kind in answered.values() for a in kind]
    report: dict[str, object] = {
        "pictures": count,
        "questions": len(every),
        "answers": {
            kind: percent(np.mean([a.right for a in done])) for kind, done in answered.items()
        },
        "calibration_error": calibration_error(every),
        "captions": captioning(model, words, seen, caption),
        "retrieval": retrieving(model, words, seen, caption),
    }
    if held_out:
        new = see(model, "held_out_pairs", pixels("held_out_pairs", count, size, cache))
        report["held_out_pairs"] = {
            kind: percent(np.mean([a.right for a in done]))
            for kind, done in _held_out(model, words, new).items()
        }
    return report


def _held_out(model: MultimodalModel, words: Words, seen: Seen[Scene]) -> dict[str, list[Answered]]:
    results = {}
    for kind in ("color", "shape", "size", "texture", "where"):
        asked = [
            (i, q) for i, q in questions(seen.worlds, kind, 98) if about_held_out(q, seen.worlds[i])
        ]
        results[kind] = answer(model, words, (seen.tokens, seen.mask), asked)
    return results
