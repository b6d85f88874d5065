"""Inputs drawn from a seed for every graph, the smallest and largest shapes included.

The meaning of a tensor follows from its name: masks are ones with padding at the end of some rows,
ids lie inside the vocabulary, `position` counts the valid rows of `past`, `noise_level` is between
0 and 1, or the number of times that a denoiser was trained on, `image_extent` covers at least half
of the picture. Everything else is noise, also where it is padding: a graph that reads padding gives
itself away.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from sensorium.contract import (
    BATCH,
    DYNAMIC_AXES,
    MEDIA,
    MEL_FRAMES,
    MEMORY,
    PAST,
    SAMPLES,
    SEQUENCE,
    DType,
    Signature,
    TensorSpec,
)

Array = NDArray[np.float32] | NDArray[np.int64]

LENGTH_FROM = {
    "attention_mask": SEQUENCE,
    "log_mel_mask": MEL_FRAMES,
    "waveform_mask": SAMPLES,
    "media_mask": MEDIA,
    "memory_mask": MEMORY,
    "position": PAST,
}
"""The input that says how much of a dynamic axis is valid in each row."""

EXAMPLE_SHAPE = {BATCH: 2, SEQUENCE: 5, MEL_FRAMES: 24, MEDIA: 6, MEMORY: 7, PAST: 3, SAMPLES: 4000}
"""The shape to trace with: all different, and no 0 or 1, which the tracer takes for constants."""


LEAST = {PAST: 0, SAMPLES: 800}
"""The least that is drawn along an axis, where it is not 1: nothing has come yet; a sound of 0.05 s
at 16 kHz, the shortest that the server lets in."""


@dataclass(frozen=True, slots=True)
class Case:
    """One named set of inputs; `lengths` gives the valid length of every row of a masked axis.

    What lies behind it can be cut off, unless the axis is among those that the checkpoint fixes.
    """

    name: str
    inputs: Mapping[str, Array]
    lengths: Mapping[str, NDArray[np.int64]]
    fixed: frozenset[str] = frozenset()

    @property
    def cuttable(self) -> Mapping[str, NDArray[np.int64]]:
        """The lengths of the axes that may be cut."""
        return {axis: values for axis, values in self.lengths.items() if axis not in self.fixed}

    @property
    def batch(self) -> int:
        """The number of rows."""
        return len(next(iter(self.inputs.values())))


def cases(
    signature: Signature, sizes: Mapping[str, int], largest: Mapping[str, int], seed: int = 0
) -> tuple[Case, ...]:
    """Draw the cases that every graph must get right.

    Args:
        signature: The graph's inputs.
        sizes: The number for every fixed axis.
        largest: The greatest number for every dynamic axis.
        seed: Another seed gives other values in the same shapes.
    """
    middle = {axis: max(1, most // 2) for axis, most in largest.items()}
    shapes = {
        "smallest": {axis: LEAST.get(axis, 1) for axis in largest},
        "single": middle | {BATCH: 1},
        "typical": middle | {BATCH: min(3, largest[BATCH])},
        "ragged": middle | {BATCH: min(5, largest[BATCH])},
        "largest": dict(largest),
    }
    return tuple(
        replace(
            case(name, signature, {**shape, **sizes}, seed + number, ragged=name == "ragged"),
            fixed=frozenset(sizes),
        )
        for number, (name, shape) in enumerate(shapes.items())
    )


def case(
    name: str, signature: Signature, axes: Mapping[str, int], seed: int, *, ragged: bool = False
) -> Case:
    """Draw one case with the given number for every axis.

    Args:
        name: What to call it in a report.
        signature: The graph's inputs.
        axes: The number for every axis, dynamic ones and batch included.
        seed: The seed of all values.
        ragged: Whether rows have different valid lengths; otherwise all are full.
    """
    random = np.random.default_rng(seed)
    lengths = _lengths(signature, axes, random, ragged=ragged)
    inputs = {
        spec.name: _draw(spec, axes, lengths.get(LENGTH_FROM.get(spec.name, "")), random)
        for spec in signature.inputs
    }
    return Case(name, inputs, lengths)


def example(signature: Signature, sizes: Mapping[str, int]) -> Case:
    """Draw the inputs that a graph is traced with."""
    return case("example", signature, {**EXAMPLE_SHAPE, **sizes}, seed=0)


def row_alone(signature: Signature, batch: Case, row: int) -> Case:
    """Return one row of a case as a batch of its own, with its padding cut off."""
    inputs = {}
    for spec in signature.inputs:
        array = batch.inputs[spec.name][row : row + 1]
        inputs[spec.name] = cut(array, spec, batch.cuttable, row)
    lengths = {axis: values[row : row + 1] for axis, values in batch.lengths.items()}
    return Case(f"{batch.name}[{row}]", inputs, lengths, batch.fixed)


def cut(
    array: Array, spec: TensorSpec, lengths: Mapping[str, NDArray[np.int64]], row: int
) -> Array:
    """Cut the padding off one row, given as a batch of one."""
    keep = [slice(None)]
    for axis in spec.shape:
        length = lengths.get(axis) if isinstance(axis, str) else None
        keep.append(slice(None) if length is None else slice(int(length[row])))
    return array[tuple(keep)]


def _lengths(
    signature: Signature, axes: Mapping[str, int], random: np.random.Generator, *, ragged: bool
) -> dict[str, NDArray[np.int64]]:
    used = {axis for spec in signature.inputs for axis in spec.shape if axis in DYNAMIC_AXES}
    told = {LENGTH_FROM[spec.name] for spec in signature.inputs if spec.name in LENGTH_FROM}
    lengths = {}
    for axis in sorted(used & told):
        full = axes[axis]
        values = np.full(axes[BATCH], full, dtype=np.int64)
        if ragged:
            least = min(LEAST.get(axis, 1), full)
            values = random.integers(min(max(1, least), full), full + 1, axes[BATCH])
            values[0], values[-1] = full, least
        lengths[axis] = values
    return lengths


def _draw(
    spec: TensorSpec,
    axes: Mapping[str, int],
    lengths: NDArray[np.int64] | None,
    random: np.random.Generator,
) -> Array:
    shape = (axes[BATCH], *(axes[axis] if isinstance(axis, str) else axis for axis in spec.shape))
    if spec.name == "position":
        return lengths if lengths is not None else np.zeros(shape, np.int64)
    if spec.name.endswith("_mask"):
        if lengths is None:
            return np.ones(shape, np.int64)
        return (np.arange(shape[1])[None] < lengths[:, None]).astype(np.int64)
    if spec.name == "noise_level":
        return random.random(shape, dtype=np.float32) * np.float32(axes.get("noise_levels", 1))
    if spec.dtype is DType.INT64:
        edge = axes.get("image_size", 0)
        least, most = (
            (edge // 2, edge + 1) if spec.name == "image_extent" else (0, axes["vocabulary"])
        )
        return random.integers(least, most, shape)
    return random.standard_normal(shape, dtype=np.float32)
