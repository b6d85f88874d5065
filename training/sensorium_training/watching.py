"""The stage "watching": the tracker learns the dense labels of films, slot by slot.

python -m sensorium_training.watching
"""

import argparse
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import Progress, track
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from sensorium_export.checkpoint import WEIGHTS_FILE
from sensorium_export.models import ModelConfig
from sensorium_export.models.cnn import CHANNELS, CnnImageEncoder
from sensorium_export.models.tracker import Tracker, Tracks
from sensorium_export.models.video_encoder import VideoEncoder
from sensorium_server.stages.events import Event, Rules, merged, track_events
from sensorium_training import workers
from sensorium_training.clip_labels import ClipLabels, labels_from_clips
from sensorium_training.dataset import batches
from sensorium_training.detection import VIDEO_COLLAR_S, Span, detection, tagging
from sensorium_training.films import SAMPLED, clips, frames
from sensorium_training.journal import Journal
from sensorium_training.labels import ATTRIBUTES
from sensorium_training.vision import CLASSES, pixel_values
from sensorium_training.workers import Worker
from sensorium_training.world.motion import ACTIONS, Clip
from sensorium_training.world.sound import CLIP_S

WATCHING_FILE = "watching.safetensors"
_STRENGTH_WEIGHT = 4.0
_PLACE_WEIGHT = 4.0
_SPAN_WEIGHT = 5.0
_ATTRIBUTE_WEIGHT = 0.3
_JITTER = 3.0
"""Tracks start at any clear slot while learning: this much is added to a slot's strength."""

RULES = Rules((), ACTIONS)

_HELD_OUT = 1000
"""Films of the validation split."""


@dataclass(frozen=True, slots=True)
class WatchingPlan:
    """How long and how fast the tracker learns."""

    steps: int = 3000
    batch: int = 64
    learning_rate: float = 3e-3
    weight_decay: float = 0.02


@dataclass(frozen=True, slots=True)
class Glimpses:
    """What the fixed image network sees in the frames of many films, in half precision.

    Attributes:
        slots: [films, frames, objects, CHANNELS + 3], from `VideoEncoder.slots`.
        mean: [films, CHANNELS].
    """

    slots: Tensor
    mean: Tensor


