"""Language: questions, captions and retrieval over what the fixed networks see.

The image, sound and video networks are fixed here and their slots are computed once for every
input, so a step costs no convolutions: millions of questions fit into an hour of two cores.
Every step mixes all modalities, since a stage without one of them forgets it.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

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
from sensorium_training.entities import AUDIO, IMAGE, MODALITIES, VIDEO
from sensorium_training.examples import QuestionBatch, Words
from sensorium_training.journal import Journal
from sensorium_training.losses import Comparing, Grounding, info_nce, next_token_loss
from sensorium_training.material import (
    CAPTION,
    SEARCH_TEXT,
    Drawn,
    Material,
    Posed,
    joined,
)
from sensorium_training.vision import pixel_values
from sensorium_training.workers import Worker
from sensorium_training.world.clip_question import ask_any_clip
from sensorium_training.world.joint_question import ask_any_joint
from sensorium_training.world.question import ask_any
from sensorium_training.world.sound_question import ask_any_sound

JOINT = "joint"
"""Questions about a picture and a recording together."""

_MISSING_SHARE = 0.12
"""How often a question about two media lacks one of them."""

_FEW = 4
"""A search text for every so many worlds."""


@dataclass(frozen=True, slots=True)
class LanguagePlan:
    """How long, how fast and on how much of each task language learns; counts are a step's.

    Attributes:
        steps: updates of each worker.
        questions: about each modality, and about a picture and a recording together.
        captions: of pictures and of clips.
        rows: worlds of each modality that are asked about.
        pairs: worlds of each modality that are retrieved, every `retrieve_every` steps.
        chunk: questions that go through the network together.
        learning_rate: at its peak.
        weight_decay: of AdamW.
        retrieve_every: steps.
        save_every: steps.
    """

    steps: int = 2700
    questions: dict[str, int] = field(default_factory=lambda: {IMAGE: 384})
    captions: dict[str, int] = field(default_factory=lambda: {IMAGE: 24})
    rows: int = 64
    pairs: int = 128
    chunk: int = 128
    learning_rate: float = 1.2e-3
    weight_decay: float = 0.02
    retrieve_every: int = 2
    save_every: int = 500


ALL_MODALITIES = LanguagePlan(
    steps=2400,
    questions={IMAGE: 112, AUDIO: 112, VIDEO: 144, JOINT: 64},
    captions={IMAGE: 10, VIDEO: 24},
    rows=48,
    pairs=80,
    learning_rate=8e-4,
    save_every=200,
)
"""The second course: sounds, clips and pictures together, from what pictures alone have taught."""


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
    """The model, its training-only heads and the material: everything a step needs."""

    model: MultimodalModel
    words: Words
    material: dict[str, Material]
    plan: LanguagePlan
    fusion: CrossAttentionFusion = field(init=False)
    heads: nn.ModuleDict = field(init=False)
    log_scale: nn.Parameter = field(init=False)

    def __post_init__(self) -> None:
        """Make the training-only parts.

        Raises:
            TypeError: the model's fusion is not cross-attention.
        """
        if not isinstance(self.model.fusion, CrossAttentionFusion):
            raise TypeError("language trains the cross-attention fusion only")
        self.fusion = self.model.fusion
        width = self.model.config.width
        self.heads = nn.ModuleDict({name: Grounding(width, name) for name in self.material})
        self.heads["relation"] = Comparing(width)
        self.log_scale = nn.Parameter(torch.tensor(2.6))

    def pose(self, rng: np.random.Generator, drawn: dict[str, Drawn], kind: str) -> Posed:
        """Ask one question of `kind`: a modality, or `JOINT`."""
        rows = self.plan.rows
        row, other = (int(i) for i in rng.integers(rows, size=2))
        if kind == IMAGE:
            return Posed(ask_any(rng, drawn[IMAGE].world(row)), {IMAGE: row})
        if kind == AUDIO:
            return Posed(ask_any_sound(rng, drawn[AUDIO].world(row)), {AUDIO: row})
        if kind == VIDEO:
            clip = drawn[VIDEO].world(row)
            if rng.random() < 0.5:  # noqa: PLR2004 - half of the clips are silent
                return Posed(ask_any_clip(rng, replace(clip, sounds=None)), {VIDEO: row})
            clip = replace(clip, sounds=drawn[AUDIO].world(other))
            return Posed(ask_any_clip(rng, clip), {VIDEO: row, AUDIO: other})
        media = {IMAGE: row, AUDIO: other}
        if rng.random() < _MISSING_SHARE:
            del media[(IMAGE, AUDIO)[int(rng.integers(2))]]
        scene, sounds = (
            drawn[name].world(media[name]) if name in media else None for name in (IMAGE, AUDIO)
        )
        return Posed(ask_any_joint(rng, scene, sounds), media)

    def question_loss(
        self, posed: list[Posed], kind: str, drawn: dict[str, Drawn], leaves: dict[str, Tensor]
    ) -> tuple[Tensor, dict[str, float]]:
        """Return the loss of answering and of grounding."""
        modality = IMAGE if kind == JOINT else kind
        batch = self.words.questions([one.question for one in posed], modality)
        media = {name: (leaves[name], drawn[name].mask) for name in drawn}
        tokens, mask = joined(posed, media)
        hidden = self.model.text_encoder.tokens(batch.input_ids, batch.mask)
        self_mask, cross_mask = key_mask(batch.mask), key_mask(mask)
        for block in self.fusion.blocks[:-1]:
            hidden = block(hidden, tokens, self_mask, cross_mask)
        grounding = self.grounding_loss(batch, hidden, posed, drawn)
        fused = self.fusion.norm(self.fusion.blocks[-1](hidden, tokens, self_mask, cross_mask))
        logits = self.model.text_decoder(batch.targets.inputs, fused, batch.mask)
        answer = next_token_loss(logits, batch.targets.outputs)
        loss = answer + 0.5 * grounding
        if len(batch.relations):
            compared = fused[batch.relations[:, 0], batch.relations[:, 1]]
            loss = loss + 0.5 * self.heads["relation"](compared, batch.difference)
        right = (logits[:, 0].argmax(-1) == batch.targets.outputs[:, 0]).float().mean()
        return loss, {f"{kind}_loss": float(answer.detach()), f"{kind}_first_word": float(right)}

    def grounding_loss(
        self, batch: QuestionBatch, hidden: Tensor, posed: list[Posed], drawn: dict[str, Drawn]
    ) -> Tensor:
        """Return how badly nouns tell what they refer to, over all modalities."""
        loss = hidden.new_zeros(())
        for number, name in enumerate(MODALITIES):
            chosen = (batch.about == number).nonzero()[:, 0]
            rows = torch.tensor(
                [posed[q].rows.get(name, -1) for q in batch.nouns[chosen, 0].tolist()],
                dtype=torch.int64,
            )
            chosen, rows = chosen[rows >= 0], rows[rows >= 0]
            if not len(chosen):
                continue
            nouns = hidden[batch.nouns[chosen, 0], batch.nouns[chosen, 1]]
            known = drawn[name].material.entities[drawn[name].index[rows]]
            share = len(chosen) / len(batch.about)
            loss = loss + share * self.heads[name](nouns, batch.matched[chosen], known)
        return loss

    def caption_loss(self, drawn: Drawn, count: int) -> Tensor:
        """Return the loss of captioning the first `count` worlds."""
        say = CAPTION[drawn.material.modality]
        targets = self.words.targets([say(world) for world in drawn.worlds(count)])
        logits = self.model.text_decoder(targets.inputs, drawn.tokens[:count], drawn.mask[:count])
        return next_token_loss(logits, targets.outputs)

    def retrieval_loss(self, drawn: list[Drawn], rng: np.random.Generator) -> Tensor:
        """Return InfoNCE: full captions in one space with all modalities, search texts in each."""
        full = [CAPTION[one.material.modality](world) for one in drawn for world in one.worlds()]
        embedding = torch.cat([one.embedding for one in drawn])
        same = torch.tensor([[a == b for b in full] for a in full])
        loss = self._pair_loss(full, embedding, same)
        for one in drawn:
            worlds, search_text = one.worlds(), SEARCH_TEXT[one.material.modality]
            texts = [search_text(rng, world) for world in worlds[: len(worlds) // _FEW]]
            true = torch.tensor([[text.describes(world) for world in worlds] for text in texts])
            said = [text.words for text in texts]
            loss = loss + 0.5 / len(drawn) * self._pair_loss(said, one.embedding, true)
        return loss

    def _pair_loss(self, texts: list[list[str]], embedding: Tensor, positive: Tensor) -> Tensor:
        _, vectors = self.model.text_encoder(*self.words.texts(texts))
        return info_nce(vectors, embedding, positive, self.log_scale)

    def backward(
        self, index: dict[str, NDArray[np.int64]], rng: np.random.Generator, *, retrieve: bool
    ) -> dict[str, float]:
        """Accumulate the gradients of one step over the worlds `index`; return what to report.

        Only with `retrieve` are all of the worlds used; the other tasks need fewer.
        """
        plan = self.plan
        count = plan.pairs if retrieve else plan.rows
        drawn = {
            name: Drawn.from_index(material, index[name][:count])
            for name, material in self.material.items()
        }
        captions = {n: self.caption_loss(drawn[n], k) for n, k in plan.captions.items()}
        report = {f"{name}_caption_loss": float(c.detach()) for name, c in captions.items()}
        loss = torch.stack(list(captions.values())).sum()
        if retrieve:
            retrieval = self.retrieval_loss(list(drawn.values()), rng)
            report["retrieval_loss"] = float(retrieval.detach())
            loss = loss + 2 * retrieval
        torch.autograd.backward(loss, retain_graph=True)
        leaves = {name: d.tokens.detach().requires_grad_() for name, d in drawn.items()}
        total = sum(plan.questions.values())
        for kind, asked in plan.questions.items():
            posed = [self.pose(rng, drawn, kind) for _ in range(asked)]
            posed.sort(key=lambda one: len(one.question.words))
            for start in range(0, asked, plan.chunk):
                part = posed[start : start + plan.chunk]
                loss, answers = self.question_loss(part, kind, drawn, leaves)
                torch.autograd.backward(loss * len(part) / total * 2)
                report |= answers
        for name, leaf in leaves.items():
            if leaf.grad is not None:
                torch.autograd.backward(drawn[name].tokens, leaf.grad)
        return report


def _orders(task: LanguageTask, rng: np.random.Generator) -> dict[str, Iterator[NDArray[np.int64]]]:
    return {
        name: batches(len(material.worlds), task.plan.pairs, rng)
        for name, material in task.material.items()
    }


def train_language(
    worker: Worker,
    task: LanguageTask,
    journal: Journal,
    fixed: nn.Module,
    save: Callable[[], None],
) -> None:
    """Train all but the `fixed` networks in place; the leading worker calls `save` now and then."""
    model, plan = task.model, task.plan
    learner = nn.ModuleList([model, task.heads, nn.ParameterList([task.log_scale])])
    untouched = {id(parameter) for parameter in fixed.parameters()}
    parameters = [p for p in learner.parameters() if id(p) not in untouched]
    model.train()
    fixed.eval()
    optimizer = torch.optim.AdamW(
        parameters, plan.learning_rate, weight_decay=plan.weight_decay, betas=(0.9, 0.98)
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, plan.learning_rate, plan.steps, pct_start=0.08
    )
    rng = np.random.default_rng([11, worker.rank])
    orders = _orders(task, rng)
    with Progress(disable=not worker.leads) as progress:
        for step in progress.track(range(1, plan.steps + 1), description=journal.stage):
            optimizer.zero_grad()
            index = {name: next(order) for name, order in orders.items()}
            report = task.backward(index, rng, retrieve=step % plan.retrieve_every == 0)
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
