"""What is known of every compiled engine of a bundle: `NAME.engines.json` beside its manifest.

An engine lies beside the ONNX file that it was made of and never takes its place: `model.plan`
beside `model.onnx`, `step.plan` beside `step.onnx`. Its record says what made it and for which
device, the digests of both files, and what was found when it was held against PyTorch.
`engine_gate` decides by it.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sensorium.errors import ConfigurationError
from sensorium_server.atomic_file import write_text

ENGINES_SUFFIX = ".engines.json"

Ranges = Mapping[str, tuple[int, int, int]]
"""The least, the usual and the greatest number for every dynamic axis of the contract."""


@dataclass(frozen=True, slots=True)
class Target:
    """The device that an engine runs on.

    `compute_capability` is that of a GPU, as in "9.0", and empty for a processor; `driver` is empty
    where there is none.
    """

    device: str
    compute_capability: str = ""
    driver: str = ""


@dataclass(frozen=True, slots=True)
class EngineParity:
    """How an engine compared with its reference, over all corners of all profiles.

    `reference` is `pytorch`, or `onnx` where the ONNX file stood for it, which is proven itself.
    `cosine` is the least of any output, `max_rel` the largest difference relative to the output's
    largest value; `failures` says what was over the tolerance, at most three of them.
    """

    passed: bool
    reference: str
    cases: int
    cosine: float
    max_rel: float
    failures: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class EngineRecord:
    """One engine.

    `graph` is what reports call it (`text_decoder/step`), `file` its path in the repository,
    `digest` that file's digest and `onnx` those of the files that it was made of, by path.
    `compatibility` widens what `target` and `version` allow: see `engine_gate`. A `stripped` engine
    has no weights of its own: it is refitted from its ONNX file when it is loaded. `kept` are the
    nodes that stay in fp32 because the precision failed with them; `cost` is how much slower they
    make the usual batch, as a factor. `parity` is None for an engine that has not been run.
    """

    graph: str
    file: str
    digest: str
    onnx: Mapping[str, str]
    product: str
    version: str
    target: Target
    compatibility: tuple[str, ...]
    precision: str
    stripped: bool
    profiles: tuple[Ranges, ...]
    kept: tuple[str, ...]
    cost: float
    build_s: float
    command: str
    parity: EngineParity | None = None


def engines_path(repository: Path, bundle: str) -> Path:
    """Return where the records of a bundle's engines lie."""
    return repository / f"{bundle}{ENGINES_SUFFIX}"


def read_records(repository: Path, bundle: str) -> tuple[EngineRecord, ...]:
    """Read the records of a bundle's engines; none where nothing was compiled.

    Raises:
        ConfigurationError: The file cannot be read.
    """
    path = engines_path(repository, bundle)
    if not path.is_file():
        return ()
    try:
        values = json.loads(path.read_text(encoding="utf-8"))["engines"]
        return tuple(_record_from(value) for value in values)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigurationError(
            f"{path.name} cannot be read ({error!r}). Remove it, and compile the bundle again."
        ) from error


def write_records(repository: Path, bundle: str, records: Iterable[EngineRecord]) -> None:
    """Write the records of a bundle's engines, whole or not at all."""
    ordered = sorted(records, key=lambda record: record.file)
    values = {"bundle": bundle, "engines": [asdict(record) for record in ordered]}
    text = json.dumps(values, indent=2, ensure_ascii=False) + "\n"
    write_text(engines_path(repository, bundle), text)


def _record_from(value: Mapping[str, Any]) -> EngineRecord:
    parity = value["parity"]
    changed = {
        "target": Target(**value["target"]),
        "profiles": tuple(
            {axis: _range(numbers) for axis, numbers in one.items()} for one in value["profiles"]
        ),
        "kept": tuple(value["kept"]),
        "compatibility": tuple(value["compatibility"]),
        "parity": None
        if parity is None
        else EngineParity(**{**parity, "failures": tuple(parity["failures"])}),
    }
    return EngineRecord(**{**value, **changed})


def _range(numbers: Iterable[int]) -> tuple[int, int, int]:
    least, usual, greatest = numbers
    return least, usual, greatest
