"""Your own modules as a bundle: what a function in a Python file of yours returns.

    # my_model.py
    from sensorium_export.own import MultiModalModel
    from sensorium_export.recipe import ImageRecipe, TextRecipe

    def build() -> MultiModalModel:
        return MultiModalModel(
            tasks=("visual_question_answering",),
            text_encoder=..., image_encoder=..., fusion=..., decoder=...,
            sizes={"image_size": 64, ...}, image=ImageRecipe(...), text=TextRecipe(...),
            tokenizer="tokenizer.json",
        )

`sensorium export my_model.py:build` exports it. Each module's `forward` takes and returns what
`sensorium.contract.STAGES` says of its stage, in that order and with the batch first: an encoder
gives those of its outputs that the tasks use. A decoder has three methods: `cross` and `step` (see
`contract.DECODER_GRAPHS`), and `forward(tokens, memory, memory_mask)`, which gives the logits
[batch, tokens, vocabulary] without any cache; it is what the two others are held against.
"""

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from torch import nn

from sensorium.contract import DECODER_GRAPHS, TASKS
from sensorium.errors import ConfigurationError
from sensorium_export.ensembles import ENSEMBLES, Chain
from sensorium_export.families.ensembles import FAMILY_ENSEMBLES
from sensorium_export.recipe import ImageRecipe, Recipe, TextRecipe, family_recipe

_MODULES = {
    "text_encoder": "text_encoder",
    "image_encoder": "image_encoder",
    "fusion": "fusion",
    "text_decoder": "decoder",
}
"""The stages that are modules of one's own, and what they are called here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MultiModalModel:
    """Modules, what they can do, and how bytes become what they take.

    `tasks` are names of `contract.TASKS`; `sizes` gives the number for each fixed axis of their
    stages; `tokenizer` is a `tokenizer.json`, relative to the Python file. With `class_labels`,
    questions are answered by `class_logits` of `fusion` instead of by `decoder`.
    """

    tasks: tuple[str, ...]
    sizes: Mapping[str, int]
    text_encoder: nn.Module | None = None
    image_encoder: nn.Module | None = None
    fusion: nn.Module | None = None
    decoder: nn.Module | None = None
    image: ImageRecipe | None = None
    text: TextRecipe | None = None
    tokenizer: str = "tokenizer.json"
    class_labels: tuple[str, ...] = ()


def is_own(path: Path) -> bool:
    """Whether a path names a function in a Python file: `my_model.py:build`."""
    return ".py:" in path.name


def built(path: Path) -> MultiModalModel:
    """Call the function that a path names.

    Raises:
        ConfigurationError: The file or the function is not there, it fails, or it returns something
            else.
    """
    name, _, function = path.name.partition(":")
    module = _module(path.with_name(name))
    build = getattr(module, function, None)
    if not callable(build):
        raise ConfigurationError(f'{name} has no function "{function}"')
    try:
        model = build()
    except Exception as error:  # whatever a user's code raises
        raise ConfigurationError(f"{path.name} failed: {type(error).__name__}: {error}") from error
    if not isinstance(model, MultiModalModel):
        raise ConfigurationError(
            f"{path.name} returned {type(model).__name__}, not a MultiModalModel of "
            f"sensorium_export.own"
        )
    return model


def own_recipe(model: MultiModalModel, bundle: str) -> Recipe:
    """Return the recipe of modules of one's own.

    Raises:
        ConfigurationError: A task is unknown, or what it needs is missing; all of it is listed.
    """
    if unknown := [task for task in model.tasks if task not in TASKS]:
        raise ConfigurationError(
            f"tasks = {', '.join(unknown)} are not tasks; those are: {', '.join(TASKS)}"
        )
    recipe = family_recipe(
        bundle,
        {task: _chain(task, model) for task in model.tasks},
        model.sizes,
        image=model.image,
        text=model.text,
        class_labels=model.class_labels,
    )
    missing = [
        name
        for stage, name in (*_MODULES.items(), ("image_preprocess", "image"))
        if stage in recipe.stages and getattr(model, name) is None
    ]
    if {"text_preprocess", "text_decoder"} & set(recipe.stages) and model.text is None:
        missing.append("text")
    signatures = [recipe.signature(stage) for stage in recipe.stages]
    if "text_decoder" in recipe.stages:
        signatures += DECODER_GRAPHS.values()
    axes = {
        axis
        for signature in signatures
        for spec in (*signature.inputs, *signature.outputs)
        for axis in spec.shape
        if isinstance(axis, str)
    }
    missing += [f"sizes[{axis!r}]" for axis in sorted(axes - {*recipe.sizes, *recipe.largest})]
    if missing:
        raise ConfigurationError(
            f"the tasks {', '.join(model.tasks)} need {', '.join(missing)} of a MultiModalModel"
        )
    return recipe


def holder_of(model: MultiModalModel) -> nn.Module:
    """Return a module with a submodule for each stage."""
    holder = nn.Module()
    for stage, name in _MODULES.items():
        if (module := getattr(model, name)) is not None:
            holder.add_module(stage, module)
    return holder.eval()


def _chain(task: str, model: MultiModalModel) -> Chain:
    if task in ENSEMBLES and not (model.class_labels and task in FAMILY_ENSEMBLES):
        return ENSEMBLES[task]
    return FAMILY_ENSEMBLES[task]


def _module(file: Path) -> ModuleType:
    """Run a Python file."""
    spec = importlib.util.spec_from_file_location(file.stem, file)
    if not file.is_file() or spec is None or spec.loader is None:
        raise ConfigurationError(f"{file.name} is not a Python file in {file.parent.name or '.'}")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # whatever a user's code raises
        raise ConfigurationError(f"{file.name} failed: {type(error).__name__}: {error}") from error
    return module
