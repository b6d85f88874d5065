"""The training journal: one JSON line for each report, and the learning curve drawn from it."""

import json
import time
from pathlib import Path


class Journal:
    """Appends reports to a file; `core_minutes` is the CPU time of all workers together."""

    def __init__(self, path: Path, stage: str, workers: int) -> None:
        self.path = path
        self.stage = stage
        self.workers = workers
        path.parent.mkdir(parents=True, exist_ok=True)

    def report(self, step: int, **values: float) -> None:
        """Write one line."""
        minutes = time.process_time() * self.workers / 60
        line = {"stage": self.stage, "step": step, "core_minutes": round(minutes, 2), **values}
        with self.path.open("a") as file:
            file.write(json.dumps(line) + "\n")


def read(path: Path) -> list[dict[str, float | str]]:
    """Return all reports in `path`, oldest first."""
    return [json.loads(line) for line in path.read_text().splitlines()]
