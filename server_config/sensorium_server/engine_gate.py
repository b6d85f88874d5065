"""The gate of engines: one is used when it is proven, whole, and made of the file that is served.

It must also be of the product's version that is here, for the device that is here, unless it was
built to be compatible with more. Whatever is refused costs nothing but speed: its ONNX file serves.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from sensorium_server.engine_record import EngineRecord, Target, read_records
from sensorium_server.manifest import digest


class Compatibility(StrEnum):
    """What more than its own version and its own device an engine was built to run on.

    `version` is for later versions of the same major version.
    """

    VERSION = "version"
    SAME_COMPUTE_CAPABILITY = "same_compute_capability"
    AMPERE_PLUS = "ampere_plus"


_AMPERE = (8, 0)


@dataclass(frozen=True, slots=True)
class EngineRuntime:
    """What would run engines here: the version of every installed product, and the device."""

    versions: Mapping[str, str]
    target: Target


@dataclass(frozen=True, slots=True)
class Refusal:
    """An engine that is not used, and why; `str` gives the whole message."""

    record: EngineRecord
    reason: str

    def __str__(self) -> str:
        return (
            f"{self.record.file} is not used: {self.reason}. {self.record.graph} is served by its "
            f"ONNX file. Build it again: {self.record.command}"
        )


def usable_engines(
    repository: Path, bundle: str, runtime: EngineRuntime
) -> tuple[tuple[EngineRecord, ...], tuple[Refusal, ...]]:
    """Return the engines of a bundle that may serve here, and those that may not, with reasons.

    Raises:
        ConfigurationError: The records cannot be read.
    """
    usable, refused = [], []
    for record in read_records(repository, bundle):
        reasons = reasons_against(record, repository, runtime)
        if reasons:
            refused.append(Refusal(record, "; ".join(reasons)))
        else:
            usable.append(record)
    return tuple(usable), tuple(refused)


def reasons_against(
    record: EngineRecord, repository: Path, runtime: EngineRuntime
) -> tuple[str, ...]:
    """Return all reasons not to use an engine; none if it may serve."""
    return (
        *_unproven(record),
        *_other_files(record, repository),
        *_other_version(record, runtime),
        *_other_device(record, runtime.target),
    )


def _unproven(record: EngineRecord) -> tuple[str, ...]:
    if record.parity is None:
        return ("it has not been compared with PyTorch",)
    if not record.parity.passed:
        listed = ", ".join(record.parity.failures)
        return (f"it differs from PyTorch ({listed})" if listed else "it differs from PyTorch",)
    return ()


def _other_files(record: EngineRecord, repository: Path) -> tuple[str, ...]:
    return tuple(
        f"{path} is missing" if not (repository / path).is_file() else f"{path} is {what}"
        for path, expected, what in (
            (record.file, record.digest, "not the file that was proven"),
            *((path, one, "not what it was built from") for path, one in record.onnx.items()),
        )
        if not (repository / path).is_file() or digest(repository / path) != expected
    )


def _other_version(record: EngineRecord, runtime: EngineRuntime) -> tuple[str, ...]:
    found = runtime.versions.get(record.product, "")
    if not found:
        return (f"{record.product} is not installed",)
    if record.version == found:
        return ()
    if Compatibility.VERSION in record.compatibility and _is_later(found, record.version):
        return ()
    return (f"it was built by {record.product} {record.version}, and {found} is installed",)


def _is_later(found: str, built: str) -> bool:
    """Whether a version is a later one of the same major version."""
    one, other = _numbers(found), _numbers(built)
    return one[:1] == other[:1] and one >= other


def _other_device(record: EngineRecord, here: Target) -> tuple[str, ...]:
    built = record.target
    same_device = built.device in {"", here.device}
    same_capability = built.compute_capability == here.compute_capability
    if Compatibility.AMPERE_PLUS in record.compatibility:
        is_fit = bool(here.compute_capability) and _numbers(here.compute_capability) >= _AMPERE
    elif Compatibility.SAME_COMPUTE_CAPABILITY in record.compatibility:
        is_fit = same_capability
    else:
        is_fit = same_device and same_capability
    if is_fit:
        return ()
    return (f"it was built for {_named(built)}, and this is {_named(here)}",)


def _named(target: Target) -> str:
    capability = target.compute_capability
    if not capability:
        return target.device or "no GPU"
    return f"{target.device or 'a GPU'} (compute capability {capability})"


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdigit())
