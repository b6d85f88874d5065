"""The GPU of this machine, as its driver names it."""

import subprocess
from shutil import which

from sensorium_server.engine_record import Target

_QUERY = ("--query-gpu=name,compute_cap,driver_version", "--format=csv,noheader")
_TIMEOUT_S = 20


def this_gpu() -> Target | None:
    """Return the first GPU, asked of `nvidia-smi`; None where there is none, or no driver."""
    command = which("nvidia-smi")
    if command is None:
        return None
    try:
        done = subprocess.run(  # noqa: S603 - the driver's own tool
            [command, *_QUERY], capture_output=True, text=True, check=True, timeout=_TIMEOUT_S
        )
    except (OSError, subprocess.SubprocessError):
        return None
    lines = done.stdout.strip().splitlines()
    fields = [field.strip() for field in lines[0].split(",")] if lines else []
    return Target(*fields) if len(fields) == len(_QUERY[0].split(",")) else None
