"""What a published repository says of itself: bundles, tasks, stages, tensors, and what is wrong.

Nothing is run and no checkpoint is needed: it is all read from configs, manifests and graphs.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tritonclient.grpc.model_config_pb2 import ModelConfig

from sensorium.contract import STAGES, TASKS, bare_name
from sensorium.errors import ConfigurationError
from sensorium_export.ensemble_check import ensemble_problems, types_of
from sensorium_export.inspect_graphs import stage_graph_problems
from sensorium_export.model_config import BACKENDS
from sensorium_export.repository import CONFIG_FILE, files_beside_graphs
from sensorium_export.repository_check import gpu_problems, identity_problems, read_configs
from sensorium_server import manifest as digests

_IGNORED = ".gitkeep"


@dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor by name; dims leave out the batch, -1 is any length."""

    name: str
    dtype: str
    dims: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.name} {self.dtype} {list(self.dims)}"


@dataclass(frozen=True, slots=True)
class Stage:
    """A Triton model that computes.

    `precision` is empty for fp32; `parity` has the manifest's figures of each of its graphs.
    """

    model: str
    backend: str
    precision: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    files: Mapping[str, int]
    parity: Mapping[str, Mapping[str, float]]


@dataclass(frozen=True, slots=True)
class Step:
    """One stage in a task; the maps go from the stage's own names to those in the task."""

    model: str
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Task:
    """What a client calls."""

    model: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    steps: tuple[Step, ...]


@dataclass(frozen=True, slots=True)
class Bundle:
    """One bundle of a repository; `name` is empty for models that no manifest lists."""

    name: str
    tasks: tuple[Task, ...]
    stages: Mapping[str, Stage]
    problems: tuple[str, ...]


def inspected(repository: Path, bundle: str = "") -> tuple[Bundle, ...]:
    """Read a repository.

    Args:
        repository: The model repository.
        bundle: Read this bundle only.

    Raises:
        ConfigurationError: There is no model, or no such bundle.
    """
    models = sorted(path.parent.name for path in repository.glob(f"*/{CONFIG_FILE}"))
    manifests = sorted(repository.glob(f"*{digests.SUFFIX}"))
    if not models and not manifests:
        raise ConfigurationError(
            f"{repository} holds no model. Name another directory with --repository, or make one "
            f"with: sensorium export CHECKPOINT --repository DIR"
        )
    listed = {path.name.removesuffix(digests.SUFFIX): _manifest(path) for path in manifests}
    owned = {model for values in listed.values() for model in values["models"]}
    if loose := [model for model in models if model not in owned]:
        listed[""] = {"models": loose, "files": {}, "parity": {}}
    if bundle and bundle not in listed:
        known = ", ".join(sorted(filter(None, listed))) or "none by name"
        raise ConfigurationError(f"{repository} has no bundle {bundle!r}; it has: {known}.")
    return tuple(
        _bundle(repository, name, values)
        for name, values in listed.items()
        if not bundle or name == bundle
    )


def only(bundles: tuple[Bundle, ...], task: str) -> tuple[Bundle, ...]:
    """Leave out all tasks but one, by its name or its model's, and the stages that it does not use.

    Raises:
        ConfigurationError: No bundle has it.
    """
    left = []
    for bundle in bundles:
        tasks = [one for one in bundle.tasks if task in {one.model, bare_name(one.model)}]
        used = {step.model for one in tasks for step in one.steps}
        stages = {name: stage for name, stage in bundle.stages.items() if name in used}
        if tasks:
            left.append(Bundle(bundle.name, tuple(tasks), stages, bundle.problems))
    if not left:
        known = ", ".join(sorted({one.model for bundle in bundles for one in bundle.tasks}))
        raise ConfigurationError(f"no bundle has a task {task!r}; there are: {known or 'none'}.")
    return tuple(left)


def _manifest(path: Path) -> dict[str, Any]:
    """Return what a manifest lists; nothing of one that cannot be read, whose problem is told."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        return {
            "models": list(values["models"]),
            "files": dict(values["files"]),
            "parity": dict(values.get("parity", {})),
        }
    except (ValueError, KeyError, TypeError):
        return {"models": [], "files": {}, "parity": {}}


def _bundle(repository: Path, name: str, values: Mapping[str, Any]) -> Bundle:
    problems = digests.problems(repository / f"{name}{digests.SUFFIX}") if name else []
    configs, unread = read_configs(repository, values["models"])
    problems += unread
    for model, config in configs.items():
        problems += _problems(repository, model, config, configs, values["files"])
    tasks = {model: one for model, one in configs.items() if one.platform == "ensemble"}
    stages = {
        model: _stage(repository, model, config, values["parity"])
        for model, config in configs.items()
        if model not in tasks
    }
    order = [*TASKS]
    by_contract = sorted(
        tasks, key=lambda one: order.index(bare_name(one)) if bare_name(one) in order else 99
    )
    return Bundle(
        name, tuple(_task(model, tasks[model]) for model in by_contract), stages, tuple(problems)
    )


def _problems(
    repository: Path,
    model: str,
    config: ModelConfig,
    configs: Mapping[str, ModelConfig],
    listed: Mapping[str, str],
) -> Iterator[str]:
    kind = bare_name(model)
    yield from identity_problems(model, config)
    if config.platform == "ensemble":
        yield from (f"{model}: {one}" for one in ensemble_problems(config, configs))
    if not (repository / model / "1").is_dir():
        yield f"{model}/1 is missing; Triton wants a version directory in every model"
        return
    if kind not in STAGES:
        return
    graphs = ("model.onnx",) if BACKENDS[kind] == "onnxruntime" else ()
    files = [f"{model}/1/{file}" for file in (*graphs, *files_beside_graphs(kind))]
    missing = {file for file in files if not (repository / file).is_file()}
    # Those that the manifest lists are missed by it as well.
    yield from (f"{file} is missing" for file in sorted(missing - listed.keys()))
    yield from stage_graph_problems(repository, model, config)
    yield from gpu_problems(repository, model, config)


def _stage(repository: Path, model: str, config: ModelConfig, parity: Mapping[str, Any]) -> Stage:
    kind = bare_name(model)
    files = sorted(path for path in (repository / model / "1").glob("*") if path.is_file())
    return Stage(
        model,
        config.backend or config.platform,
        config.parameters["precision"].string_value if "precision" in config.parameters else "",
        _tensors(config.input),
        _tensors(config.output),
        {path.name: path.stat().st_size for path in files if path.name != _IGNORED},
        {
            graph: figures
            for graph, figures in parity.items()
            if graph == kind or graph.startswith(f"{kind}/")
        },
    )


def _task(model: str, config: ModelConfig) -> Task:
    return Task(
        model,
        _tensors(config.input),
        _tensors(config.output),
        tuple(
            Step(step.model_name, _sorted(step.input_map), _sorted(step.output_map))
            for step in config.ensemble_scheduling.step
        ),
    )


def _tensors(tensors: Any) -> tuple[Tensor, ...]:  # noqa: ANN401 - untyped protobuf
    return tuple(
        Tensor(name, dtype.removeprefix("TYPE_").replace("STRING", "BYTES"), dims)
        for name, (dtype, dims) in types_of(tensors).items()
    )


def _sorted(names: Any) -> dict[str, str]:  # noqa: ANN401 - untyped protobuf, without an order
    return dict(sorted(names.items()))
