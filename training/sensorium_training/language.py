"""Stage two: questions, captions and retrieval, over object tokens that stage one can see.

The image network is fixed here and its strongest cells are computed once for every picture, so a
step costs no convolutions: millions of questions fit into an hour of two cores.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import Progress
from torch import Tensor, nn

from sensorium_export.models import MultimodalModel
from sensorium_export.models.attention import key_mask
from sensorium_export.models.cnn import CnnImageEncoder
from sensorium_export.models.fusion import CrossAttentionFusion
from sensorium_training.dataset import batches
from sensorium_training.examples import Words
from sensorium_training.journal import Journal
from sensorium_training.labels import SceneLabels
from sensorium_training.losses import Grounding, info_nce, next_token_loss
from sensorium_training.vision import cnn_of, learned_by_vision, pixel_values
from sensorium_training.workers import Worker
from sensorium_training.world.caption import caption, search_text
from sensorium_training.world.question import Question, ask_any
from sensorium_training.world.scene import Scene


@dataclass(frozen=True, slots=True)
class LanguagePlan:
    """How long, how fast and on how much of each task stage two learns; counts are a step's."""

    steps: int = 2700
    images: int = 64
    questions_per_image: int = 6
    chunk: int = 128
    captions: int = 24
    pairs: int = 128
    retrieve_every: int = 2
    learning_rate: float = 1.2e-3
    weight_decay: float = 0.02
    save_every: int = 500


