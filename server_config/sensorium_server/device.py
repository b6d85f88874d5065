"""Memory of a device and what is done to it, so that all but the calls of CUDA runs without a GPU.

Addresses are plain integers. Copies, fills and work are queued on the device's one stream, in
order; `synchronize` waits for them. `cuda.CudaDevice` is the real one.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from sensorium_server.dlpack import Capsule, capsule_from


class Pitched(NamedTuple):
    """Where rows of bytes begin, and how far each is from the next."""

    pointer: int
    pitch: int


class Memory(Protocol):
    """Memory of a device, freed with the object; it is zero at first."""

    pointer: int


class Device(Protocol):
    """One device with its stream; a source or a target may be on it, on the host, or pinned."""

    dlpack_device: tuple[int, int]
    """Kind and number of the device, as DLPack counts them."""

    def claim(self) -> None:
        """Make it the calling thread's device; a thread that is new to CUDA has the first one."""

    def allocate(self, size: int) -> Memory:
        """Return so many bytes of the device."""

    def pinned(self, size: int) -> NDArray[np.uint8]:
        """Return so many bytes of the host that the device reads and writes by itself."""

    def copy(self, target: int, source: int, size: int) -> None:
        """Queue a copy of bytes."""

    def copy_rows(self, target: Pitched, source: Pitched, width: int, rows: int) -> None:
        """Queue a copy of `rows` times `width` bytes."""

    def clear(self, pointer: int, size: int) -> None:
        """Queue zeros."""

    def synchronize(self) -> None:
        """Wait for all that was queued."""

    def recorded(self, work: Callable[[], None]) -> Callable[[], None]:
        """Record the work that a function queues, as a CUDA graph; return what queues all of it.

        Raises:
            CaptureError: it cannot be recorded.
        """


class CaptureError(Exception):
    """Work that cannot be recorded as a CUDA graph: it is queued call by call instead."""


@dataclass(frozen=True, slots=True)
class DeviceArray:
    """A contiguous array on a device; `owner` keeps its memory alive."""

    pointer: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    device: tuple[int, int]
    owner: object

    @property
    def row_bytes(self) -> int:
        """The bytes of one element of the first axis."""
        return prod(self.shape[1:]) * self.dtype.itemsize

    @property
    def nbytes(self) -> int:
        """The bytes of the whole."""
        return self.shape[0] * self.row_bytes

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, row: int) -> "DeviceArray":
        """Return one element of the first axis; it is the same memory."""
        pointer = self.pointer + row * self.row_bytes
        return DeviceArray(pointer, self.shape[1:], self.dtype, self.device, self.owner)

    def rows(self, start: int, count: int) -> "DeviceArray":
        """Return a part along the first axis; it is the same memory."""
        pointer = self.pointer + start * self.row_bytes
        return DeviceArray(pointer, (count, *self.shape[1:]), self.dtype, self.device, self.owner)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.device

    def __dlpack__(self, stream: object = None) -> Capsule:
        """Hand the array over; whoever made it has waited for it, so the stream does not matter."""
        del stream
        return capsule_from(self.pointer, self.shape, self.dtype, self.device, self.owner)


Part = NDArray[Any] | DeviceArray
"""One request's part of a batch, wherever it is."""


def zeros(device: Device, shape: tuple[int, ...], dtype: np.dtype[Any]) -> DeviceArray:
    """Return an array of zeros on a device."""
    memory = device.allocate(max(prod(shape) * dtype.itemsize, 1))
    return DeviceArray(memory.pointer, shape, dtype, device.dlpack_device, memory)


def on_host(device: Device, array: DeviceArray) -> NDArray[Any]:
    """Return a copy on the host."""
    target = np.empty(array.shape, array.dtype)
    device.copy(target.ctypes.data, array.pointer, array.nbytes)
    device.synchronize()
    return target
