from typing import Any

import pytest

from harness.probe import PHASES
from harness.report import markdown, tables, verdicts
from harness.summary import summary_of


def _raw(rate: float, ms: float) -> dict[str, Any]:
    return {"rate": rate, "latencies_ms": [ms] * 3, "stages_ms": {"image_encoder": ms}}


def _served(rate: float, ms: float) -> dict[str, Any]:
    return {
        "rate": rate,
        "latencies_ms": [ms] * 3,
        "opened": 10.0,
        "closed": 12.0,
        "client_cpu_s": 0.2,
        "server_cpu_s": {"tritonserver": 0.4, "image_encoder": 1.4},
        "stages": {
            model: {**dict.fromkeys(PHASES, 1.0), "batch": 2.0}
            for model in ("image_encoder", "image_embedding")
        },
    }


@pytest.fixture
def results() -> dict[str, Any]:
    """A run of two rounds, in the second of which the machine was half as fast."""
    samples = {
        "raw": [_raw(100, 10), _raw(50, 20)],
        "raw_with_preprocessing": [_raw(80, 10), _raw(40, 20)],
        "all_cores_with_preprocessing": [_raw(160, 10), _raw(80, 20)],
        "in_process": [_raw(90, 11), _raw(45, 22)],
        "served_1": [_served(70, 13), _served(35, 25)],
        "served_16": [_served(90, 160), _served(45, 320)],
    }
    task = {
        "threads": 1,
        "instances": 1,
        "raw_batch": 8,
        "raw_rate_by_batch": {1: 90.0, 8: 100.0},
        "samples": samples,
    }
    bundle = {
        "name": "vit-b-32",
        "weights": "random",
        "triton": "2.51.0",
        "startup_s": [3.0, 4.0],
        "memory_mib": {
            when: {
                "tritonserver": {"rss": 50.0, "pss": 40.0},
                "image_encoder": {"rss": 500.0, "pss": 450.0},
            }
            for when in ("ready", "after_load")
        },
        "tasks": {"image_embedding": task},
    }
    return {
        "command": "python benchmarks/serving_efficiency.py",
        "machine": {"processor": "a processor", "cores": 2, "memory_gib": 8.0},
        "versions": {"triton": "2.51.0", "onnxruntime": "1.32.0", "python": "3.11.0"},
        "plan": {"rounds": 2, "seconds": 2.0},
        "bundles": [summary_of(bundle, cores=2)],
    }


def test_ratios_compare_within_a_round(results: dict[str, Any]) -> None:
    """A machine that slows down slows both sides: the ratio of each round stays."""
    task = results["bundles"][0]["tasks"]["image_embedding"]

    assert task["saturation"] == 16
    assert task["ratio"]["raw"] == {"median": 0.9, "min": 0.9, "max": 0.9}
    assert task["ratio"]["all_cores_with_preprocessing"]["median"] == pytest.approx(0.562, abs=1e-3)


def test_added_time_is_served_minus_in_process(results: dict[str, Any]) -> None:
    """What serving adds is the difference of the medians of each round."""
    task = results["bundles"][0]["tasks"]["image_embedding"]

    assert task["added_ms"] == {"median": 2.5, "min": 2.0, "max": 3.0}


def test_processor_time_is_shared_out_by_process(results: dict[str, Any]) -> None:
    """Processor time is told per picture of each process, and as a share of all cores."""
    served = results["bundles"][0]["tasks"]["image_embedding"]["served"]["16"]

    assert served["client_cpu_share"] == pytest.approx(0.05)
    assert served["server_cpu_share"] == pytest.approx(0.45)
    assert served["cpu_ms_per_item"]["image_encoder"] == pytest.approx(2.8 / 270 * 1e3, abs=1e-3)


def test_memory_is_added_up(results: dict[str, Any]) -> None:
    """The server's memory is that of all its processes."""
    assert results["bundles"][0]["memory_mib"]["ready"]["total"] == {"rss": 550.0, "pss": 490.0}


def test_each_aim_has_its_verdict(results: dict[str, Any]) -> None:
    """The report says which aim was met, with the figure."""
    ratio, added = verdicts(results)

    assert ratio == (
        "ViT-B/32 size image_embedding: 0.90 of raw throughput; the aim of at least 0.85 is met."
    )
    assert added == (
        "ViT-B/32 size image_embedding: 2.50 ms added at concurrency 1; "
        "the aim of at most 3 is met."
    )


def test_tables_are_whole(results: dict[str, Any]) -> None:
    """Every row has a cell for every column, in Markdown as on a terminal."""
    for table in tables(results):
        assert {len(row) for row in table.rows} == {len(table.columns)}
        assert table.for_terminal().row_count == len(table.rows)
        assert f"**{table.title}**" in markdown(results)
