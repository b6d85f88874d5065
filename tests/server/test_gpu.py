"""The GPU as its driver names it, where CUDA's bindings are not installed."""

import sys
from pathlib import Path

import pytest

from sensorium_server.engine_record import Target
from sensorium_server.gpu import this_gpu


@pytest.fixture(autouse=True)
def _without_bindings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide them where they are."""
    monkeypatch.setitem(sys.modules, "cuda.bindings", None)


def driver_that(says: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a tool of that name, and no other, where commands are found."""
    tool = folder / "nvidia-smi"
    tool.write_text(f"#!/bin/sh\n{says}\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))


def test_first_gpu_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Name, compute capability and driver are those of the first line."""
    driver_that(
        "echo 'NVIDIA L4, 8.9, 580.65.06'; echo 'NVIDIA T4, 7.5, 580.65.06'", tmp_path, monkeypatch
    )

    assert this_gpu() == Target("NVIDIA L4", "8.9", "580.65.06")


@pytest.mark.parametrize("says", ["exit 9", "echo 'No devices were found'", "true"])
def test_driver_without_gpu_is_none(
    says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tool that fails, or says something else, has no GPU to name."""
    driver_that(says, tmp_path, monkeypatch)

    assert this_gpu() is None


def test_machine_without_driver_has_no_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No tool, no GPU."""
    monkeypatch.setenv("PATH", str(tmp_path))

    assert this_gpu() is None
