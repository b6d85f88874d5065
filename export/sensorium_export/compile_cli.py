"""The verb `sensorium compile`: ONNX graphs become engines for this machine's device."""

from pathlib import Path
from typing import Annotated

import typer

from sensorium_export.cli import (
    DEFAULT_CHECKPOINT,
    DEFAULT_REPOSITORY,
    AsJson,
    Bundle,
    Repository,
    _checkpoint_of,
)
