"""The GPUs of this machine, as CUDA sees them."""

from dataclasses import dataclass

from sensorium.errors import ConfigurationError

EXTRA = "Install it with: pip install 'sensorium[gpu]'"


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU; `driver` is the newest CUDA version that its driver serves, memory is in bytes."""

    index: int
    name: str
    compute_capability: str
    driver: str
    memory: int

    def __str__(self) -> str:
        return (
            f"GPU {self.index}: {self.name}, compute capability {self.compute_capability}, "
            f"{self.memory / 2**30:.0f} GiB, driver for CUDA {self.driver}"
        )


def found_gpus() -> tuple[Gpu, ...]:
    """Return the GPUs that CUDA_VISIBLE_DEVICES lets us see; at least one.

    Raises:
        ConfigurationError: there is none; the message says why.
    """
    try:
        from cuda.bindings import runtime as cudart  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise ConfigurationError(f"cuda-bindings is not installed. {EXTRA}") from error
    status, count = cudart.cudaGetDeviceCount()
    if status != cudart.cudaError_t.cudaSuccess:
        raise ConfigurationError(f"CUDA says {status.name}")
    if not count:
        raise ConfigurationError("CUDA lists no device")
    _, driver = cudart.cudaDriverGetVersion()
    found = []
    for index in range(count):
        status, one = cudart.cudaGetDeviceProperties(index)
        if status != cudart.cudaError_t.cudaSuccess:
            raise ConfigurationError(f"CUDA says {status.name} of device {index}")
        found.append(
            Gpu(
                index,
                one.name.decode(),
                f"{one.major}.{one.minor}",
                f"{driver // 1000}.{driver % 1000 // 10}",
                one.totalGlobalMem,
            )
        )
    return tuple(found)
