"""Check a model repository against the contract, and name everything that is wrong at once."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from tritonclient.grpc.model_config_pb2 import DataType, ModelConfig

from sensorium.contract import (
    STAGES,
    TASKS,
    TensorSpec,
    bare_name,
    model_name,
)
from sensorium.errors import ConfigurationError
from sensorium_export.ensemble_check import TensorType, ensemble_problems, type_text, types_of
from sensorium_export.model_config import (
    BACKENDS,
    TRITON_TYPE,
    config_from_pbtxt,
    dims_of,
)
from sensorium_export.recipe import Recipe
from sensorium_export.repository import CONFIG_FILE, artefacts_of, variant_file
from sensorium_export.variant_config import VARIANTS, variant_problems


def check_repository(repository: Path, recipe: Recipe) -> None:
    """Check every model that the recipe names.

    Raises:
        ConfigurationError: Something is wrong; the message lists every problem.
    """
    if problems := repository_problems(repository, recipe):
        listed = "".join(f"\n  {problem}" for problem in problems)
        raise ConfigurationError(
            f"{repository.name} has {len(problems)} problems; export the checkpoint again, "
            f"or mend the files:{listed}"
        )


def repository_problems(repository: Path, recipe: Recipe) -> list[str]:
    """Return what is wrong: configs, shapes, ensemble maps and missing files."""
    models = (model_name(name, recipe.bundle) for name in (*recipe.stages, *recipe.tasks))
    configs, problems = read_configs(repository, models)
    for name, config in configs.items():
        problems += _model_problems(name, config, recipe)
        problems += _missing_files(repository, name, recipe)
        problems += gpu_problems(repository, name, config)
        if bare_name(name) in recipe.tasks:
            problems += [f"{name}: {one}" for one in ensemble_problems(config, configs)]
    return problems


def read_configs(
    repository: Path, models: Iterable[str]
) -> tuple[dict[str, ModelConfig], list[str]]:
    """Return the configs of models that can be read, and what is wrong with the others."""
    configs, problems = {}, []
    for model in models:
        source = f"{model}/{CONFIG_FILE}"
        try:
            text = (repository / source).read_text(encoding="utf-8")
            configs[model] = config_from_pbtxt(text, source)
        except FileNotFoundError:
            problems.append(f"{source} is missing")
        except ConfigurationError as error:
            problems.append(str(error))
    return configs, problems


def gpu_problems(repository: Path, model: str, config: ModelConfig) -> Iterator[str]:
    """Return what is wrong with a model's configs on a GPU; one that is not there is no problem."""
    found = {}
    for variant in VARIANTS:
        source = variant_file(model, variant)
        if not (repository / source).is_file():
            continue
        try:
            text = (repository / source).read_text(encoding="utf-8")
            found[variant] = config_from_pbtxt(text, source)
        except ConfigurationError as error:
            yield str(error)
    yield from variant_problems(model, config, found)


def identity_problems(model: str, config: ModelConfig) -> Iterator[str]:
    """Return what is wrong with the name and the backend of a model in its config."""
    if config.name != model:
        yield f'{model}: the config is named "{config.name}"'
    kind = bare_name(model)
    if kind in STAGES and config.backend != BACKENDS[kind]:
        yield f'{model}: backend "{config.backend}", expected "{BACKENDS[kind]}"'


def _model_problems(name: str, config: ModelConfig, recipe: Recipe) -> Iterator[str]:
    yield from identity_problems(name, config)
    kind = bare_name(name)
    if kind in TASKS and config.platform != "ensemble":
        yield f'{name}: platform "{config.platform}", expected "ensemble"'
    if config.max_batch_size < 1:
        yield f"{name}: max_batch_size {config.max_batch_size}; it must be 1 or more"
    signature = recipe.signature(kind)
    for side, found, specs in (
        ("input", config.input, signature.inputs + signature.optional),
        ("output", config.output, signature.outputs),
    ):
        expected = {spec.name: _type_of(spec, recipe.sizes) for spec in specs}
        yield from _tensor_problems(f"{name}: {side}", types_of(found), expected)


def _tensor_problems(
    where: str, found: Mapping[str, TensorType], expected: Mapping[str, TensorType]
) -> Iterator[str]:
    for tensor in sorted(expected.keys() - found.keys()):
        yield f"{where} {tensor} is missing"
    for tensor in sorted(found.keys() - expected.keys()):
        yield f"{where} {tensor} is not in the contract"
    for tensor in sorted(found.keys() & expected.keys()):
        if found[tensor] != expected[tensor]:
            wanted = type_text(expected[tensor])
            yield f"{where} {tensor} is {type_text(found[tensor])}, expected {wanted}"


def _missing_files(repository: Path, name: str, recipe: Recipe) -> Iterator[str]:
    version = repository / name / "1"
    if not version.is_dir():
        yield f"{name}/1 is missing; Triton wants a version directory in every model"
        return
    for file in artefacts_of(bare_name(name), recipe):
        if not (version / file).is_file():
            yield f"{name}/1/{file} is missing"


def _type_of(spec: TensorSpec, sizes: Mapping[str, int]) -> TensorType:
    return DataType.Name(TRITON_TYPE[spec.dtype]), tuple(dims_of(spec, sizes))
