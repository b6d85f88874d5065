"""The search of engines for a processor runs as a benchmark, on a small checkpoint."""

import json
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "benchmarks/cpu_engines.py"


def test_every_candidate_has_an_outcome(tmp_path: Path) -> None:
    """The JSON has each network's candidates: their factors, or why there are none."""
    output = tmp_path / "found.json"
    options = ["--case", "tiny", "--count", "2", "--output", str(output)]

    subprocess.run([sys.executable, SCRIPT, *options], check=True, capture_output=True)

    results = json.loads(output.read_text())
    stages = results["cases"]["tiny"]["stages"]
    assert stages.keys() == {"image_encoder", "text_encoder"}
    for candidates in stages.values():
        assert len(candidates) == 6
        assert all(one.get("problem") or min(one["speed"].values()) > 0 for one in candidates)
    assert (tmp_path / "found_tiny.png").stat().st_size > 10_000


def test_unknown_case_is_a_misuse() -> None:
    """It is told with those that there are."""
    done = subprocess.run(
        [sys.executable, SCRIPT, "--case", "huge"], capture_output=True, check=False, text=True
    )

    assert done.returncode == 2
    assert "huge is none of playroom" in done.stderr.replace("\n", " ")
