"""The benchmark of precisions runs, on a small checkpoint."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from sensorium_server.openvino_graph import computes_bf16

pytestmark = pytest.mark.triton

SCRIPT = Path(__file__).parents[2] / "benchmarks/precision.py"


def test_every_way_is_measured_and_proven(tmp_path: Path) -> None:
    """The JSON has a ratio for each precision and the library, and the proof of each precision."""
    output = tmp_path / "precision.json"
    options = ["--case", "tiny", "--rounds", "1", "--seconds", "0.3", "--count", "4"]

    subprocess.run([sys.executable, SCRIPT, *options, "--output", output], check=True)

    tiny = json.loads(output.read_text())["cases"]["tiny"]
    assert tiny["ways"].keys() | tiny["left_out"].keys() == {"fp32", "bf16", "int8", "transformers"}
    assert ("bf16" in tiny["left_out"]) == (not computes_bf16())
    assert all(one["rate_over_fp32"]["median"] > 0 for one in tiny["ways"].values())
    assert tiny["proofs"]["fp32"]["equal"] == tiny["proofs"]["fp32"]["inputs"]
    assert tiny["proofs"]["int8"]["min_cosine"] < 1
