"""Train the default bundle from nothing: `python -m sensorium_training.train`.

    pictures → vision: dense labels → language about pictures
    recordings → hearing: dense labels ┐
    films → watching: dense labels     ├→ language about everything → the layout fitted to it
    pictures → drawing                 ┘

Each stage leaves its weights in the cache and is skipped when they are there; the checkpoint is
rewritten as the last one goes on.
"""

import argparse
import subprocess
import sys
from collections.abc import Callable
from copy import deepcopy
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from sensorium_export import checkpoint
from sensorium_export.models import ModelConfig, MultimodalModel
from sensorium_training import tokenizer, workers
from sensorium_training.dataset import pixels, scenes
from sensorium_training.entities import AUDIO, IMAGE, VIDEO
from sensorium_training.examples import Words
from sensorium_training.films import clips, frames
from sensorium_training.hearing import HeardSounds, hear, learned_by_hearing
from sensorium_training.journal import Journal
from sensorium_training.labels import labels_from_scenes
from sensorium_training.language import (
    ALL_MODALITIES,
    LanguagePlan,
    LanguageTask,
    SeenPictures,
    look,
    train_language,
)
from sensorium_training.material import Encoded, Material
from sensorium_training.reading import MatchPlan, Reader, match_condition
from sensorium_training.recordings import RECIPE, log_mels, sound_scenes
from sensorium_training.vision import VisionPlan, cnn_of, learned_by_vision, train_vision
from sensorium_training.watching import WatchedClips, learned_by_watching, watch
from sensorium_training.workers import Worker
from sensorium_training.world.motion import ACTIONS
from sensorium_training.world.sound import SOUNDS

PICTURES = "pictures"
"""The checkpoint, in the cache, of what was learned from pictures alone."""

JOURNAL_FILE = "journal.jsonl"

Seen = TypeVar("Seen", SeenPictures, HeardSounds, WatchedClips)


@dataclass(frozen=True, slots=True)
class TrainingPlan:
    """A whole training run."""

    output: Path
    cache: Path
    pictures: int = 80_000
    recordings: int = 20_000
    clips: int = 14_000
    vision: VisionPlan = field(default_factory=VisionPlan)
    language: LanguagePlan = field(default_factory=LanguagePlan)
    everything: LanguagePlan = ALL_MODALITIES


def config_of(model: ModelConfig) -> dict[str, Any]:
    """Return the checkpoint's config.json."""
    half = [0.5, 0.5, 0.5]
    picture = {"image_size": model.image_size, "resample": "bicubic", "mean": half, "std": half}
    return {
        "name": "playroom",
        "model": model.to_dict(),
        "image_preprocess": {**picture, "crop": "squash"},
        "audio_preprocess": {**asdict(RECIPE), "noise_reduction": "none"},
        "audio_labels": list(SOUNDS),
        "video_preprocess": {"frames": model.frames, "sampling": "uniform"},
        "video_labels": list(ACTIONS),
        "text": {
            "max_tokens": model.max_tokens,
            "max_new_tokens": model.max_new_tokens,
            "pad_id": tokenizer.PAD_ID,
            "unk_id": tokenizer.UNK_ID,
            "bos_id": tokenizer.BOS_ID,
            "eos_id": tokenizer.EOS_ID,
        },
        # Eight rounds of attention over 16 frames add up to 5e-5 in the video encoder.
        "parity": {"stage": 1e-4},
    }


def model_config() -> ModelConfig:
    """Return the dimensions of the default bundle."""
    return ModelConfig(
        vocabulary=len(tokenizer.vocabulary()),
        audio_encoder="cnn",
        video_encoder="tracks",
        image_decoder="diffusion",
        sounds=len(SOUNDS),
        actions=len(ACTIONS),
    )


