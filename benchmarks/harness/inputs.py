"""What is sent to a task, as a client has it: file bytes, text and numbers for every request."""

import base64
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from sensorium import contract

COUNT = 64
"""Enough that no two in a batch of 32 are the same."""

Value = bytes | int | float
Columns = Mapping[str, tuple[Value, ...]]
"""By the name of an input, its value in every request."""

Source = Callable[[int], Value]
"""From a request's number to one of its inputs."""

Sources = Mapping[str, Source]
"""By the names of a task's inputs."""


@dataclass(frozen=True, slots=True)
class Inputs:
    """What is sent to one task."""

    task: str
    columns: Columns

    @classmethod
    def made(cls, task: str, sources: Sources, count: int = COUNT) -> Self:
        """Make the inputs of a task."""
        columns = {name: tuple(map(source, range(count))) for name, source in sources.items()}
        return cls(task, columns)

    def save(self, path: Path) -> None:
        """Write them to a file, whole or not at all."""
        written = {name: [_plain(value) for value in own] for name, own in self.columns.items()}
        path.parent.mkdir(parents=True, exist_ok=True)
        half = path.with_suffix(f".{os.getpid()}")
        half.write_text(json.dumps(written))
        half.replace(path)

    @classmethod
    def load(cls, task: str, path: Path) -> Self:
        """Read what `save` wrote."""
        written = json.loads(path.read_text())
        return cls(task, {name: tuple(map(_value, own)) for name, own in written.items()})

    def batches(self, size: int) -> list[dict[str, NDArray[Any]]]:
        """Return the task's tensors in batches of whole requests; what is left over is left out."""
        arrays = {}
        for spec in contract.TASKS[self.task].inputs:
            dtype = {"FP32": np.float32, "INT64": np.int64}.get(spec.dtype, np.object_)
            arrays[spec.name] = np.array(self.columns[spec.name], dtype)[:, None]
        count = len(next(iter(arrays.values())))
        return [
            {name: array[at : at + size] for name, array in arrays.items()}
            for at in range(0, count - size + 1, size)
        ]


def _plain(value: Value) -> str | int | float:
    return base64.b64encode(value).decode() if isinstance(value, bytes) else value


def _value(written: str | float) -> Value:
    return base64.b64decode(written) if isinstance(written, str) else written
