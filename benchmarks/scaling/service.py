"""How long a replica takes for a batch, as `serving_efficiency.py` has measured it."""

import json
from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Service:
    """One replica: seconds by batch size, its cores, and how many of them it uses when busy."""

    name: str
    batch_s: Mapping[int, float]
    busy_cores: float
    cores: int

    @property
    def max_batch(self) -> int:
        """The largest batch that was measured, and is taken."""
        return max(self.batch_s)

    @property
    def capacity(self) -> float:
        """The most requests per second that one replica answers."""
        return max(size / seconds for size, seconds in self.batch_s.items())

    def slower(self, times: int) -> "Service":
        """Return a replica with the same gain by batches that takes so many times as long."""
        batch_s = {size: times * seconds for size, seconds in self.batch_s.items()}
        return replace(self, name=f"{self.name}, {times} × slower", batch_s=batch_s)

    def table(self) -> list[float]:
        """Return the seconds of every batch size from 0, interpolated between those measured."""
        sizes = sorted(self.batch_s)
        found = [0.0]
        for size in range(1, self.max_batch + 1):
            above = sizes[bisect_left(sizes, size)]
            below = max((each for each in sizes if each < above), default=above)
            part = (size - below) / (above - below) if above > below else 1.0
            found.append(self.batch_s[below] + part * (self.batch_s[above] - self.batch_s[below]))
        return found


def measured(results: Path, bundle: str, task: str) -> Service:
    """Read a task's curve: raw seconds by batch, over the share of raw speed that is left served.

    Raises:
        KeyError: the results have no such bundle or task.
    """
    found = json.loads(results.read_text(encoding="utf-8"))
    bundles: dict[str, Any] = {each["name"]: each for each in found["bundles"]}
    figures = bundles[bundle]["tasks"][task]
    left = figures["ratio"]["raw"]["median"]
    cores = found["machine"]["cores"]
    saturated = figures["served"][str(figures["saturation"])]["server_cpu_share"]
    return Service(
        name=f"{bundle} {task}",
        batch_s={
            int(size): int(size) / rate / left
            for size, rate in figures["raw_rate_by_batch"].items()
        },
        busy_cores=saturated * cores,
        cores=cores,
    )
