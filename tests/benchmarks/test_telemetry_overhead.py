import json
from pathlib import Path

import pytest
from tests.e2e import picture
from tests.server import toy

import telemetry_overhead
from telemetry_overhead import Round, summary


def test_ratios_are_taken_within_rounds() -> None:
    """The ratio is that of servers that were measured one after the other, then the median."""
    measured = [Round(2, 5), Round(6, 5), Round(11, 7)]
    bare = [Round(1, 4), Round(5, 4), Round(10, 4)]

    figures = summary(measured, bare)

    assert figures["cpu_ratio"] == 1.2
    assert figures["cpu_ratio_range"] == [1.1, 2.0]
    assert figures["cpu_ms_with"] == 6
    assert figures["latency_p50_ms_without"] == 4


@pytest.mark.triton
def test_the_command_measures(tmp_path: Path) -> None:
    """The whole run on the toy repository gives a figure for each task, and writes its file."""
    file = tmp_path / "photo.png"
    file.write_bytes(picture.noise())
    options = ["--repository", str(toy.build(tmp_path / "toy")), "--picture", str(file)]

    found = telemetry_overhead.main(
        [*options, "--rounds", "1", "--requests", "4", "--output", str(tmp_path / "figures.json")]
    )

    assert list(found["tasks"]) == list(telemetry_overhead.TASKS)
    assert min(task["latency_p50_ms_with"] for task in found["tasks"].values()) > 0
    assert found["recorded_run_us"] > 0
    assert json.loads((tmp_path / "figures.json").read_text()) == found
