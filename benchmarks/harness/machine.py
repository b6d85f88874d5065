"""Where and with what a benchmark ran, so that its numbers can be judged and repeated."""

import os
import platform
import shlex
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import psutil

_PACKAGES = ("sensorium", "nvidia-pytriton", "onnxruntime", "numpy", "grpcio", "tritonclient")
_GIB = 2**30


def command() -> str:
    """Return the command line, with the script's path from the root of the repository."""
    script = Path(sys.argv[0])
    return shlex.join(["python", f"{script.parent.name}/{script.name}", *sys.argv[1:]])


def machine() -> dict[str, object]:
    """Return the processor, its cores, the memory and the system."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count() or 1,
        "memory_gib": round(psutil.virtual_memory().total / _GIB, 1),
        "system": f"{platform.system()} {platform.release()}",
    }


def versions(triton: str, *more: str) -> dict[str, str]:
    """Return the versions of everything that takes part, and of more packages."""
    packages = {name: version(name) for name in (*_PACKAGES, *more)}
    return {"python": platform.python_version(), "triton": triton, **packages}


def commit() -> str:
    """Return the commit that was measured, marked when files differ from it."""
    found = _git("rev-parse", "HEAD")
    if not found:
        return "none"
    return found + ("-dirty" if _git("status", "--porcelain", "--untracked-files=no") else "")


def _git(*arguments: str) -> str:
    ran = subprocess.run(
        ["git", *arguments],  # noqa: S607 - whichever git there is
        cwd=Path(__file__).parent,
        capture_output=True,
        check=False,
        text=True,
    )
    return ran.stdout.strip() if ran.returncode == 0 else ""


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
