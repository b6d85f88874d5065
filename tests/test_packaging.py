"""The wheel: what it carries, and that the light install really is light."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """Build the wheel with the tools at hand."""
    out = tmp_path_factory.mktemp("dist")
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", str(out)]
    subprocess.run([sys.executable, "-m", "pip", "wheel", *options, "."], cwd=ROOT, check=True)
    return zipfile.ZipFile(next(out.glob("*.whl")))


def test_wheel_holds_the_four_packages_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    """No test, benchmark or checkpoint slips into the wheel."""
    top = {name.split("/")[0] for name in wheel.namelist() if ".dist-info/" not in name}

    assert top == {"sensorium", "sensorium_server", "sensorium_export", "sensorium_training"}


@pytest.mark.parametrize(
    "name",
    [
        "sensorium/py.typed",
        "sensorium_server/profiles/cpu.toml",
        "sensorium_server/backends/onnxruntime/model.py",
        "sensorium_server/backends/tensorrt/model.py",
        "sensorium_server/backends/decoder/model.py",
        "sensorium_export/tolerance.toml",
    ],
)
def test_wheel_holds_the_files_that_are_not_python(wheel: zipfile.ZipFile, name: str) -> None:
    """Profiles, tolerances and the backends that Triton loads travel with the code."""
    assert name in wheel.namelist()


def test_plain_install_asks_for_nothing_heavy(wheel: zipfile.ZipFile) -> None:
    """Without extras neither a server nor a framework is required."""
    metadata = next(name for name in wheel.namelist() if name.endswith("METADATA"))
    lines = wheel.read(metadata).decode().splitlines()
    plain = {
        line.removeprefix("Requires-Dist: ").split(">")[0].split("[")[0]
        for line in lines
        if line.startswith("Requires-Dist: ") and "extra ==" not in line
    }

    assert plain == {"aiohttp", "grpcio", "numpy", "rich", "tritonclient", "typer"}
