"""The GPUs of this machine, as CUDA sees them, or as its driver names them."""

import subprocess
from dataclasses import dataclass
from shutil import which
from typing import Any

from sensorium.errors import ConfigurationError
from sensorium_server.engine_record import Target

_QUERY = ("--query-gpu=name,compute_cap,driver_version", "--format=csv,noheader")
_TIMEOUT_S = 20
EXTRA = "Install it with: pip install 'sensorium[gpu]'"


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU; `driver` is the newest CUDA version that its driver serves, memory is in bytes."""

    index: int
    name: str
    compute_capability: str
    driver: str
    memory: int

    @property
    def target(self) -> Target:
        """What engines are built for."""
        return Target(self.name, self.compute_capability, self.driver)

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
    cudart = _runtime()
    if cudart is None:
        raise ConfigurationError(f"cuda-bindings is not installed. {EXTRA}")
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


def this_gpu() -> Target | None:
    """Return the first GPU that may be used, None where there is none.

    Without `cuda-bindings` it is asked of `nvidia-smi`, which knows nothing of
    CUDA_VISIBLE_DEVICES.
    """
    if _runtime() is None:
        return _first_of_driver()
    try:
        first = found_gpus()[0]
    except ConfigurationError:
        return None
    return first.target


def _runtime() -> Any:  # noqa: ANN401 - a compiled module
    """Return the calls of CUDA's runtime; None where they are not installed."""
    try:
        from cuda.bindings import runtime  # noqa: PLC0415 - an extra
    except ImportError:
        return None
    return runtime


def _first_of_driver() -> Target | None:
    command = which("nvidia-smi")
    if command is None:
        return None
    try:
        done = subprocess.run(  # noqa: S603 - the driver's own tool
            [command, *_QUERY], capture_output=True, text=True, check=True, timeout=_TIMEOUT_S
        )
    except (OSError, subprocess.SubprocessError):
        return None
    lines = done.stdout.strip().splitlines()
    fields = [field.strip() for field in lines[0].split(",")] if lines else []
    return Target(*fields) if len(fields) == len(_QUERY[0].split(",")) else None
