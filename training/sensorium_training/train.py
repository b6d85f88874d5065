"""Train the default bundle from nothing: `python -m sensorium_training.train`.

    pictures, drawn once → vision: dense labels → language: answers, captions, retrieval

Each stage resumes from what the cache holds; the checkpoint is rewritten as training goes on.
"""

import argparse
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from sensorium_export import checkpoint
from sensorium_export.models import ModelConfig, MultimodalModel
from sensorium_training import tokenizer, workers
from sensorium_training.dataset import pixels, scenes
from sensorium_training.examples import Words
from sensorium_training.labels import labels_from_scenes
from sensorium_training.language import LanguagePlan, LanguageTask, look, train_language
from sensorium_training.vision import VisionPlan, cnn_of, learned_by_vision, train_vision
from sensorium_training.workers import Worker


@dataclass(frozen=True, slots=True)
class TrainingPlan:
    """A whole training run."""

    output: Path
    cache: Path
    pictures: int
    vision: VisionPlan
    language: LanguagePlan


def config_of(model: ModelConfig) -> dict[str, Any]:
    """Return the checkpoint's config.json."""
    return {
        "name": "playroom",
        "model": model.to_dict(),
        "image_preprocess": {
            "image_size": model.image_size,
            "resample": "bicubic",
            "crop": "squash",
            "mean": [0.5, 0.5, 0.5],
            "std": [0.5, 0.5, 0.5],
        },
        "text": {
            "max_tokens": model.max_tokens,
            "max_new_tokens": model.max_new_tokens,
            "pad_id": tokenizer.PAD_ID,
            "unk_id": tokenizer.UNK_ID,
            "bos_id": tokenizer.BOS_ID,
            "eos_id": tokenizer.EOS_ID,
        },
    }


def train(worker: Worker, plan: TrainingPlan) -> None:
    """Run both stages in this worker."""
    ids = tokenizer.vocabulary()
    torch.manual_seed(0)
    model = MultimodalModel(ModelConfig(vocabulary=len(ids)))
    pictures = pixels("train", plan.pictures, model.config.image_size, plan.cache)
    world = scenes("train", plan.pictures)
    labels = labels_from_scenes(world)
    journal = plan.cache / "journal.jsonl"
    encoder = cnn_of(model)
    learned = learned_by_vision(encoder)
    kept = plan.cache / "vision.safetensors"
    if kept.exists():
        learned.load_state_dict(load_file(kept))
        model.eval()
    else:
        train_vision(worker, encoder, pictures, labels, plan=plan.vision, journal_path=journal)
        if worker.leads:
            save_file({k: v.contiguous() for k, v in learned.state_dict().items()}, kept)
    config = config_of(model.config)

    def save() -> None:
        checkpoint.save(plan.output, config, model)
        tokenizer.save(ids, plan.output / checkpoint.TOKENIZER_FILE)

    seen = look(encoder, pictures)
    task = LanguageTask(model, Words(ids), world, labels, seen, plan.language)
    train_language(worker, task, journal, save)
    if worker.leads:
        save()


def parse() -> tuple[TrainingPlan, int]:
    """Return the plan and the number of workers from the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m sensorium_training.train",
        description="Train the default bundle. "
        "Example: python -m sensorium_training.train --workers 2",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    vision, language = VisionPlan(), LanguagePlan()
    parser.add_argument("--output", type=Path, default=Path("checkpoints/playroom"))
    parser.add_argument("--cache", type=Path, default=Path(".cache/training"))
    parser.add_argument("--workers", type=int, default=2, help="processes of one thread each")
    parser.add_argument("--pictures", type=int, default=80_000, help="training pictures to draw")
    parser.add_argument("--vision-steps", type=int, default=vision.steps)
    parser.add_argument("--language-steps", type=int, default=language.steps)
    given = parser.parse_args()
    plan = TrainingPlan(
        given.output,
        given.cache,
        given.pictures,
        VisionPlan(**asdict(vision) | {"steps": given.vision_steps}),
        LanguagePlan(**asdict(language) | {"steps": given.language_steps}),
    )
    return plan, given.workers


def main() -> None:
    """Draw the pictures, then start the workers."""
    plan, count = parse()
    pixels("train", plan.pictures, ModelConfig(vocabulary=1).image_size, plan.cache, count)
    workers.run(train, count, plan)


if __name__ == "__main__":
    main()
