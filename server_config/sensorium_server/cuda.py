"""The calls of CUDA, through `cuda-bindings` (extra `gpu`); nothing else in the server makes any.

A device has one stream of its own. Memory comes from `cudaMalloc`, because Triton passes it on
between processes, which it cannot with memory of a pool.
"""

import ctypes
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sensorium.errors import ConfigurationError, ServerError
from sensorium_server import dlpack
from sensorium_server.device import CaptureError, Pitched
from sensorium_server.gpu import EXTRA


class CudaMemory:
    """Memory of a GPU; zero at first."""

    def __init__(self, size: int) -> None:
        self.pointer: int = called(cudart().cudaMalloc, size)
        called(cudart().cudaMemset, self.pointer, 0, size)
        # Streams of our own do not wait for the one in which that happens.
        called(cudart().cudaStreamSynchronize, 0)

    def __del__(self) -> None:
        if pointer := getattr(self, "pointer", 0):
            cudart().cudaFree(pointer)


class CudaDevice:
    """A GPU with a stream."""

    def __init__(self, index: int = 0) -> None:
        self.dlpack_device = (dlpack.CUDA, index)
        self.claim()
        flags = cudart().cudaStreamNonBlocking
        self.stream = int(called(cudart().cudaStreamCreateWithFlags, flags))

    def claim(self) -> None:
        """Make it the calling thread's device."""
        called(cudart().cudaSetDevice, self.dlpack_device[1])

    def allocate(self, size: int) -> CudaMemory:
        """Return so many bytes of the GPU."""
        self.claim()
        return CudaMemory(size)

    def pinned(self, size: int) -> NDArray[np.uint8]:
        """Return page-locked bytes of the host; they live as long as the process."""
        pointer = int(called(cudart().cudaHostAlloc, size, cudart().cudaHostAllocDefault))
        return np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(pointer))

    def copy(self, target: int, source: int, size: int) -> None:
        """Queue a copy of bytes."""
        called(cudart().cudaMemcpyAsync, target, source, size, _anywhere(), self.stream)

    def copy_rows(self, target: Pitched, source: Pitched, width: int, rows: int) -> None:
        """Queue a copy of `rows` times `width` bytes."""
        called(
            cudart().cudaMemcpy2DAsync,
            *(*target, *source, width, rows, _anywhere(), self.stream),
        )

    def clear(self, pointer: int, size: int) -> None:
        """Queue zeros."""
        called(cudart().cudaMemsetAsync, pointer, 0, size, self.stream)

    def synchronize(self) -> None:
        """Wait for all that was queued."""
        called(cudart().cudaStreamSynchronize, self.stream)

    def recorded(self, work: Callable[[], None]) -> Callable[[], None]:
        """Record the work that a function queues, as a CUDA graph; return what queues all of it.

        Raises:
            CaptureError: it cannot be recorded.
        """
        mode = cudart().cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        called(cudart().cudaStreamBeginCapture, self.stream, mode)
        failure: Exception | None = None
        try:
            work()
        except Exception as error:  # noqa: BLE001 - the capture must be ended first
            failure = error
        status, graph = cudart().cudaStreamEndCapture(self.stream)
        if failure is not None or status != cudart().cudaError_t.cudaSuccess:
            raise CaptureError(str(failure or status.name)) from failure
        executable = called(cudart().cudaGraphInstantiate, graph, 0)
        called(cudart().cudaGraphDestroy, graph)
        return _Recording(executable, self.stream)


class _Recording:
    """A recorded piece of work."""

    def __init__(self, executable: Any, stream: int) -> None:  # noqa: ANN401 - CUDA's own handle
        self._executable, self._stream = executable, stream

    def __call__(self) -> None:
        called(cudart().cudaGraphLaunch, self._executable, self._stream)

    def __del__(self) -> None:
        cudart().cudaGraphExecDestroy(self._executable)


class Timer:
    """Measures by CUDA events what was queued between `start` and `stop`."""

    def __init__(self, device: CudaDevice) -> None:
        self._stream = device.stream
        self._begin, self._end = (called(cudart().cudaEventCreate) for _ in range(2))

    def start(self) -> None:
        """Queue the first event."""
        called(cudart().cudaEventRecord, self._begin, self._stream)

    def stop(self) -> float:
        """Queue the second event, wait for it, and return the milliseconds between them."""
        called(cudart().cudaEventRecord, self._end, self._stream)
        called(cudart().cudaEventSynchronize, self._end)
        return float(called(cudart().cudaEventElapsedTime, self._begin, self._end))


def called(function: Callable[..., Any], *arguments: object) -> Any:  # noqa: ANN401 - CUDA's own
    """Call a function of CUDA; return its result without the status.

    Raises:
        ServerError: CUDA reports an error.
    """
    status, *results = function(*arguments)
    if int(status):
        raise ServerError(f"{function.__name__}: {status.name}")
    return results[0] if results else None


def cudart() -> Any:  # noqa: ANN401 - a compiled module
    """Return CUDA's runtime library.

    Raises:
        ConfigurationError: it is not installed.
    """
    try:
        from cuda.bindings import runtime  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise ConfigurationError(f"cuda-bindings is not installed. {EXTRA}") from error
    return runtime


def _anywhere() -> Any:  # noqa: ANN401 - CUDA's own
    return cudart().cudaMemcpyKind.cudaMemcpyDefault