@dataclass(frozen=True, slots=True)
class WatchedClips:
    """What the fixed networks see in many films, in half precision to fit in memory.

    Attributes:
        described: [films, tracks, sum of `VideoEncoder.parts`], from `VideoEncoder.select`.
        mean: [films, CHANNELS].
    """

    described: Tensor
    mean: Tensor

    def __getitem__(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """Return some films as `VideoEncoder.encode` takes them."""
        return self.described[index].float(), self.mean[index].float()


@torch.no_grad()
def glimpse(encoder: VideoEncoder, films: NDArray[np.uint8], batch: int = 20) -> Glimpses:
    """Run the image network over the frames of all `films`, [films, frames, side, side, 3]."""
    shape = (len(films), films.shape[1], encoder.image_encoder.object_tokens.objects, CHANNELS + 3)
    slots = torch.empty(shape, dtype=torch.float16)
    mean = torch.empty((len(films), CHANNELS), dtype=torch.float16)
    for start in track(range(0, len(films), batch), "glimpses", disable=len(films) < _HELD_OUT):
        part = films[start : start + batch]
        values = pixel_values(part.reshape(-1, *part.shape[2:]))
        rows = slice(start, start + len(part))
        slots[rows], mean[rows] = encoder.slots(values.unflatten(0, part.shape[:2]))
    return Glimpses(slots, mean)


@torch.no_grad()
def watch(encoder: VideoEncoder, films: NDArray[np.uint8], batch: int = 20) -> WatchedClips:
    """Run the image network and the tracker over all `films`, [films, frames, side, side, 3]."""
    seen = glimpse(encoder, films, batch)
    described = [encoder.track_slots(part.float())[0].half() for part in seen.slots.split(250)]
    return WatchedClips(torch.cat(described), seen.mean)


def learned_by_watching(encoder: VideoEncoder) -> nn.ModuleList:
    """Return the parts that this stage trains and the language stage leaves as they are."""
    return nn.ModuleList([encoder.tracker])


class AttributeHeads(nn.Module):
    """Linear heads that read each attribute off a track's features; thrown away after."""

    def __init__(self) -> None:
        super().__init__()
        self.attributes = nn.ModuleList(
            nn.Linear(CHANNELS, len(CLASSES[name])) for name in ATTRIBUTES
        )

    def forward(self, features: Tensor) -> list[Tensor]:
        """Return the logits of each attribute."""
        return [head(features) for head in self.attributes]


@dataclass(frozen=True, slots=True)
class Owners:
    """Whose the slots are and whose the tracks.

    Attributes:
        slots: int64, [batch, actors, frames], see `ClipLabels.slots`.
        opacity: float, [batch, frames, slots], of the actor that a slot shows; 0 for none.
        actor: int64, [batch, tracks], of the slot that a track starts at.
        owned: bool, [batch, tracks], whether that slot shows any.
        first: bool, [batch, tracks], whether it is that actor's first track.
    """

    slots: Tensor
    opacity: Tensor
    actor: Tensor
    owned: Tensor
    first: Tensor


def owners(labels: ClipLabels, position: Tensor, objectness: Tensor, picked: Tensor) -> Owners:
    """Return the owners of slots and of the tracks that start at the slots `picked`."""
    slots = labels.slots(position, objectness)
    shows = F.one_hot(slots, position.shape[2] + 1)[..., :-1]
    opacity = (shows * labels.visible[..., None]).sum(1)
    at = picked[:, None].expand(-1, shows.shape[1], -1)
    picks = shows.flatten(2).gather(2, at)
    actor, owned = picks.argmax(1), picks.any(1)
    again = (actor[:, :, None] == actor[:, None]) & owned[:, None]
    return Owners(slots, opacity, actor, owned, owned & ~again.tril(-1).any(2))


def watching_loss(
    tracker: Tracker, heads: AttributeHeads, slots: Tensor, labels: ClipLabels, jitter: float
) -> tuple[Tensor, dict[str, float]]:
    """Return the loss of a batch of clips and what to report.

    Args:
        tracker: learns.
        heads: learn with it.
        slots: float, [batch, frames, slots, CHANNELS + 3].
        labels: of the same clips.
        jitter: greatest noise of the choice where a track starts.
    """
    features, position, objectness = slots.split([CHANNELS, 2, 1], dim=-1)
    seen = tracker.look(features, position)
    with torch.no_grad():
        noise = torch.rand_like(seen.strength) * jitter
        picked, clearness = tracker.pick(seen, seen.strength + noise)
        clearness -= noise.flatten(1).gather(1, picked)
        known = owners(labels, position, objectness[..., 0], picked)
    links = tracker.follow(seen, picked)
    tracks = tracker.describe(seen, links, clearness)
    strong = F.binary_cross_entropy_with_logits(seen.strength, known.opacity)
    present = F.binary_cross_entropy_with_logits(tracks.presence, known.first.float())
    rows = known.owned.nonzero()[:, 0]
    target = known.slots[rows, known.actor[known.owned]]
    linked = F.cross_entropy(links[known.owned].flatten(0, 1), target.flatten())
    loss, report = _action_loss(tracks, heads, labels, known)
    right = (links[known.owned].argmax(-1) == target).float().mean()
    found = ((tracks.presence > 0) == known.first).float().mean()
    report |= {"link": float(right), "link_loss": float(linked.detach()), "presence": float(found)}
    return loss + _STRENGTH_WEIGHT * strong + present + linked, report


def _action_loss(
    tracks: Tracks, heads: AttributeHeads, labels: ClipLabels, known: Owners
) -> tuple[Tensor, dict[str, float]]:
    """Return the loss over the first track of each actor."""
    rows, actor = known.first.nonzero()[:, 0], known.actor[known.first]
    logits, action = tracks.actions[known.first], labels.action[rows, actor]
    named = F.cross_entropy(logits, action)
    timed = (tracks.span[known.first] - labels.span[rows, actor]).abs().mean()
    ends = torch.cat([tracks.first, tracks.last], dim=-1)[known.first]
    placed = (ends - labels.ends[rows, actor]).abs().mean()
    loss = named + _SPAN_WEIGHT * timed + _PLACE_WEIGHT * placed
    report = {
        "action": float((logits.argmax(-1) == action).float().mean()),
        "action_loss": float(named.detach()),
        "span_s": float(timed.detach() * CLIP_S),
        "ends_px": float(placed.detach() * 64),
    }
    read = heads(tracks.features[known.first])
    for i, name in enumerate(ATTRIBUTES):
        truth = labels.attributes[rows, actor, i]
        loss = loss + _ATTRIBUTE_WEIGHT * F.cross_entropy(read[i], truth)
        report[name] = float((read[i].argmax(-1) == truth).float().mean())
    return loss, report


def train_watching(
    worker: Worker,
    tracker: Tracker,
    slots: Tensor,
    labels: ClipLabels,
    *,
    plan: WatchingPlan,
    journal_path: Path,
) -> AttributeHeads:
    """Train the tracker in place on half-precision `slots` of all films; return the heads."""
    torch.manual_seed(worker.rank)
    heads = AttributeHeads()
    learner = nn.ModuleList([tracker, heads])
    learner.train()
    optimizer = torch.optim.AdamW(
        learner.parameters(), plan.learning_rate, weight_decay=plan.weight_decay
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, plan.learning_rate, plan.steps, pct_start=0.1
    )
    journal = Journal(journal_path, "watching", worker.count)
    order = batches(len(slots), plan.batch, np.random.default_rng([17, worker.rank]))
    with Progress(disable=not worker.leads) as progress:
        for step in progress.track(range(1, plan.steps + 1), description="watching"):
            index = torch.from_numpy(np.sort(next(order)))
            loss, report = watching_loss(
                tracker, heads, slots[index].float(), labels[index], _JITTER
            )
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            nn.utils.clip_grad_norm_(learner.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            worker.average(learner, step)
            if worker.leads and step % 50 == 0:
                journal.report(step, loss=float(loss.detach()), **report)
    worker.average(learner, 0)
    learner.eval()
    return heads


def true_actions(clip: Clip) -> list[Span]:
    """Return what happens when in a clip; events of one action that overlap are one."""
    events = (Event(ACTIONS[a.action], a.start_s, a.end_s, 1.0) for a in clip.actors)
    return [Span(*event[:3]) for event in merged(e for e in events if e.label != RULES.idle_label)]


@torch.no_grad()
def watching_figures(encoder: VideoEncoder, slots: Tensor, films: list[Clip]) -> dict[str, float]:
    """Return how well actions are recognised and timed: see `detection`."""
    parts = [encoder.track_slots(part.float())[1:] for part in slots.split(250)]
    actions, spans = (torch.cat(column) for column in zip(*parts, strict=True))
    found = [
        [Span(*event[:3]) for event in merged(track_events(*row, CLIP_S, RULES))]
        for row in zip(actions.numpy(), spans.numpy(), strict=True)
    ]
    truth = [true_actions(clip) for clip in films]
    events = detection(zip(truth, found, strict=True), VIDEO_COLLAR_S)
    there = np.zeros((len(films), len(ACTIONS)), bool)
    for row, clip in enumerate(films):
        there[row, [actor.action for actor in clip.actors]] = True
    tags = tagging(there, (actions * spans[..., :1]).amax(1).numpy())
    counted = (spans[..., 0] > 1 / 2).sum(1) == torch.tensor([len(c.actors) for c in films])
    return {
        "event_f1": events.f1,
        "event_iou": events.iou or 0.0,
        "actions_exact": tags.exact,
        "mean_average_precision": tags.mean_average_precision,
        "counted": float(counted.float().mean()),
    }


def seeing_encoder(checkpoint: Path) -> VideoEncoder:
    """Return a new video encoder that sees with the image encoder of a checkpoint."""
    config = ModelConfig(vocabulary=1, frames=SAMPLED, actions=len(ACTIONS))
    image_encoder = CnnImageEncoder(config)
    start = "image_encoder."
    weights = load_file(checkpoint / WEIGHTS_FILE)
    image_encoder.load_state_dict(
        {name.removeprefix(start): t for name, t in weights.items() if name.startswith(start)}
    )
    return VideoEncoder(config, image_encoder.eval())


def train(worker: Worker, plan: WatchingPlan, films: int, cache: Path, checkpoint: Path) -> None:
    """Train on the cached films, keep the weights in the cache and print the figures."""
    torch.manual_seed(0)
    encoder = seeing_encoder(checkpoint)
    seen = glimpse(encoder, frames("train", films, cache))
    labels = labels_from_clips(clips("train", films), SAMPLED)
    path = cache / "watching.jsonl"
    train_watching(worker, encoder.tracker, seen.slots, labels, plan=plan, journal_path=path)
    if worker.leads:
        weights = learned_by_watching(encoder).state_dict()
        save_file({k: v.contiguous() for k, v in weights.items()}, cache / WATCHING_FILE)
        held = glimpse(encoder, frames("validation", _HELD_OUT, cache))
        figures = watching_figures(encoder, held.slots, clips("validation", _HELD_OUT))
        print(" ".join(f"{name} {value:.4f}" for name, value in figures.items()))  # noqa: T201


def main() -> None:
    """Draw the films, then start the workers."""
    parser = argparse.ArgumentParser(
        prog="python -m sensorium_training.watching",
        description="Train the tracker on dense labels, on top of a trained image encoder. "
        "Example: python -m sensorium_training.watching --workers 2",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    plan = WatchingPlan()
    parser.add_argument("--cache", type=Path, default=Path(".cache/training"))
    parser.add_argument("--checkpoint", type=Path, help="default: pictures in the cache")
    parser.add_argument("--workers", type=int, default=2, help="processes of one thread each")
    parser.add_argument("--clips", type=int, default=14_000, help="films to draw")
    parser.add_argument("--steps", type=int, default=plan.steps)
    given = parser.parse_args()
    for split, count in (("train", given.clips), ("validation", _HELD_OUT)):
        frames(split, count, given.cache, given.workers)
    plan = WatchingPlan(**asdict(plan) | {"steps": given.steps})
    checkpoint = given.checkpoint or given.cache / "pictures"
    workers.run(train, given.workers, plan, given.clips, given.cache, checkpoint)


if __name__ == "__main__":
    main()
