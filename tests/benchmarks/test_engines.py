"""The benchmark of engines runs on the processor, on a small network, with the same report."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from harness.engine_report import markdown
from harness.engine_way import OpenVino, PyTorch
from harness.roofline import least_ms
from sensorium.errors import ConfigurationError
from sensorium_server.gpu import found_gpus

SCRIPT = Path(__file__).parents[2] / "benchmarks/engines.py"
OPTIONS = ("--quick", "--no-serving", "--rounds", "1", "--seconds", "0.02")
WAYS = ("PyTorch eager fp32", "ONNX Runtime fp32", "ONNX Runtime int8")


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Run it; the ways that take long to get ready are left out."""
    output = tmp_path_factory.mktemp("engines") / "engines.json"
    ways = [word for way in WAYS for word in ("--way", way)]
    subprocess.run(
        [sys.executable, SCRIPT, "--device", "cpu", *OPTIONS, *ways, "--output", output], check=True
    )
    assert output.with_suffix(".png").stat().st_size > 0
    found: dict[str, Any] = json.loads(output.read_text())
    assert output.with_suffix(".md").read_text().rstrip() == markdown(found)
    return found


def test_every_way_is_measured_beside_the_baseline(results: dict[str, Any]) -> None:
    """Each batch has a time, a ratio and fractions of what was measured as possible, by way."""
    tiny = results["cases"]["tiny"]

    assert tiny["baseline"] == "PyTorch eager fp32"
    assert tiny["batches"].keys() == {"1", "4"}
    for ways in tiny["batches"].values():
        assert ways.keys() == set(WAYS)
        assert ways[tiny["baseline"]]["over_baseline"]["median"] == 1
        assert all(one["matrix_fraction"] > 0 for one in ways.values())
        assert all(one["roofline_fraction"] > 0 for one in ways.values())
    assert results["roofline"]["flops"]["fp32"] > 0
    assert tiny["gflops"] > 0


def test_page_says_where_and_what_was_left_out(results: dict[str, Any]) -> None:
    """The page has command, device and rates, a row for each way, and reasons."""
    case = results["cases"]["tiny"]
    told = {**case, "left_out": {"OpenVINO bf16": "this CPU does not compute bf16"}}
    told["serving"] = {
        "task": "image_embedding",
        "p50_ms": 4,
        "preprocess_ms": 1,
        "graph_ms": 2,
        "added_ms": 1,
    }

    page = markdown({**results, "cases": {"tiny": told}})

    assert page.startswith(f"`{results['command']}` on {results['device']}")
    assert page.count("| tiny |") == len(WAYS) * 2
    assert "- tiny, OpenVINO bf16: left out, this CPU does not compute bf16." in page
    assert "p50 4 ms, of which 1 are preprocessing and 2 the graph; 1 are added." in page


def test_without_a_gpu_it_says_so() -> None:
    """Asked for a GPU that is not there it ends with 1 and names the way out."""
    try:
        found_gpus()
    except ConfigurationError:
        pass
    else:
        pytest.skip("this machine has a GPU")

    ran = subprocess.run(
        [sys.executable, SCRIPT, "--quick"], capture_output=True, check=False, text=True
    )

    assert ran.returncode == 1
    assert "Measure the processor: --device cpu" in ran.stderr


def test_least_time_is_of_products_or_of_memory() -> None:
    """The roofline is the slower of the two: multiplying and moving."""
    assert least_ms(2e9, 1e6, 1e12, 1e9) == pytest.approx(2)
    assert least_ms(2e9, 1e7, 1e12, 1e9) == pytest.approx(10)


def test_ways_say_why_they_cannot_be_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a compiler torch.compile is left out, without its package OpenVINO."""
    monkeypatch.setattr("harness.engine_way.shutil.which", lambda _name: None)
    monkeypatch.setitem(sys.modules, "openvino", None)

    assert PyTorch("fp32", "cpu", "default").why_not() == "torch.compile needs a C++ compiler"
    assert PyTorch("fp32", "cpu").why_not() == ""
    assert OpenVino("fp32", 1).why_not() == "openvino is not installed"
