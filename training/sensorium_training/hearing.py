"""The stage "hearing": the audio network learns the dense labels of recordings, frame by frame.

python -m sensorium_training.hearing
"""

import argparse
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import Progress
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from sensorium_export.models import ModelConfig
from sensorium_export.models.audio_encoder import FRAME_S, AudioEncoder
from sensorium_server.stages.events import Rules, sound_events
from sensorium_training import workers
from sensorium_training.dataset import batches
from sensorium_training.detection import AUDIO_COLLAR_S, Span, detection, tagging
from sensorium_training.journal import Journal
from sensorium_training.recordings import log_mels, sound_scenes
from sensorium_training.sound_labels import FrameTargets, SoundLabels, labels_from_sounds
from sensorium_training.workers import Worker
from sensorium_training.world.sound import SOUNDS, SoundScene

HEARING_FILE = "hearing.safetensors"
_ONSET_WEIGHT = 0.3
_START_WEIGHT = 0.5
_LOUDER = (-0.5, 0.3)
"""Range of the gain in the spectrogram's normalised unit, which is 20 dB."""

_TILT = 0.15
_HIDDEN_BANDS = 6
_FLOOR = -2.0
"""Digital silence as the spectrogram has it."""

_HELD_OUT = 1000
"""Recordings of the validation split."""


@dataclass(frozen=True, slots=True)
class HearingPlan:
    """How long and how fast the network learns."""

    steps: int = 1500
    batch: int = 64
    learning_rate: float = 4e-3
    weight_decay: float = 0.02