def grown(weights: dict[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Return weights of a smaller vocabulary with this model's rows for the words it lacks.

    Words of the smaller one have the same ids in the larger; see `tokenizer.vocabulary`.
    """
    own = model.state_dict()
    return {
        name: torch.cat([tensor, own[name][len(tensor) :]]) if tensor.dim() else tensor
        for name, tensor in weights.items()
    }


def keep(module: nn.Module, path: Path) -> None:
    """Write a module's weights in one go."""
    partial = path.with_suffix(".partial")
    save_file({name: t.contiguous() for name, t in module.state_dict().items()}, partial)
    partial.replace(path)


def save(model: MultimodalModel, path: Path) -> None:
    """Write a whole checkpoint."""
    checkpoint.save(path, config_of(model.config), model)
    tokenizer.save(tokenizer.vocabulary(), path / checkpoint.TOKENIZER_FILE)


def learn_pictures(worker: Worker, plan: TrainingPlan) -> None:
    """Teach the image network its labels, then the language of pictures."""
    torch.manual_seed(0)
    model = MultimodalModel(ModelConfig(vocabulary=len(tokenizer.vocabulary())))
    pictures = pixels("train", plan.pictures, model.config.image_size, plan.cache)
    world = scenes("train", plan.pictures)
    encoder = cnn_of(model)
    learned = learned_by_vision(encoder)
    path = plan.cache / "vision.safetensors"
    journal = plan.cache / JOURNAL_FILE
    if path.exists():
        learned.load_state_dict(load_file(path))
        model.eval()
    else:
        labels = labels_from_scenes(world)
        train_vision(worker, encoder, pictures, labels, plan=plan.vision, journal_path=journal)
        if worker.leads:
            keep(learned, path)
    material = {IMAGE: Material.of(IMAGE, world, look(encoder, pictures), encoder.encode)}
    task = LanguageTask(model, Words(tokenizer.vocabulary()), material, plan.language)
    log = Journal(journal, "language", worker.count)
    train_language(worker, task, log, learned, lambda: None)
    if worker.leads:
        save(model, plan.cache / PICTURES)


def assembled(plan: TrainingPlan) -> MultimodalModel:
    """Return the whole model with all that its parts have learned so far."""
    torch.manual_seed(0)
    model = MultimodalModel(model_config())
    pictures = grown(load_file(plan.cache / PICTURES / checkpoint.WEIGHTS_FILE), model)
    model.load_state_dict(model.state_dict() | pictures)
    learned_by_hearing(model.audio_encoder).load_state_dict(
        load_file(plan.cache / "hearing.safetensors")
    )
    learned_by_watching(model.video_encoder).load_state_dict(
        load_file(plan.cache / "watching.safetensors")
    )
    model.image_decoder.load_state_dict(load_file(plan.cache / "drawing.safetensors"))
    return model.eval()


def remembered(path: Path, kind: type[Seen], look_at: Callable[[], Seen]) -> Seen:
    """Return what a fixed network sees, computed once and kept in `path`."""
    if not path.exists():
        seen = look_at()
        tensors = {field.name: getattr(seen, field.name) for field in fields(kind)}
        save_file(tensors, path.with_suffix(".partial"))
        path.with_suffix(".partial").replace(path)
    return kind(**load_file(path))


def all_material(model: MultimodalModel, plan: TrainingPlan) -> dict[str, Material]:
    """Return what the fixed networks see in all pictures, recordings and clips."""
    image, audio, video = cnn_of(model), model.audio_encoder, model.video_encoder
    cache = plan.cache

    def heard(described: Tensor, mean: Tensor) -> Encoded:
        return audio.encode(described, mean, torch.ones(len(described), dtype=torch.int64))

    pictures = remembered(
        cache / f"seen-pictures-{plan.pictures}.safetensors",
        SeenPictures,
        lambda: look(image, pixels("train", plan.pictures, model.config.image_size, cache)),
    )
    films = remembered(
        cache / f"seen-clips-{plan.clips}.safetensors",
        WatchedClips,
        lambda: watch(video, frames("train", plan.clips, cache)),
    )
    recordings = remembered(
        cache / f"heard-{plan.recordings}.safetensors",
        HeardSounds,
        lambda: hear(audio, log_mels("train", plan.recordings, cache)),
    )
    return {
        IMAGE: Material.of(IMAGE, scenes("train", plan.pictures), pictures, image.encode),
        VIDEO: Material.of(VIDEO, clips("train", plan.clips), films, video.encode),
        AUDIO: Material.of(AUDIO, sound_scenes("train", plan.recordings), recordings, heard),
    }


def learn_everything(worker: Worker, plan: TrainingPlan) -> None:
    """Teach the language of pictures, sounds and clips, and write the checkpoint."""
    model = assembled(plan)
    before = deepcopy(model.text_encoder)
    ids = tokenizer.vocabulary()
    fixed = nn.ModuleList(
        [
            learned_by_vision(cnn_of(model)),
            learned_by_hearing(model.audio_encoder),
            learned_by_watching(model.video_encoder),
            model.image_decoder,
        ]
    )

    task = LanguageTask(model, Words(ids), all_material(model, plan), plan.everything)
    log = Journal(plan.cache / JOURNAL_FILE, "everything", worker.count)
    train_language(worker, task, log, fixed, lambda: save(model, plan.output))
    if worker.leads:
        words = Words(ids)
        old, new = Reader(before, words), Reader(model.text_encoder, words)
        match_condition(old, new, model.image_decoder, MatchPlan())
        save(model, plan.output)


def learn_modality(module: str, cache: Path, weights: str, *arguments: object) -> None:
    """Run the command of a stage that needs nothing of the others, unless its weights are there."""
    if not (cache / weights).exists():
        command = [sys.executable, "-m", f"sensorium_training.{module}", "--cache", str(cache)]
        subprocess.run([*command, *map(str, arguments)], check=True)  # noqa: S603 - our own


def parse() -> tuple[TrainingPlan, int]:
    """Return the plan and the number of workers from the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m sensorium_training.train",
        description="Train the default bundle. "
        "Example: python -m sensorium_training.train --workers 2",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    plan = TrainingPlan(Path("checkpoints/playroom"), Path(".cache/training"))
    parser.add_argument("--output", type=Path, default=plan.output)
    parser.add_argument("--cache", type=Path, default=plan.cache)
    parser.add_argument("--workers", type=int, default=2, help="processes of one thread each")
    parser.add_argument("--pictures", type=int, default=plan.pictures, help="pictures to draw")
    parser.add_argument("--recordings", type=int, default=plan.recordings, help="to synthesise")
    parser.add_argument("--clips", type=int, default=plan.clips, help="films to draw")
    parser.add_argument("--vision-steps", type=int, default=plan.vision.steps)
    parser.add_argument("--language-steps", type=int, default=plan.language.steps)
    parser.add_argument("--everything-steps", type=int, default=plan.everything.steps)
    given = parser.parse_args()
    plan = TrainingPlan(
        given.output,
        given.cache,
        given.pictures,
        given.recordings,
        given.clips,
        replace(plan.vision, steps=given.vision_steps),
        replace(plan.language, steps=given.language_steps),
        replace(plan.everything, steps=given.everything_steps),
    )
    return plan, given.workers


def main() -> None:
    """Run every stage whose weights are not there yet."""
    plan, count = parse()
    cache = plan.cache
    pixels("train", plan.pictures, model_config().image_size, cache, count)
    if not (cache / PICTURES).exists():
        workers.run(learn_pictures, count, plan)
    learn_modality("hearing", cache, "hearing.safetensors", "--recordings", plan.recordings)
    learn_modality("watching", cache, "watching.safetensors", "--clips", plan.clips)
    all_material(assembled(plan), plan)
    learn_modality("drawing", cache, "drawing.safetensors", "--checkpoint", cache / PICTURES)
    workers.run(learn_everything, count, plan)


if __name__ == "__main__":
    main()
