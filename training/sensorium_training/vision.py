"""Stage one: the image network learns the renderer's dense labels, cell by cell.

Without this stage the rest does not learn on a CPU. The attribute heads are thrown away after.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import Progress
from torch import Tensor, nn
from torch.nn import functional as F

from sensorium_export.models import MultimodalModel
from sensorium_export.models.cnn import CHANNELS, STRIDE, CnnImageEncoder
from sensorium_training.dataset import batches
from sensorium_training.journal import Journal
from sensorium_training.labels import ATTRIBUTES, SceneLabels
from sensorium_training.workers import Worker
from sensorium_training.world.scene import BACKGROUNDS, COLORS, SHAPES, SIZES, TEXTURES

CLASSES = {"shape": SHAPES, "color": COLORS, "size": SIZES, "texture": TEXTURES}
_OFFSET_WEIGHT = 4.0


@dataclass(frozen=True, slots=True)
class VisionPlan:
    """How long and how fast stage one learns."""

    steps: int = 1000
    batch: int = 128
    learning_rate: float = 3e-3
    weight_decay: float = 0.02


class DenseHeads(nn.Module):
    """Linear heads that read each attribute off a cell, and the background off the mean cell."""

    def __init__(self) -> None:
        super().__init__()
        self.attributes = nn.ModuleDict(
            {name: nn.Linear(CHANNELS, len(classes)) for name, classes in CLASSES.items()}
        )
        self.background = nn.Linear(CHANNELS, len(BACKGROUNDS))


def pixel_values(pictures: NDArray[np.uint8]) -> Tensor:
    """Return uint8 pictures [n, size, size, 3] as normalised float [n, 3, size, size]."""
    values = torch.from_numpy(np.array(pictures)).permute(0, 3, 1, 2)
    return values.float().div(127.5).sub(1).contiguous(memory_format=torch.channels_last)


def dense_loss(
    encoder: CnnImageEncoder, heads: DenseHeads, cells: Tensor, labels: SceneLabels
) -> tuple[Tensor, dict[str, float]]:
    """Return the loss over all cells and the accuracy of each attribute.

    Args:
        encoder: gives `locate`, the objectness and offset head.
        heads: the attribute heads.
        cells: float, [batch, cells, CHANNELS].
        labels: of the same pictures.
    """
    side = encoder.object_tokens.side
    index = labels.cells(side)
    located = encoder.object_tokens.locate(cells)
    target = torch.zeros_like(located[..., 0])
    rows = torch.arange(len(index))[:, None].expand_as(index)
    target[rows[labels.present], index[labels.present]] = 1
    loss = 4 * F.binary_cross_entropy_with_logits(located[..., 0], target)
    places = encoder.object_tokens.positions(located)
    here = (rows[labels.present], index[labels.present])
    error = (places[here] - labels.position[labels.present]).abs() * side
    loss = loss + _OFFSET_WEIGHT * error.mean()
    accuracy = {"presence": float(((located[..., 0] > 0) == (target > 0)).all(1).float().mean())}
    accuracy["offset_px"] = float(error.detach().mean() * STRIDE)
    for i, name in enumerate(ATTRIBUTES):
        logits = heads.attributes[name](cells[here])
        truth = labels.attributes[..., i][labels.present]
        loss = loss + F.cross_entropy(logits, truth)
        accuracy[name] = float((logits.argmax(-1) == truth).float().mean())
    background = heads.background(cells.mean(1))
    loss = loss + 0.3 * F.cross_entropy(background, labels.background)
    accuracy["background"] = float((background.argmax(-1) == labels.background).float().mean())
    return loss, accuracy


def cnn_of(model: MultimodalModel) -> CnnImageEncoder:
    """Return the image encoder that dense labels can train.

    Raises:
        TypeError: the model's is not a CNN.
    """
    if not isinstance(model.image_encoder, CnnImageEncoder):
        raise TypeError("dense labels train the CNN image encoder only")
    return model.image_encoder


def learned_by_vision(encoder: CnnImageEncoder) -> nn.ModuleList:
    """Return the parts that stage one trains and stage two leaves as they are."""
    return nn.ModuleList([encoder.network, encoder.object_tokens.locate])


def train_vision(
    worker: Worker,
    encoder: CnnImageEncoder,
    pictures: NDArray[np.uint8],
    labels: SceneLabels,
    *,
    plan: VisionPlan,
    journal_path: Path,
) -> DenseHeads:
    """Train the image network in place and return the heads that read its cells."""
    torch.manual_seed(0)
    heads = DenseHeads()
    learner = nn.ModuleList([learned_by_vision(encoder), heads])
    learner.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    learner.train()
    optimizer = torch.optim.AdamW(
        learner.parameters(), plan.learning_rate, weight_decay=plan.weight_decay
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, plan.learning_rate, plan.steps, pct_start=0.1
    )
    journal = Journal(journal_path, "vision", worker.count)
    order = batches(len(pictures), plan.batch, np.random.default_rng([7, worker.rank]))
    with Progress(disable=not worker.leads) as progress:
        for step in progress.track(range(1, plan.steps + 1), description="vision"):
            index = np.sort(next(order))
            cells = encoder.network(pixel_values(pictures[index]))
            loss, accuracy = dense_loss(encoder, heads, cells, labels[torch.from_numpy(index)])
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
            schedule.step()
            worker.average(learner, step)
            if worker.leads and step % 50 == 0:
                journal.report(step, loss=float(loss.detach()), **accuracy)
    worker.average(learner, 0)
    learner.eval()
    return heads
