"""Triton's `config.pbtxt` of every model, built through Triton's own protobuf message.

Names, dtypes and shapes come from the contract, sizes and parameters from the checkpoint's recipe.
`sensorium_export.pbtxt` writes a message as text, `config_from_pbtxt` reads text back.
"""

from collections.abc import Mapping
from dataclasses import dataclass
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
    INPUT_IDS,
    SEQUENCE,
    STAGES,
    TASKS,
    DType,
    Signature,
    TensorSpec,
    signature_of,
)
from sensorium.errors import ConfigurationError
from sensorium_export.recipe import MAX_BATCH_SIZE, Recipe

TRITON_TYPE = {DType.BYTES: TYPE_STRING, DType.FP32: TYPE_FP32, DType.INT64: TYPE_INT64}
DECODER_SLOTS = MAX_BATCH_SIZE

BACKENDS: Mapping[str, str] = MappingProxyType(
    {
        "image_preprocess": "python",
        "text_preprocess": "python",
        "image_encoder": "onnxruntime",
        "text_encoder": "onnxruntime",
        "fusion": "onnxruntime",
        "text_decoder": "decoder",
    }
)
"""The Triton backend that runs each stage."""


@dataclass(frozen=True, slots=True)
class Step:
    """One stage inside an ensemble; inputs and outputs map the stage's tensor to the ensemble's."""

    stage: str
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]


_PIXELS = {"pixel_values": "pixel_values"}
_IMAGE_PIXELS = Step("image_preprocess", {"image": "image"}, _PIXELS)
_IMAGE_TOKENS = Step(
    "image_encoder",
    _PIXELS,
    {"image_tokens": "image_tokens", "image_mask": "image_mask"},
)
_TEXT_IDS = {"input_ids": "input_ids", "attention_mask": "attention_mask"}

ENSEMBLES: Mapping[str, tuple[Step, ...]] = MappingProxyType(
    {
        "visual_question_answering": (
            Step("text_preprocess", {"text": "question"}, _TEXT_IDS),
            Step(
                "text_encoder",
                _TEXT_IDS,
                {"text_tokens": "text_tokens", "text_embedding": "text_embedding"},
            ),
            Step("image_preprocess", {"image": "image", "after": "text_embedding"}, _PIXELS),
            _IMAGE_TOKENS,
            Step(
                "fusion",
                {
                    "text_tokens": "text_tokens",
                    "attention_mask": "attention_mask",
                    "image_tokens": "image_tokens",
                    "image_mask": "image_mask",
                },
                {"fused_tokens": "fused_tokens"},
            ),
            Step(
                "text_decoder",
                {"memory": "fused_tokens", "memory_mask": "attention_mask"},
                {"text": "answer", "score": "score"},
            ),
        ),
        "image_captioning": (
            _IMAGE_PIXELS,
            _IMAGE_TOKENS,
            Step(
                "text_decoder",
                {"memory": "image_tokens", "memory_mask": "image_mask"},
                {"text": "caption", "score": "score"},
            ),
        ),
        "text_embedding": (
            Step("text_preprocess", {"text": "text"}, _TEXT_IDS),
            Step("text_encoder", _TEXT_IDS, {"text_embedding": "embedding"}),
        ),
        "image_embedding": (
            _IMAGE_PIXELS,
            Step(
                "image_encoder", {"pixel_values": "pixel_values"}, {"image_embedding": "embedding"}
            ),
        ),
    }
)
"""How each task is made of stages: chains, in which no two steps ever run at once.

Where two of them do and one fails, Triton 2.51 crashes or deadlocks; see decision 2.
"""


def model_configs(recipe: Recipe) -> dict[str, ModelConfig]:
    """Build the config of every stage and every task, by model name."""
    stages = {name: _stage_config(name, recipe) for name in STAGES}
    return stages | {name: _ensemble_config(name, recipe) for name in TASKS}


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
    return -1 if axis in DYNAMIC_AXES else sizes[axis]


def _add_tensors(config: ModelConfig, signature: Signature, sizes: Mapping[str, int]) -> None:
    ragged = config.backend in {"onnxruntime", "decoder"}
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
    config = ModelConfig(name=name, backend=BACKENDS[name], max_batch_size=MAX_BATCH_SIZE)
    _add_tensors(config, signature_of(name), recipe.sizes)
    # No queue delay: a batch forms of what queues up while the one before runs. A request that
    # expires there, by the timeout that it came with, is dropped.
    config.dynamic_batching.default_queue_policy.allow_timeout_override = True
    config.instance_group.add(kind=ModelInstanceGroup.KIND_CPU, count=1)
    for key, value in _parameters(name, recipe).items():
        config.parameters[key].string_value = value
    return config


def _parameters(name: str, recipe: Recipe) -> dict[str, str]:
    image, text = recipe.image, recipe.text
    if name == "image_preprocess":
        return {
            "image_size": str(image.image_size),
            "resample": image.resample,
            "crop": image.crop,
            "mean": ",".join(str(value) for value in image.mean),
            "std": ",".join(str(value) for value in image.std),
        }
    if name == "text_preprocess":
        return {"max_tokens": str(text.max_tokens), "pad_id": str(text.pad_id)}
    parameters = {"intra_op_thread_count": "1", "session.intra_op.allow_spinning": "0"}
    if SEQUENCE in {axis for spec in signature_of(name).inputs for axis in spec.shape}:
        parameters[f"buckets.{SEQUENCE}"] = _buckets(text.max_tokens)
    if name == "text_encoder":
        parameters[f"pad_value.{INPUT_IDS.name}"] = str(text.pad_id)
    if name == "text_decoder":
        parameters |= {
            "bos_id": str(text.bos_id),
            "eos_id": str(text.eos_id),
            "max_new_tokens": str(text.max_new_tokens),
            "slots": str(DECODER_SLOTS),
        }
    return parameters


def _buckets(longest: int) -> str:
    """Return the lengths to pad to: powers of two, and the longest."""
    powers = [2**power for power in range(3, 20) if 2**power < longest]
    return ",".join(str(length) for length in (*powers, longest))


def _ensemble_config(name: str, recipe: Recipe) -> ModelConfig:
    config = ModelConfig(name=name, platform="ensemble", max_batch_size=MAX_BATCH_SIZE)
    _add_tensors(config, TASKS[name], recipe.sizes)
    for step in ENSEMBLES[name]:
        config.ensemble_scheduling.step.add(
            model_name=step.stage,
            model_version=-1,
            input_map=step.inputs,
            output_map=step.outputs,
        )
    return config
