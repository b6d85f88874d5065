import json
import subprocess
import sys
from pathlib import Path

import pytest

from harness.report import markdown

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
SCRIPT = BENCHMARKS / "serving_efficiency.py"
RESULTS = BENCHMARKS / "results" / "serving_efficiency.json"


def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run the script as a user does."""
    return subprocess.run(
        [sys.executable, str(SCRIPT), *arguments], capture_output=True, check=False, text=True
    )


@pytest.mark.triton
@pytest.mark.slow
def test_a_quick_run_measures_the_real_thing(tmp_path: Path) -> None:
    """With a tiny model, a real server and real load, every figure comes out, and files with it."""
    output = tmp_path / "out"
    ran = run("--quick", "--json", "--output", str(output), "--cache", str(tmp_path / "cache"))
    assert ran.returncode == 0, ran.stderr
    results = json.loads(ran.stdout)
    tasks = results["bundles"][0]["tasks"]

    assert list(tasks) == ["image_embedding", "visual_question_answering"]
    for name, task in tasks.items():
        assert task["raw"]["median"] > 0
        assert task["ratio"]["raw"]["median"] > 0
        served = task["served"][str(task["saturation"])]
        assert served["rate"]["median"] > 0
        assert served["latency_ms"]["p99"] >= served["latency_ms"]["p50"] > 0
        first, *_, last = task["in_process_stages_ms"]
        assert first.endswith("_preprocess")
        assert served["cpu_ms_per_item"][last] > 0
        assert served["stages"][last]["batch"] >= 1
        assert served["stages"][name]["batch"] >= 1
    assert json.loads((output / "serving_efficiency.json").read_text()) == results
    assert (output / "serving_efficiency.png").read_bytes().startswith(b"\x89PNG")


def test_help_ends_with_an_example() -> None:
    """Whoever asks for help is shown a command to start from."""
    ran = run("--help")

    assert ran.returncode == 0
    assert "Example: python benchmarks/serving_efficiency.py" in " ".join(ran.stdout.split())


def test_an_unknown_bundle_is_a_misuse() -> None:
    """A wrong name is answered with the names there are."""
    ran = run("--bundle", "nothing")

    assert ran.returncode == 2
    assert "vit-b-32" in ran.stderr


@pytest.mark.skipif(not RESULTS.is_file(), reason="the benchmark has not been run here yet")
def test_the_page_shows_the_results() -> None:
    """README.md's tables are made of the JSON file beside it, not typed by hand."""
    page = (BENCHMARKS / "README.md").read_text(encoding="utf-8")

    assert markdown(json.loads(RESULTS.read_text())) in page
