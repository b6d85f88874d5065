"""Which engines of a bundle a server on this machine serves, and how precise they are."""

from pathlib import Path

from sensorium.errors import ConfigurationError
from sensorium_export.tolerance import BF16, FP8, FP16, FP32, INT8, TF32
from sensorium_server.engine_gate import Refusal, reasons_against
from sensorium_server.engine_record import read_records
from sensorium_server.swap.device import runtime_of

_ORDER = (FP32, TF32, FP16, BF16, FP8, INT8)
"""From the closest to PyTorch to the furthest."""


def engine_precisions(repository: Path, bundle: str) -> dict[str, str]:
    """Return the precision of each stage that an engine serves otherwise than in fp32.

    Of a stage with several graphs it is the furthest one.

    Raises:
        ConfigurationError: There is no engine, or some may not serve here; all are named.
    """
    records = read_records(repository, bundle)
    if not records:
        raise ConfigurationError(
            f"{bundle} has no engines in {repository}. Build them: "
            f"sensorium compile CHECKPOINT --repository {repository}"
        )
    refused = [
        str(Refusal(record, "; ".join(reasons)))
        for record in records
        if (reasons := reasons_against(record, repository, runtime_of(record.product)))
    ]
    if refused:
        raise ConfigurationError("\n".join(refused))
    found: dict[str, str] = {}
    for record in records:
        stage, precision = record.graph.partition("/")[0], record.precision.partition("_")[0]
        found[stage] = max(found.get(stage, FP32), precision, key=_ORDER.index)
    return {stage: precision for stage, precision in found.items() if precision != FP32}
