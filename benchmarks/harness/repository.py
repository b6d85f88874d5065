"""Reads a model repository's configs, without the exporter and what it brings along."""

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


def encoder_threads(repository: Path) -> tuple[int, int]:
    """Return the threads of one run and the instances of the image encoder."""
    config = config_of(repository, "image_encoder")
    threads = config.parameters["intra_op_thread_count"].string_value or "1"
    return int(threads), config.instance_group[0].count
