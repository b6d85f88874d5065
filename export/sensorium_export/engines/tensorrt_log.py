"""What a TensorRT builder says while it builds: errors are kept, progress is passed on."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sensorium_export.engines import Progress


class BuildLog:
    """Keeps a builder's errors; warnings are about what is measured anyway."""

    def __init__(self, api: Any) -> None:  # noqa: ANN401 - a module that is there or not
        errors: list[str] = []

        class Logger(api.ILogger):  # type: ignore[misc]
            def __init__(self) -> None:
                api.ILogger.__init__(self)

            def log(self, severity: Any, message: str) -> None:  # noqa: ANN401
                if severity <= api.ILogger.ERROR and message not in errors:
                    errors.append(message)

        self.errors = errors
        self.logger = Logger()


def monitor_for(api: Any, progress: Progress) -> Any:  # noqa: ANN401
    """Return the builder's progress monitor; what `progress` raises ends the build."""

    class Monitor(api.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            api.IProgressMonitor.__init__(self)
            self._steps: dict[str, int] = {}
            self._stopped_by: BaseException | None = None

        def phase_start(self, phase_name: str, _parent: str | None, num_steps: int) -> None:
            self._steps[phase_name] = num_steps
            self._tell(phase_name, 0)

        def step_complete(self, phase_name: str, step: int) -> bool:
            self._tell(phase_name, step + 1)
            return self._stopped_by is None

        def phase_finish(self, phase_name: str) -> None:
            self._tell(phase_name, self._steps.pop(phase_name, 0))

        def raise_what_stopped_it(self) -> None:
            if self._stopped_by is not None:
                raise self._stopped_by

        def _tell(self, phase: str, done: int) -> None:
            if self._stopped_by is not None:
                return
            try:
                progress(phase, done, self._steps.get(phase, done))
            except BaseException as error:  # noqa: BLE001 - none may pass through the builder
                self._stopped_by = error

    return Monitor()


@contextmanager
def talk_on_stderr() -> Iterator[None]:
    """Send to stderr what the libraries write to stdout, which is for data."""
    sys.stdout.flush()
    kept = os.dup(1)
    try:
        os.dup2(2, 1)
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)
