"""What a device can do at best, measured: the rate of matrix products, and of copies."""

import time
from collections.abc import Callable, Mapping
from typing import Any

import torch

SIDES = {"cpu": 1024, "cuda": 8192}
COPIED_BYTES = {"cpu": 2**27, "cuda": 2**31}
_REPEATS = 5


def roofline(device: str, dtypes: Mapping[str, torch.dtype]) -> dict[str, Any]:
    """Measure a device.

    Args:
        device: `cpu` or `cuda`.
        dtypes: The precisions to multiply in, by name.

    Returns:
        `flops` per second by precision and `bytes_per_s`, read and written, each the best of five.
    """
    side = SIDES[device]
    rates = {}
    for name, dtype in dtypes.items():
        one, other = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
        seconds = _best(lambda one=one, other=other: one @ other, device)  # type: ignore[misc]
        rates[name] = 2 * side**3 / seconds
    source = torch.zeros(COPIED_BYTES[device] // 4, device=device)
    target = torch.empty_like(source)
    seconds = _best(lambda: target.copy_(source), device)
    return {"flops": rates, "bytes_per_s": 2 * COPIED_BYTES[device] / seconds}


def _best(work: Callable[[], object], device: str) -> float:
    """Return the least time of a few, seconds; the first one is not counted."""
    times = []
    for _ in range(_REPEATS + 1):
        begin = time.perf_counter()
        work()
        if device == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - begin)
    return min(times[1:])


def least_ms(flops: float, moved: float, rate: float, bytes_per_s: float) -> float:
    """Return the time below which no engine can be: of its products, or of what it must move."""
    return 1e3 * max(flops / rate, moved / bytes_per_s)
