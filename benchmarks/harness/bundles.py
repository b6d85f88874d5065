"""What is served: the default bundle, and encoders of well-known sizes with random weights.

A random-weight bundle is a checkpoint like any other: it is saved, exported and published by the
normal exporter, and kept in a cache directory whose name tells what it was made of.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from harness.inputs import Inputs, Sources
from harness.repository import config_of, graph_models, write_config
from harness.sources import PHOTOS, PLAYROOM
from sensorium_export import checkpoint
from sensorium_export.bundle import export_bundle
from sensorium_export.models import ModelConfig, MultimodalModel
from sensorium_training import tokenizer
from sensorium_training.recordings import RECIPE
from sensorium_training.world.motion import ACTIONS
from sensorium_training.world.sound import SOUNDS

_CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
_CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


_TINY_TASKS = ("image_embedding", "visual_question_answering")


@dataclass(frozen=True, slots=True)
class Bundle:
    """A model repository, the inputs for it and the tasks to measure."""

    name: str
    weights: str
    """Either "trained" or "random"."""
    tasks: tuple[str, ...]
    repository: Path
    inputs: Path
    """A directory with a file for each task."""

    def inputs_of(self, task: str) -> Path:
        """Return the file of a task's inputs."""
        return self.inputs / f"{task}.json"


@dataclass(frozen=True, slots=True)
class Tuning:
    """What the benchmark changes in the `config.pbtxt` of encoders and fusion; None: nothing."""

    threads: int | None = None
    instances: int | None = None
    queue_delay_us: int | None = None

    @property
    def changes(self) -> bool:
        """Whether anything is changed at all."""
        return self != Tuning()


@dataclass(frozen=True, slots=True)
class _Recipe:
    """The tasks to measure with their inputs, and how a bundle with random weights is made."""

    tasks: Mapping[str, Sources]
    model: dict[str, object]
    center_crop: bool = False


RECIPES: dict[str, _Recipe] = {
    "playroom": _Recipe(PLAYROOM, {}),
    "vit-b-32": _Recipe(
        PHOTOS,
        {
            "image_encoder": "vit", "image_size": 224, "patch_size": 32, "image_layers": 12,
            "width": 768, "heads": 12, "feedforward": 3072, "embedding_dim": 512,
            "text_layers": 1, "fusion": "concat", "decoder_layers": 1,
        },
        center_crop=True,
    ),
    "tiny": _Recipe(
        {task: PLAYROOM[task] for task in _TINY_TASKS},
        {
            "image_size": 32, "width": 32, "feedforward": 64, "embedding_dim": 16, "text_layers": 1,
            "fusion": "concat", "decoder_layers": 1, "max_new_tokens": 4,
        },
    ),
}  # fmt: skip
"""`vit-b-32` has the image encoder of CLIP ViT-B/32; what is not measured of it is small."""


def bundle(name: str, repository: Path | None, cache: Path) -> Bundle:
    """Return a bundle, ready to serve.

    Args:
        name: A key of `RECIPES`.
        repository: Where it is published already; None makes one with random weights.
        cache: Where random bundles and inputs are kept.
    """
    recipe = RECIPES[name]
    inputs = cache / f"{name}-inputs"
    for task, sources in recipe.tasks.items():
        if not (path := inputs / f"{task}.json").is_file():
            Inputs.made(task, sources).save(path)
    weights = "random" if repository is None else "trained"
    return Bundle(name, weights, tuple(recipe.tasks), repository or _random(name, cache), inputs)


def tuned(made: Bundle, tuning: Tuning, scratch: Path) -> Bundle:
    """Return the bundle with changed encoder configs, in a copy of its repository."""
    if not tuning.changes:
        return made
    repository = scratch / made.name
    shutil.copytree(made.repository, repository, copy_function=os.link)
    for model in graph_models(repository):
        config = config_of(repository, model)
        if tuning.threads is not None:
            config.parameters["intra_op_thread_count"].string_value = str(tuning.threads)
        if tuning.instances is not None:
            config.instance_group[0].count = tuning.instances
        if tuning.queue_delay_us is not None:
            config.dynamic_batching.max_queue_delay_microseconds = tuning.queue_delay_us
        write_config(repository, model, config)
    return Bundle(made.name, made.weights, made.tasks, repository, made.inputs)


def _random(name: str, cache: Path) -> Path:
    """Export a bundle with random weights, unless the cache has it."""
    words = tokenizer.vocabulary()
    model = ModelConfig.from_dict({"vocabulary": len(words), **RECIPES[name].model})
    config = _checkpoint_config(name, model)
    made_of = hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()[:12]
    home = cache / f"{name}-{made_of}"

    def build(directory: Path) -> None:
        torch.manual_seed(0)
        saved = directory / "checkpoint" / name
        checkpoint.save(saved, config, MultimodalModel(model))
        tokenizer.save(words, saved / checkpoint.TOKENIZER_FILE)
        export_bundle(saved, directory / "repository")
        shutil.rmtree(directory / "checkpoint")  # as large as what is served

    if not home.is_dir():
        _whole(home, build)
    return home / "repository"


def _checkpoint_config(name: str, model: ModelConfig) -> dict[str, object]:
    """Return a checkpoint's config; what is said of encoders that it lacks is not read."""
    crop = RECIPES[name].center_crop
    return {
        "name": name,
        "model": model.to_dict(),
        "image_preprocess": {
            "image_size": model.image_size,
            "resample": "bicubic",
            "mean": list(_CLIP_MEAN if crop else (0.5, 0.5, 0.5)),
            "std": list(_CLIP_STD if crop else (0.5, 0.5, 0.5)),
            "crop": "center_crop" if crop else "squash",
        },
        "audio_preprocess": asdict(RECIPE) | {"noise_reduction": "none"},
        "audio_labels": SOUNDS,
        "video_preprocess": {"frames": model.frames, "sampling": "uniform"},
        "video_labels": ACTIONS,
        "text": {
            "max_tokens": model.max_tokens,
            "pad_id": tokenizer.PAD_ID,
            "unk_id": tokenizer.UNK_ID,
            "bos_id": tokenizer.BOS_ID,
            "eos_id": tokenizer.EOS_ID,
            "max_new_tokens": model.max_new_tokens,
        },
    }


def _whole(target: Path, build: Callable[[Path], None]) -> None:
    """Build beside the target, then rename: a run that was interrupted leaves no half bundle."""
    half = target.with_name(f".{target.name}.{os.getpid()}")
    shutil.rmtree(half, ignore_errors=True)
    half.mkdir(parents=True)
    build(half)
    half.rename(target)
