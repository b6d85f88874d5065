"""A model's `config.pbtxt` for its engines: the exported one, and what they need."""

from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sensorium_server.engine_record import EngineRecord
from sensorium_server.placement import PLAN_BACKENDS
from sensorium_server.swap.device import CPU_PRODUCTS

if TYPE_CHECKING:
    from tritonclient.grpc.model_config_pb2 import ModelConfig

_PRECISIONS: Mapping[str, str] = {"int8_static": "int8"}
"""What the config says of precisions that the backend runs alike."""


def engine_config(portable: str, named: str, records: Sequence[EngineRecord]) -> str:
    """Return the config by which a model's engines are served.

    Args:
        portable: The text of the exported config.
        named: The text of the config that was written for engines; empty if there is none.
        records: Those of the engines, one for each of the model's graphs that has one, all for the
            processor or all for the GPU.
    """
    is_on_gpu = records[0].product not in CPU_PRODUCTS
    config = _parsed(named if is_on_gpu else portable)
    for record in records:
        (graph, *_) = (Path(path).stem for path in record.onnx)
        parameters = (
            _gpu_parameters(record)
            if is_on_gpu
            else cpu_parameters(record.product, record.precision, graph)
        )
        for key, value in {**parameters, "check_finite": "true"}.items():
            config.parameters[key].string_value = value
    return _written(config)


def _gpu_parameters(record: EngineRecord) -> dict[str, str]:
    """Return the parameters by which our backends run plans; see `tensorrt_engine.planned`."""
    return {"engine": record.product, "stripped": str(record.stripped).lower()}


def cpu_parameters(product: str, precision: str, graph: str = "model") -> dict[str, str]:
    """Return the parameters by which a backend runs a processor's engine of one of its graphs."""
    parameters = {"precision": _PRECISIONS.get(precision, precision), "engine": product}
    if product == "onnxruntime":
        parameters[f"optimized.{graph}"] = "true"
    return parameters


def without_plans(text: str) -> str:
    """Return a config on a GPU by which the ONNX files serve, whatever plans there are."""
    config = _parsed(text)
    if config.backend not in PLAN_BACKENDS:
        return text
    config.parameters["engine"].string_value = "onnxruntime"
    return _written(config)


def served_by(text: str) -> str:
    """Return the backend of a config; empty for an ensemble."""
    return str(_parsed(text).backend)


def with_version(text: str, version: int) -> str:
    """Return a config that names one version of its model."""
    config = _parsed(text)
    config.version_policy.specific.versions[:] = [version]
    return _written(config)


def _parsed(text: str) -> "ModelConfig":
    # Not needed by a server without engines, and slow to import.
    from tritonclient.grpc.model_config_pb2 import ModelConfig  # noqa: PLC0415

    config: ModelConfig = _text_format().Parse(text, ModelConfig())
    return config


def _written(config: "ModelConfig") -> str:
    return str(_text_format().MessageToString(config))


def _text_format() -> Any:  # noqa: ANN401 - a module without types
    return import_module("google.protobuf.text_format")
