"""Write a bundle's model repository: one folder per Triton model, all of it from a checkpoint."""

import shutil
from collections.abc import Mapping
from pathlib import Path

from sensorium.contract import TASKS, model_name
from sensorium_export.graphs import graphs_of
from sensorium_export.model_config import BACKENDS, model_configs
from sensorium_export.pbtxt import pbtxt_from_config
from sensorium_export.recipe import Recipe
from sensorium_export.variant_config import variants_of

CONFIG_FILE = "config.pbtxt"
TOKENIZER_FILE = "tokenizer.json"
TOKENIZER_STAGES = ("text_preprocess", "text_decoder")
STAGE_MODULES: Mapping[str, str] = {
    "image_preprocess": "image",
    "audio_preprocess": "audio",
    "video_preprocess": "video",
    "text_preprocess": "text",
    "media_join": "media_join",
    "tag_postprocess": "tags",
    "action_postprocess": "actions",
    "event_postprocess": "events",
    "label_postprocess": "classes",
    "answer_postprocess": "answers",
    "ctc_postprocess": "transcripts",
}
"""The module of `sensorium_server.stages` behind each Python stage."""

MODEL_PY = """\
from sensorium_server.stages import {module}
from sensorium_server.triton import as_model

TritonPythonModel = as_model({module}.stage)
"""


def write_repository(
    repository: Path, recipe: Recipe, graphs: Mapping[str, bytes], tokenizer: Path
) -> None:
    """Write every model of the bundle into an empty directory.

    Args:
        repository: Where to write.
        recipe: Stages and tasks, sizes and parameters.
        graphs: The ONNX file for each path in `graphs_of` these stages, and files of weights.
        tokenizer: The checkpoint's tokenizer.json, copied beside what reads it.
    """

    def inside(path: str) -> Path:
        return repository / model_name(path, recipe.bundle)

    for name, config in model_configs(recipe).items():
        inside(f"{name}/1").mkdir(parents=True)
        inside(f"{name}/{CONFIG_FILE}").write_text(pbtxt_from_config(config), encoding="utf-8")
        for variant, own in variants_of(config, _profiles_of(name, recipe)).items():
            written = inside(variant_file(name, variant))
            written.parent.mkdir(exist_ok=True)
            written.write_text(pbtxt_from_config(own), encoding="utf-8")
    for name in STAGE_MODULES.keys() & set(recipe.stages):
        text = MODEL_PY.format(module=STAGE_MODULES[name])
        inside(f"{name}/1/model.py").write_text(text, encoding="utf-8")
    for name in set(TOKENIZER_STAGES) & set(recipe.stages):
        shutil.copyfile(tokenizer, inside(f"{name}/1/{TOKENIZER_FILE}"))
    for path, data in graphs.items():
        inside(path).write_bytes(data)
    for name in recipe.tasks:
        # Triton wants a version directory in every model, git keeps no empty one.
        inside(f"{name}/1/.gitkeep").touch()


def _profiles_of(stage: str, recipe: Recipe) -> int:
    """Return how many optimization profiles a plan of a stage's first graph has."""
    from sensorium_export.engines.profile import Limits, profiles_for  # noqa: PLC0415 - needs torch

    own = [graph for graph in graphs_of(recipe) if graph.module == stage]
    return len(profiles_for(own[0], recipe, Limits())) if own else 0


def variant_file(model: str, variant: str) -> str:
    """Return where a model's config of another name lies."""
    return f"{model}/configs/{variant}.pbtxt"


def artefacts_of(name: str, recipe: Recipe) -> tuple[str, ...]:
    """Return the files that a model's version directory must hold."""
    if name in TASKS:
        return ()
    graphs = [graph.path for graph in graphs_of(recipe) if graph.path.startswith(f"{name}/")]
    return (*(Path(path).name for path in graphs), *files_beside_graphs(name))


def files_beside_graphs(stage: str) -> tuple[str, ...]:
    """Return what a stage's version directory holds in every bundle."""
    files = ["model.py"] if BACKENDS[stage] == "python" else []
    if stage in TOKENIZER_STAGES:
        files.append(TOKENIZER_FILE)
    return tuple(files)