@dataclass(frozen=True, slots=True)
class SeenPictures:
    """What the fixed image network sees in many pictures, in half precision to fit in memory.

    Attributes:
        described: [pictures, objects, CHANNELS + 3], from `ObjectTokens.select`.
        mean: [pictures, CHANNELS].
    """

    described: Tensor
    mean: Tensor

    def __getitem__(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """Return some pictures as `CnnImageEncoder.encode` takes them."""
        return self.described[index].float(), self.mean[index].float()


@torch.no_grad()
def look(encoder: CnnImageEncoder, pictures: NDArray[np.uint8], batch: int = 250) -> SeenPictures:
    """Run the image network over all `pictures`."""
    seen = [
        encoder.object_tokens.select(encoder.network(pixel_values(pictures[i : i + batch])))
        for i in range(0, len(pictures), batch)
    ]
    return SeenPictures(
        torch.cat([s[0] for s in seen]).half(), torch.cat([s[1] for s in seen]).half()
    )


@dataclass
class LanguageTask:
    """The model, its training-only heads and the data: everything a step needs."""

    model: MultimodalModel
    words: Words
    scenes: list[Scene]
    labels: SceneLabels
    seen: SeenPictures
    plan: LanguagePlan
    encoder: CnnImageEncoder = field(init=False)
    fusion: CrossAttentionFusion = field(init=False)
    grounding: Grounding = field(init=False)
    log_scale: nn.Parameter = field(init=False)

    def __post_init__(self) -> None:
        """Make the training-only parts.

        Raises:
            TypeError: the model's encoder is not a CNN or its fusion is not cross-attention.
        """
        self.encoder = cnn_of(self.model)
        if not isinstance(self.model.fusion, CrossAttentionFusion):
            raise TypeError("stage two trains the cross-attention fusion only")
        self.fusion = self.model.fusion
        self.grounding = Grounding(self.model.config.width)
        self.log_scale = nn.Parameter(torch.tensor(2.6))

    def question_loss(
        self, questions: list[Question], index: Tensor, tokens: Tensor, mask: Tensor
    ) -> tuple[Tensor, dict[str, float]]:
        """Return the loss of answering and of grounding; `tokens` are each question's picture's."""
        batch = self.words.questions(questions)
        hidden = self.model.text_encoder.tokens(batch.input_ids, batch.mask)
        self_mask, cross_mask = key_mask(batch.mask), key_mask(mask)
        for block in self.fusion.blocks[:-1]:
            hidden = block(hidden, tokens, self_mask, cross_mask)
        nouns = hidden[batch.nouns[:, 0], batch.nouns[:, 1]]
        fused = self.fusion.norm(self.fusion.blocks[-1](hidden, tokens, self_mask, cross_mask))
        logits = self.model.text_decoder(batch.targets.inputs, fused, batch.mask)
        answer = next_token_loss(logits, batch.targets.outputs)
        labels = self.labels[index[batch.nouns[:, 0]]]
        loss = answer + 0.5 * self.grounding.noun_loss(nouns, batch.matched, labels)
        if len(batch.relations):
            compared = fused[batch.relations[:, 0], batch.relations[:, 1]]
            loss = loss + 0.5 * self.grounding.relation_loss(compared, batch.difference)
        right = (logits[:, 0].argmax(-1) == batch.targets.outputs[:, 0]).float().mean()
        return loss, {"answer_loss": float(answer.detach()), "first_word": float(right)}

    def caption_loss(self, scenes: list[Scene], tokens: Tensor, mask: Tensor) -> Tensor:
        """Return the loss of captioning."""
        targets = self.words.targets([caption(scene) for scene in scenes])
        logits = self.model.text_decoder(targets.inputs, tokens, mask)
        return next_token_loss(logits, targets.outputs)

    def retrieval_loss(
        self, scenes: list[Scene], embedding: Tensor, rng: np.random.Generator
    ) -> Tensor:
        """Return InfoNCE of full captions and of search texts against the pictures."""
        full = [caption(scene) for scene in scenes]
        loss = self._pair_loss(full, embedding, torch.eye(len(scenes), dtype=torch.bool))
        texts = [search_text(rng, scene) for scene in scenes[: len(scenes) // 4]]
        true = torch.tensor([[text.describes(scene) for scene in scenes] for text in texts])
        return loss + 0.5 * self._pair_loss([text.words for text in texts], embedding, true)

    def _pair_loss(self, texts: list[list[str]], embedding: Tensor, positive: Tensor) -> Tensor:
        _, vectors = self.model.text_encoder(*self.words.texts(texts))
        return info_nce(vectors, embedding, positive, self.log_scale)

    def backward(
        self, index: NDArray[np.int64], rng: np.random.Generator, *, retrieve: bool
    ) -> dict[str, float]:
        """Accumulate the gradients of one step over the pictures `index`; return what to report.

        Only with `retrieve` are all of the pictures used; the other tasks need fewer.
        """
        plan, report = self.plan, {}
        index = index if retrieve else index[: plan.images]
        rows = torch.from_numpy(index)
        tokens, mask, embedding = self.encoder.encode(*self.seen[rows])
        scenes = [self.scenes[i] for i in index]
        few = slice(plan.captions)
        loss = captions = self.caption_loss(scenes[few], tokens[few], mask[few])
        if retrieve:
            retrieval = self.retrieval_loss(scenes, embedding, rng)
            report["retrieval_loss"] = float(retrieval.detach())
            loss = captions + 2 * retrieval
        torch.autograd.backward(loss, retain_graph=True)
        asked = [
            (ask_any(rng, scenes[i]), i)
            for i in range(plan.images)
            for _ in range(plan.questions_per_image)
        ]
        asked.sort(key=lambda pair: len(pair[0].words))
        leaf = tokens.detach().requires_grad_()
        for start in range(0, len(asked), plan.chunk):
            part = asked[start : start + plan.chunk]
            which = torch.tensor([i for _, i in part])
            loss, answers = self.question_loss(
                [q for q, _ in part], rows[which], leaf[which], mask[which]
            )
            torch.autograd.backward(loss * len(part) / len(asked) * 2)
        torch.autograd.backward(tokens, leaf.grad)
        return report | answers | {"caption_loss": float(captions.detach())}


def train_language(
    worker: Worker,
    task: LanguageTask,
    journal_path: Path,
    save: Callable[[], None],
) -> None:
    """Train all but the image network in place; the leading worker calls `save` now and then."""
    model, plan = task.model, task.plan
    learner = nn.ModuleList([model, task.grounding, nn.ParameterList([task.log_scale])])
    fixed = {id(p) for part in learned_by_vision(task.encoder) for p in part.parameters()}
    parameters = [p for p in learner.parameters() if id(p) not in fixed]
    model.train()
    task.encoder.network.eval()
    optimizer = torch.optim.AdamW(
        parameters, plan.learning_rate, weight_decay=plan.weight_decay, betas=(0.9, 0.98)
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, plan.learning_rate, plan.steps, pct_start=0.08
    )
    journal = Journal(journal_path, "language", worker.count)
    rng = np.random.default_rng([11, worker.rank])
    order = batches(len(task.scenes), plan.pairs, rng)
    with Progress(disable=not worker.leads) as progress:
        for step in progress.track(range(1, plan.steps + 1), description="language"):
            optimizer.zero_grad()
            report = task.backward(next(order), rng, retrieve=step % plan.retrieve_every == 0)
            nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            schedule.step()
            worker.average(learner, step)
            if worker.leads and step % 50 == 0:
                journal.report(step, **report)
            if worker.leads and step % plan.save_every == 0:
                save()
    worker.average(learner, 0)
    model.eval()
