"""How far what is served may be from PyTorch, for each precision that a stage is served in."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from typing import Any

from sensorium_export.sections import overridden

FP32, TF32, FP16, BF16, FP8, INT8 = "fp32", "tf32", "fp16", "bf16", "fp8", "int8"
PRECISIONS = (FP32, BF16, INT8)
"""What an export may serve a stage in, from the closest to PyTorch to the furthest."""

ENGINE_PRECISIONS = (TF32, FP16, BF16, FP8)
"""What an engine may compute a graph in, besides fp32."""


@dataclass(frozen=True, slots=True)
class Tolerance:
    """The largest differences that still count as equal.

    `stage` is relative to the largest absolute value of the expected output, `score`, `embedding`
    and `time_s` are absolute, `cosine` is the least cosine of two embeddings, and `level` counts
    the 256 levels of a drawn picture's channels. Where `stage_cosine` is set, it is the least
    cosine of a stage's output and judged in the place of `stage`. `agreement` is the least share of
    inputs for which all of that must hold.
    """

    stage: float
    score: float
    embedding: float
    cosine: float
    time_s: float
    level: int
    stage_cosine: float | None = None
    agreement: float = 1.0


def tolerance_of(precision: str, overrides: Mapping[str, Any], where: str) -> Tolerance:
    """Return the tolerance of a precision, and what a checkpoint says instead.

    Args:
        precision: One of `PRECISIONS`.
        overrides: Some of its values.
        where: The section of the config that they are from, for messages.

    Raises:
        ConfigurationError: A value is not known.
    """
    return overridden(Tolerance, _defaults()[precision], overrides, where)


@cache
def _defaults() -> dict[str, dict[str, Any]]:
    file = resources.files("sensorium_export").joinpath("tolerance.toml")
    return tomllib.loads(file.read_text(encoding="utf-8"))


@dataclass(frozen=True, slots=True)
class Tolerances:
    """What a whole bundle may differ by.

    `usual` is that of fp32; `lowered` has those of stages that are served in a lower precision.
    """

    usual: Tolerance
    lowered: Mapping[str, Tolerance] = field(default_factory=dict)

    def of_stage(self, stage: str) -> Tolerance:
        """Return a stage's own: it is judged on PyTorch's inputs."""
        return self.lowered.get(stage, self.usual)

    @property
    def of_tasks(self) -> Tolerance:
        """Return that of the furthest stage: a task may run through it."""
        return min(self.lowered.values(), key=lambda one: one.agreement, default=self.usual)
