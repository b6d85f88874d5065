"""What holds for all tests: one thread each, no clock for Hypothesis, and one exported bundle."""

import os

# Read when torch is imported, which is later. Threads of two workers that wait for each other by
# spinning cost four times the processor time.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import json
import pickle
import subprocess
from pathlib import Path

import pytest
from filelock import FileLock
from hypothesis import HealthCheck, settings

from sensorium_export.bundle import ExportedBundle, export_bundle
from sensorium_export.testing import toy_checkpoint

settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let files that take long begin first, so that no worker waits for the other at the end."""
    long = {
        item.path
        for item in items
        if item.get_closest_marker("slow") or item.get_closest_marker("triton")
    }
    items.sort(key=lambda item: item.path not in long)


@pytest.fixture(scope="session")
def toy_bundle(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ExportedBundle]:
    """A checkpoint with random weights and every part, and what it was exported to.

    It takes a minute, and is done once for all workers: write into neither. It is as tolerant as
    the default bundle: sums of its shortest sounds differ by 1.02e-5 on some processors.
    """
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    checkpoint, told = folder / "shared" / "toy", folder / "shared" / "exported.pickle"
    checkpoint.parent.mkdir(exist_ok=True)
    with FileLock(folder / "shared.lock"):
        if not told.exists():
            toy_checkpoint(checkpoint)
            config = json.loads((checkpoint / "config.json").read_text())
            config["parity"] = {"stage": 1e-4}
            (checkpoint / "config.json").write_text(json.dumps(config))
            exported = export_bundle(checkpoint, folder / "shared" / "repository")
            told.write_bytes(pickle.dumps(exported))
    bundle: ExportedBundle = pickle.loads(told.read_bytes())
    return checkpoint, bundle


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make an authority, and certificates for the server `triton.test` and for a client."""
    folder = tmp_path_factory.mktemp("certificates")

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], check=True, capture_output=True, cwd=folder)

    new = ("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    openssl(*new, "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=authority", "-days", "2")
    for name, host in (("server", "triton.test"), ("client", "client.test")):
        signed = ("-CA", "ca.pem", "-CAkey", "ca.key", "-addext", f"subjectAltName=DNS:{host}")
        files = ("-keyout", f"{name}.key", "-out", f"{name}.pem", "-subj", f"/CN={host}")
        openssl(*new, *signed, *files, "-days", "2")
    return folder
