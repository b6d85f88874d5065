"""Triton's `config.pbtxt` of every model, built through Triton's own protobuf message.

Names, dtypes and shapes come from the contract, sizes and parameters from the checkpoint's recipe.
`sensorium_export.pbtxt` writes a message as text, `config_from_pbtxt` reads text back.
"""

from collections.abc import Mapping
from types import MappingProxyType

from google.protobuf import text_format  # type: ignore[import-untyped]
from tritonclient.grpc.model_config_pb2 import (
    TYPE_FP32,
    TYPE_INT64,
    TYPE_STRING,
    ModelConfig,
    ModelInput,
    ModelInstanceGroup,
    ModelOutput,
)

from sensorium.contract import (
    DYNAMIC_AXES,
    STAGES,
    TASKS,
    DType,
    Signature,
    TensorSpec,
    model_name,
)
from sensorium.errors import ConfigurationError
from sensorium_export.graphs import GRAPHS
from sensorium_export.recipe import MAX_BATCH_SIZE, Recipe
from sensorium_export.stage_parameters import parameters_of

TRITON_TYPE = {DType.BYTES: TYPE_STRING, DType.FP32: TYPE_FP32, DType.INT64: TYPE_INT64}

BACKENDS: Mapping[str, str] = MappingProxyType(
    dict.fromkeys(STAGES, "python")
    | {graph.module: "onnxruntime" for graph in GRAPHS}
    | {"text_decoder": "decoder", "image_decoder": "diffusion"}
)
"""The Triton backend that runs each stage."""


def model_configs(recipe: Recipe) -> dict[str, ModelConfig]:
    """Build the config of every stage and task of a bundle, by its name in the contract."""
    stages = {name: _stage_config(name, recipe) for name in recipe.stages}
    return stages | {name: _ensemble_config(name, recipe) for name in recipe.tasks}


def dims_of(spec: TensorSpec, sizes: Mapping[str, int]) -> list[int]:
    """Return a tensor's `dims`: -1 for a dynamic axis."""
    return [_dim(axis, sizes) for axis in spec.shape]


def config_from_pbtxt(text: str, source: str) -> ModelConfig:
    """Parse a config.pbtxt.

    Raises:
        ConfigurationError: The text is not a model config; the message says where.
    """
    try:
        return text_format.Parse(text, ModelConfig())
    except text_format.ParseError as error:
        raise ConfigurationError(f"{source}:{error}") from error


def _dim(axis: int | str, sizes: Mapping[str, int]) -> int:
    if isinstance(axis, int):
        return axis
    return sizes.get(axis, -1) if axis in DYNAMIC_AXES else sizes[axis]


def _add_tensors(config: ModelConfig, signature: Signature, sizes: Mapping[str, int]) -> None:
    ragged = config.platform != "ensemble"
    for spec in signature.inputs:
        dims = dims_of(spec, sizes)
        config.input.append(
            ModelInput(
                name=spec.name,
                data_type=TRITON_TYPE[spec.dtype],
                dims=dims,
                allow_ragged_batch=ragged and -1 in dims,
            )
        )
    for spec in signature.optional:
        config.input.append(
            ModelInput(
                name=spec.name,
                data_type=TRITON_TYPE[spec.dtype],
                dims=dims_of(spec, sizes),
                optional=True,
            )
        )
    for spec in signature.outputs:
        config.output.append(
            ModelOutput(
                name=spec.name,
                data_type=TRITON_TYPE[spec.dtype],
                dims=dims_of(spec, sizes),
            )
        )


def _stage_config(name: str, recipe: Recipe) -> ModelConfig:
    config = ModelConfig(
        name=model_name(name, recipe.bundle), backend=BACKENDS[name], max_batch_size=MAX_BATCH_SIZE
    )
    _add_tensors(config, recipe.signature(name), recipe.sizes)
    # No queue delay: a batch forms of what queues up while the one before runs. A request that
    # expires there, by the timeout that it came with, is dropped.
    config.dynamic_batching.default_queue_policy.allow_timeout_override = True
    config.instance_group.add(kind=ModelInstanceGroup.KIND_CPU, count=1)
    for key, value in parameters_of(name, recipe).items():
        config.parameters[key].string_value = value
    return config


def _ensemble_config(name: str, recipe: Recipe) -> ModelConfig:
    config = ModelConfig(
        name=model_name(name, recipe.bundle), platform="ensemble", max_batch_size=MAX_BATCH_SIZE
    )
    _add_tensors(config, TASKS[name], recipe.sizes)
    for step in recipe.chains[name]:
        config.ensemble_scheduling.step.add(
            model_name=model_name(step.stage, recipe.bundle),
            model_version=-1,
            input_map=step.inputs,
            output_map=step.outputs,
        )
    return config
