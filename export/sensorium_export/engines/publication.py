"""Put an engine and its record into a repository, each whole or not at all."""

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path

from sensorium.errors import ConfigurationError
from sensorium_export.engines import GraphFile
from sensorium_export.publish import alone
from sensorium_server.atomic_file import write_bytes
from sensorium_server.engine_record import EngineRecord, read_records, write_records
from sensorium_server.manifest import digest

MakeRecord = Callable[[str, Mapping[str, str]], EngineRecord]
"""Makes the record of an engine's digest and those of the files that it was built from, by path."""


def publish_engine(
    repository: Path, bundle: str, graph: GraphFile, engine: bytes, record_of: MakeRecord
) -> EngineRecord:
    """Write an engine beside its ONNX file, and its record in the place of an earlier one.

    Between the two, the record is of another engine than the file, which the gate refuses: no
    engine is ever used by another one's proof.

    Raises:
        ConfigurationError: The bundle was exported anew meanwhile, or is being exported.
    """
    built_from = {path: _digest(data) for path, data in graph.files.items()}
    record = record_of(_digest(engine), built_from)
    with alone(repository):
        found = {
            path: digest(repository / path) for path in built_from if _is_there(repository, path)
        }
        if found != built_from:
            raise ConfigurationError(
                f"{graph.path} was exported anew while it was compiled. Compile it again."
            )
        others = [one for one in read_records(repository, bundle) if one.file != record.file]
        write_bytes(repository / record.file, engine)
        write_records(repository, bundle, [*others, record])
    return record


def _is_there(repository: Path, path: str) -> bool:
    return (repository / path).is_file()


def _digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"
