"""Make one batch of several requests, and give each its part of the result.

Requests join along the first axis. Where they differ along an axis that has buckets, all are
padded to the smallest bucket that holds the longest; along any other axis only equals can join.
Buckets are a promise of the graph: what is padded is masked, and the answer stays the same.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sensorium.errors import InvalidInputError
from sensorium_server.stages import Tensors

Axes = tuple[int | str | None, ...]
"""A tensor's axes as a graph tells them: a number, a name, or nothing."""


@dataclass(frozen=True, slots=True)
class Batcher:
    """Joins and splits by the axis names of a graph.

    `buckets` are ascending sizes by axis name; beyond the largest, a batch is as long as its
    longest request. `pad_values` are by input name, 0 if not given. `masks` names the output that
    says how much is valid of an axis that outputs alone have.
    """

    inputs: Mapping[str, Axes]
    outputs: Mapping[str, Axes]
    buckets: Mapping[str, Sequence[int]] = field(default_factory=dict)
    pad_values: Mapping[str, float] = field(default_factory=dict)
    masks: Mapping[str, str] = field(default_factory=dict)

    def sizes(self, request: Tensors) -> dict[str, int]:
        """Return a request's size along each named axis but the first.

        Raises:
            InvalidInputError: its inputs disagree about an axis or about the rows, or one is empty.
        """
        sizes: dict[str, int] = {}
        rows: dict[str, int] = {}
        for name, axes in self.inputs.items():
            shape = request[name].shape
            if 0 in shape:
                raise InvalidInputError(f"{name} is empty: its shape is {list(shape)}.")
            rows[name] = shape[0]
            for axis, size in zip(axes[1:], shape[1:], strict=True):
                if isinstance(axis, str) and sizes.setdefault(axis, size) != size:
                    raise InvalidInputError(
                        f"{name} is {size} long along {axis}, another input {sizes[axis]}. "
                        f"Send equal lengths."
                    )
        if len(set(rows.values())) > 1:
            counts = ", ".join(f"{name} {count}" for name, count in rows.items())
            raise InvalidInputError(f"the inputs' batch sizes differ: {counts}. Send equal ones.")
        return sizes

    def groups(self, sizes: Sequence[Mapping[str, int]]) -> list[list[int]]:
        """Return which requests can share a batch, by their indices."""
        groups: dict[tuple[tuple[str, int], ...], list[int]] = {}
        for index, size in enumerate(sizes):
            rigid = tuple((axis, n) for axis, n in size.items() if axis not in self.buckets)
            groups.setdefault(rigid, []).append(index)
        return list(groups.values())

    def padded_sizes(self, sizes: Sequence[Mapping[str, int]]) -> dict[str, int]:
        """Return the batch's size along each axis that has buckets."""
        padded = {}
        for axis, buckets in self.buckets.items():
            longest = max((size[axis] for size in sizes if axis in size), default=0)
            padded[axis] = next((bucket for bucket in buckets if bucket >= longest), longest)
        return padded

    def join(
        self, requests: Sequence[Tensors], sizes: Sequence[Mapping[str, int]]
    ) -> dict[str, NDArray[Any]]:
        """Return the batch's inputs; a lone request that fits is passed on without a copy."""
        padded = self.padded_sizes(sizes)
        return {
            name: self._join_input(name, axes, [request[name] for request in requests], padded)
            for name, axes in self.inputs.items()
        }

    def _join_input(
        self, name: str, axes: Axes, parts: Sequence[NDArray[Any]], padded: Mapping[str, int]
    ) -> NDArray[Any]:
        tail = resized(parts[0].shape[1:], axes[1:], padded)
        if all(part.shape[1:] == tail for part in parts):
            return parts[0] if len(parts) == 1 else np.concatenate(parts)
        rows = sum(len(part) for part in parts)
        whole = np.full((rows, *tail), self.pad_values.get(name, 0), parts[0].dtype)
        start = 0
        for part in parts:
            region = (slice(start, start + len(part)), *map(slice, part.shape[1:]))
            whole[region] = part
            start += len(part)
        return whole

    def split(
        self,
        results: Tensors,
        rows: Sequence[int],
        sizes: Sequence[Mapping[str, int]],
    ) -> list[dict[str, NDArray[Any]]]:
        """Return each request's part of the results, without the padding."""
        parts: list[dict[str, NDArray[Any]]] = []
        start = 0
        for count, size in zip(rows, sizes, strict=True):
            own = {axis: size[axis] for axis in self.buckets if axis in size}
            own |= {
                axis: int(results[mask][start : start + count].sum(axis=1).max())
                for axis, mask in self.masks.items()
                if mask in results
            }
            parts.append(
                {
                    name: _part(array, slice(start, start + count), self.outputs[name], own)
                    for name, array in results.items()
                }
            )
            start += count
        return parts


def resized(shape: Sequence[int], axes: Axes, sizes: Mapping[str, int]) -> tuple[int, ...]:
    """Return a shape with other sizes of the axes that are named."""
    return tuple(
        sizes.get(axis, size) if isinstance(axis, str) else size
        for axis, size in zip(axes, shape, strict=True)
    )


def _part(array: NDArray[Any], rows: slice, axes: Axes, sizes: Mapping[str, int]) -> NDArray[Any]:
    tail = resized(array.shape[1:], axes[1:], sizes)
    if tail == array.shape[1:]:
        return array[rows]
    return np.ascontiguousarray(array[(rows, *map(slice, tail))])
