"""Reads a model repository's configs, without the exporter and what it brings along."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from google.protobuf import text_format  # type: ignore[import-untyped]
from tritonclient.grpc.model_config_pb2 import ModelConfig

CONFIG_FILE = "config.pbtxt"


def config_of(repository: Path, model: str) -> Any:  # noqa: ANN401 - an untyped protobuf message
    """Return a model's config."""
    text = (repository / model / CONFIG_FILE).read_text(encoding="utf-8")
    return text_format.Parse(text, ModelConfig())


def write_config(repository: Path, model: str, config: Any) -> None:  # noqa: ANN401 - see above
    """Put another config in the place of a model's, which may be a link to a shared file."""
    path = repository / model / CONFIG_FILE
    path.unlink()
    path.write_text(text_format.MessageToString(config), encoding="utf-8")


def graph_models(repository: Path) -> list[str]:
    """Return the models that are one graph each: the encoders and fusion."""
    models = sorted(path.parent.name for path in repository.glob(f"*/{CONFIG_FILE}"))
    return [model for model in models if config_of(repository, model).backend == "onnxruntime"]


def last_encoder(stages: Iterable[str]) -> str:
    """Return the last encoder of a chain: a question's text comes before its media."""
    return [stage for stage in stages if stage.endswith("_encoder")][-1]


def encoder_threads(repository: Path, task: str) -> tuple[int, int]:
    """Return the threads of one run and the instances of a task's last encoder."""
    steps = config_of(repository, task).ensemble_scheduling.step
    config = config_of(repository, last_encoder(step.model_name for step in steps))
    threads = config.parameters["intra_op_thread_count"].string_value or "1"
    return int(threads), config.instance_group[0].count
