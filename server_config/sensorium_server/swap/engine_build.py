"""Building engines in a child process: `sensorium compile`, at the lowest priority.

The server imports neither PyTorch nor a compiler. The child has both, or says what to install. It
dies with the thread that waits for it, so a server that is killed leaves no builder behind.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from sensorium.errors import ConfigurationError
from sensorium_server.engine_record import read_records
from sensorium_server.manifest import SUFFIX
from sensorium_server.process import die_with_parent
from sensorium_server.swap.engine_cache import EngineCache

_LOWEST_PRIORITY = 19
_POLL_S = 0.2
_WAIT_FOR_OTHER_S = 2.0
_KILL_AFTER_S = 5.0
_SHOWN_LINES = 3
_MAIN = "from sensorium.cli import main; main()"

Command = Callable[[Path, str, str], Sequence[str]]
"""From a repository, the name of a bundle's manifest and a profile to what builds its engines."""


def compile_command(
    repository: Path, bundle: str, profile: str, *, checkpoint: Path | None = None
) -> list[str]:
    """Return the command line that builds a bundle's engines into a repository.

    Args:
        repository: Where the bundle is published.
        bundle: The name of its manifest.
        profile: What to build for.
        checkpoint: What engines are compared with: a checkpoint, or a directory that has one by the
            bundle's name. Without it a search compares with what was exported, and other profiles
            with the default checkpoint.
    """
    options = ["--repository", str(repository), "--profile", profile]
    if checkpoint is not None:
        own = checkpoint / bundle
        options.insert(0, str(own if own.is_dir() else checkpoint))
    if prefix := _prefix(repository, bundle):
        options += ["--bundle", prefix]
    search = ["--search"] if profile == "cpu" else []
    return [sys.executable, "-c", _MAIN, "compile", *options, *search, "--json"]


def _prefix(repository: Path, bundle: str) -> str:
    """Return the name that a bundle's models share; empty for plain names."""
    text = (repository / f"{bundle}{SUFFIX}").read_text(encoding="utf-8")
    return Path(next(iter(json.loads(text)["files"]))).parts[0].rpartition(".")[0]


class EngineBuild:
    """Builds entries of a cache, one after the other; `cancel` ends the one that runs."""

    def __init__(self, cache: EngineCache, command: Command = compile_command) -> None:
        self._cache, self._command = cache, command
        self._cancelled = threading.Event()

    def entry(self, key: str, repository: Path, bundle: str, profile: str) -> Path | None:
        """Return the entry of a cache, built if it is missing; None when it was cancelled.

        While another server builds the same entry, wait for that one.

        Raises:
            ConfigurationError: It could not be built; the message ends with the builder's words.
        """
        while not self._cancelled.is_set():
            with self._cache.building(key, repository) as work:
                # Whoever had the lock may have finished just now.
                found = self._cache.entry(key)
                if found is not None:
                    return found
                if work is not None:
                    done = self._built(work, bundle, profile)
                    return self._cache.keep(key, work, bundle) if done else None
            self._cancelled.wait(_WAIT_FOR_OTHER_S)
        return None

    def cancel(self) -> None:
        """End what runs, and build nothing more."""
        self._cancelled.set()

    def _built(self, work: Path, bundle: str, profile: str) -> bool:
        """Build; a graph that has no engine in the end does not cost the others theirs."""
        try:
            return self._run(self._command(work, bundle, profile))
        except ConfigurationError:
            if not read_records(work, bundle):
                raise
            return True

    def _run(self, command: Sequence[str]) -> bool:
        """Run the builder to its end; False when it was cancelled."""
        with tempfile.TemporaryFile() as told:
            process = subprocess.Popen(  # noqa: S603 - our own command
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=told,
                start_new_session=True,
                preexec_fn=_lowest_priority,  # noqa: PLW1509 - two system calls, no lock
            )
            try:
                while process.poll() is None:
                    if self._cancelled.wait(_POLL_S):
                        return False
            finally:
                _end(process)
            if process.returncode == 0:
                return True
            told.seek(0)
            raise ConfigurationError(_reason(process.returncode, told.read()))


def _lowest_priority() -> None:
    os.nice(_LOWEST_PRIORITY)
    die_with_parent()


def _end(process: "subprocess.Popen[bytes]") -> None:
    """Make sure that a builder and all that it started are gone."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(_KILL_AFTER_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _reason(code: int, told: bytes) -> str:
    lines = [line for line in told.decode(errors="replace").splitlines() if line.strip()]
    words = "; ".join(line.strip() for line in lines[-_SHOWN_LINES:])
    ended = f"was killed by signal {-code}" if code < 0 else f"ended with code {code}"
    return f"the builder {ended}: {words}" if words else f"the builder {ended}"
