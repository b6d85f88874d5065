"""A compiled engine that is called like a graph: arrays in, arrays out, or left on the device.

For stages that call a graph many times for one answer: a decoder's step reads its cache where it
lies, and is recorded as a CUDA graph for each number of rows.
"""

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sensorium_server.device import Device, DeviceArray, Part, zeros
from sensorium_server.device import on_host as copied
from sensorium_server.engine_runs import GRAPHS, Engine, EngineRuns
from sensorium_server.onnx_session import Graph


class EngineGraph(Graph):
    """One engine with buffers for what comes from the host and for what it puts out."""

    def __init__(self, engine: Engine, device: Device, *, graphs: int = GRAPHS) -> None:
        """Allocate for the largest outputs.

        Args:
            engine: The loaded engine.
            device: Where it was loaded.
            graphs: How many CUDA graphs to keep; 0 never records any.
        """
        layout = self.layout = engine.layout
        axes = {
            tensor.name: tuple(None if size < 0 else size for size in tensor.shape)
            for tensor in layout.tensors
        }
        super().__init__(
            {tensor.name: axes[tensor.name] for tensor in layout.inputs},
            {tensor.name: axes[tensor.name] for tensor in layout.outputs},
            {tensor.name: tensor.dtype for tensor in layout.inputs},
        )
        self._device = device
        self._runs = EngineRuns(engine, device, graphs)
        self._sizes = self._runs.largest_sizes()
        self._outputs = {
            tensor.name: zeros(device, (self._sizes[tensor.name],), tensor.dtype)
            for tensor in layout.outputs
        }
        # An input that is always on the device, as a cache is, needs none.
        self._pinned: dict[str, NDArray[np.uint8]] = {}
        self._inputs: dict[str, DeviceArray] = {}

    def run(self, outputs: list[str], inputs: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Compute the named outputs, from the host to the host."""
        found, _ = self.run_bound(inputs, outputs, {})
        return dict(zip(outputs, found, strict=True))

    def run_bound(
        self,
        inputs: Mapping[str, Part],
        on_host: Sequence[str],
        on_device: Mapping[str, tuple[int, ...]],
    ) -> tuple[list[NDArray[Any]], dict[str, DeviceArray]]:
        """Compute outputs; see `device_slots.Bound`.

        Raises:
            InvalidInputError: No profile holds the shapes.
        """
        shapes = {name: tuple(part.shape) for name, part in inputs.items()}
        profile = self.layout.profile_for(shapes)
        pointers = {name: self._placed(name, part) for name, part in inputs.items()}
        pointers |= {name: array.pointer for name, array in self._outputs.items()}
        found = self._runs.queue(profile, shapes, pointers)
        self._device.synchronize()
        made = {
            name: DeviceArray(whole.pointer, found[name], whole.dtype, whole.device, whole)
            for name, whole in self._outputs.items()
        }
        return (
            [copied(self._device, made[name]) for name in on_host],
            {name: made[name] for name in on_device},
        )

    def _placed(self, name: str, part: Part) -> int:
        """Return where an input lies on the device; what is on the host is copied there."""
        if isinstance(part, DeviceArray):
            return part.pointer
        if name not in self._inputs:
            buffer = zeros(self._device, (self._sizes[name],), self.dtypes[name])
            self._inputs[name] = buffer
            self._pinned[name] = self._device.pinned(buffer.nbytes)
        buffer = self._inputs[name]
        size = prod(part.shape) * buffer.dtype.itemsize
        pinned = self._pinned[name][:size].view(buffer.dtype).reshape(part.shape)
        pinned[...] = part
        self._device.copy(buffer.pointer, pinned.ctypes.data, size)
        return buffer.pointer