@dataclass(frozen=True, slots=True)
class HeardSounds:
    """What the fixed audio network hears in many recordings, in half precision.

    Attributes:
        described: [recordings, slots, FEATURES + sounds + 3], from `AudioEncoder.select`.
        mean: [recordings, FEATURES].
    """

    described: Tensor
    mean: Tensor

    def __getitem__(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """Return some recordings as `AudioEncoder.encode` takes them."""
        return self.described[index].float(), self.mean[index].float()


def mel_values(log_mel: NDArray[np.float16]) -> tuple[Tensor, Tensor]:
    """Return cached log-mels as the encoder's float log_mel and a mask of ones."""
    values = torch.from_numpy(np.array(log_mel, np.float32))
    return values, torch.ones(values.shape[:2], dtype=torch.int64)


@torch.no_grad()
def _selected(
    encoder: AudioEncoder, mels: NDArray[np.float16], batch: int
) -> Iterable[tuple[Tensor, Tensor, Tensor]]:
    for start in range(0, len(mels), batch):
        yield encoder.select(*mel_values(mels[start : start + batch]))


def hear(encoder: AudioEncoder, mels: NDArray[np.float16], batch: int = 250) -> HeardSounds:
    """Run the audio network over all `mels`, [recordings, frames, mels]."""
    kept = [(d.half(), mean.half()) for d, mean, _ in _selected(encoder, mels, batch)]
    return HeardSounds(torch.cat([d for d, _ in kept]), torch.cat([mean for _, mean in kept]))


def sound_activity(
    encoder: AudioEncoder, mels: NDArray[np.float16], batch: int = 250
) -> NDArray[np.float32]:
    """Return each sound's probability in each frame, [recordings, frames, sounds]."""
    parts = [activity for _, _, activity in _selected(encoder, mels, batch)]
    return torch.cat(parts).numpy()


def hearing_figures(
    encoder: AudioEncoder, mels: NDArray[np.float16], scenes: list[SoundScene]
) -> dict[str, float]:
    """Return how well events and tags are found: see `detection`."""
    activity = sound_activity(encoder, mels)
    rules = Rules(SOUNDS, ())
    found = [
        [Span(e.label, e.start_s, e.end_s) for e in sound_events(row, rules)] for row in activity
    ]
    truth = [[Span(SOUNDS[e.kind], e.start_s, e.end_s) for e in s.events] for s in scenes]
    events = detection(zip(truth, found, strict=True), AUDIO_COLLAR_S)
    there = np.array(
        [[any(e.kind == k for e in s.events) for k in range(len(SOUNDS))] for s in scenes]
    )
    tags = tagging(there, activity.max(1))
    return {
        "event_f1": events.f1,
        "event_iou": events.iou or 0.0,
        "tag_accuracy": tags.accuracy,
        "tags_exact": tags.exact,
        "mean_average_precision": tags.mean_average_precision,
    }


def augmented(log_mel: Tensor, rng: np.random.Generator) -> Tensor:
    """Return log-mels made louder or softer, brighter or darker, some with a few bands hidden.

    Hiding bands is one half of Park et al., "SpecAugment" (2019).
    """
    count, _, mels = log_mel.shape
    gain = rng.uniform(*_LOUDER, (count, 1))
    slope = rng.uniform(-_TILT, _TILT, (count, 1)) * np.linspace(-1, 1, mels)
    values = log_mel + torch.from_numpy((gain + slope)[:, None]).float()
    values = values.clamp(min=_FLOOR)
    for row in np.flatnonzero(rng.random(count) < 1 / 3):
        first = int(rng.integers(mels - _HIDDEN_BANDS))
        bands = slice(first, first + int(rng.integers(1, _HIDDEN_BANDS + 1)))
        values[row, :, bands] = values[row].mean()
    return values


def hearing_loss(
    encoder: AudioEncoder, features: Tensor, targets: FrameTargets
) -> tuple[Tensor, dict[str, float]]:
    """Return the loss over all frames and what to report.

    Args:
        encoder: gives `heard`, the heads.
        features: float, [batch, frames, FEATURES].
        targets: of the same recordings.
    """
    heard = encoder.heard(features)
    activity = F.binary_cross_entropy_with_logits(heard.activity, targets.activity)
    onset = F.binary_cross_entropy_with_logits(heard.onset, targets.onset, reduction="sum")
    events = (targets.onset > np.exp(-1 / 8)).sum().clamp(min=1)
    near = targets.near
    start = (heard.start - targets.start)[near].abs().mean() / FRAME_S
    duration = (heard.duration - targets.duration)[near].abs().mean()
    loss = len(SOUNDS) * activity + _ONSET_WEIGHT * onset / events
    loss = loss + _START_WEIGHT * start + duration
    right = ((heard.activity > 0) == (targets.activity > 0)).float().mean()
    return loss, {
        "activity_loss": float(activity.detach()),
        "activity": float(right),
        "onset_loss": float(onset.detach() / events),
        "start_frames": float(start.detach()),
        "duration_s": float(duration.detach()),
    }


def learned_by_hearing(encoder: AudioEncoder) -> nn.ModuleList:
    """Return the parts that this stage trains and the language stage leaves as they are."""
    return nn.ModuleList([encoder.network, encoder.locate])


def train_hearing(
    worker: Worker,
    encoder: AudioEncoder,
    mels: NDArray[np.float16],
    labels: SoundLabels,
    *,
    plan: HearingPlan,
    journal_path: Path,
) -> None:
    """Train the audio network in place."""
    torch.manual_seed(0)
    learner = learned_by_hearing(encoder)
    learner.train()
    optimizer = torch.optim.AdamW(
        learner.parameters(), plan.learning_rate, weight_decay=plan.weight_decay
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, plan.learning_rate, plan.steps, pct_start=0.1
    )
    journal = Journal(journal_path, "hearing", worker.count)
    rng = np.random.default_rng([13, worker.rank])
    order = batches(len(mels), plan.batch, rng)
    with Progress(disable=not worker.leads) as progress:
        for step in progress.track(range(1, plan.steps + 1), description="hearing"):
            index = np.sort(next(order))
            log_mel, mask = mel_values(mels[index])
            features = encoder.network(augmented(log_mel, rng), mask.float())
            targets = labels[torch.from_numpy(index)].targets(log_mel.shape[1])
            loss, report = hearing_loss(encoder, features, targets)
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
            schedule.step()
            worker.average(learner, step)
            if worker.leads and step % 50 == 0:
                journal.report(step, loss=float(loss.detach()), **report)
    worker.average(learner, 0)
    learner.eval()


def train(worker: Worker, plan: HearingPlan, recordings: int, cache: Path) -> None:
    """Train on the cached recordings, keep the weights in the cache and print the figures."""
    torch.manual_seed(0)
    encoder = AudioEncoder(ModelConfig(vocabulary=1, sounds=len(SOUNDS)))
    mels = log_mels("train", recordings, cache)
    labels = labels_from_sounds(sound_scenes("train", recordings))
    train_hearing(worker, encoder, mels, labels, plan=plan, journal_path=cache / "hearing.jsonl")
    if worker.leads:
        weights = learned_by_hearing(encoder).state_dict()
        save_file({k: v.contiguous() for k, v in weights.items()}, cache / HEARING_FILE)
        held = log_mels("validation", _HELD_OUT, cache)
        figures = hearing_figures(encoder, held, sound_scenes("validation", _HELD_OUT))
        print(" ".join(f"{name} {value:.4f}" for name, value in figures.items()))  # noqa: T201


def main() -> None:
    """Make the recordings, then start the workers."""
    parser = argparse.ArgumentParser(
        prog="python -m sensorium_training.hearing",
        description="Train the audio network on dense labels. "
        "Example: python -m sensorium_training.hearing --workers 2",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    plan = HearingPlan()
    parser.add_argument("--cache", type=Path, default=Path(".cache/training"))
    parser.add_argument("--workers", type=int, default=2, help="processes of one thread each")
    parser.add_argument("--recordings", type=int, default=20_000, help="recordings to make")
    parser.add_argument("--steps", type=int, default=plan.steps)
    given = parser.parse_args()
    log_mels("train", given.recordings, given.cache, given.workers)
    plan = replace(plan, steps=given.steps)
    workers.run(train, given.workers, plan, given.recordings, given.cache)


if __name__ == "__main__":
    main()
