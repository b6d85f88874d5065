"""A server's engines, from before its start to its end: found, built, swapped in, taken back.

Nothing here keeps the server from being ready: what the cache holds is there when Triton starts,
all else is built and swapped in while it serves. An engine is taken back when it cannot be loaded,
when an answer of it fails or is no number, when its process dies, and when Triton dies soon after
it came.
"""

import queue
import re
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from sensorium.errors import ConfigurationError, SensoriumError
from sensorium_server.placement import NATIVE_VARIANT
from sensorium_server.recorder import fault_of
from sensorium_server.settings import Settings
from sensorium_server.swap.engine_build import Command, EngineBuild, compile_command
from sensorium_server.swap.engine_cache import EngineCache
from sensorium_server.swap.exchange import Exchange
from sensorium_server.swap.model_control import ModelControl, flags, new_secret
from sensorium_server.swap.selection import (
    Engines,
    bundles_of,
    named_config,
    selected_engines,
)
from sensorium_server.swap.serving_copy import PORTABLE, ServingCopy

AUTO, OFF = "auto", "off"
PROBATION_S = 60.0
"""How long after it came an engine is to blame for Triton's death."""

_DEAD_STUB = re.compile(r"Stub process '(.+)_\d+_\d+' is not healthy")
_NAMED_MODEL = re.compile(r"^model (\S+): (.*)$", re.MULTILINE)

Log = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class _Missing:
    """A bundle whose engines are yet to be built."""

    bundle: str
    key: str


class Rollout:
    """The engines of one server; `prepare`, `begin` and `stop` are called in this order."""

    def __init__(self, settings: Settings, log: Log, command: Command | None = None) -> None:
        self._settings, self._log = settings, log
        self._secret = new_secret()
        self.cache = EngineCache(cache_root(settings))
        usual = partial(compile_command, checkpoint=settings.engine_checkpoint)
        self._build = EngineBuild(self.cache, command or usual)
        self._variant = settings.model_config_name or NATIVE_VARIANT
        self._copy = ServingCopy.made_of(
            settings.repository, settings.cache_dir, settings.model_config_name
        )
        self._exchange = Exchange(self._copy, self.cache, log)
        self._missing: list[_Missing] = []
        self._control: ModelControl | None = None
        self._came: dict[str, float] = {}
        self._events: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []

    @property
    def flags(self) -> list[str]:
        """What `tritonserver` is told besides."""
        return list(flags(self._secret))

    @property
    def repository(self) -> Path:
        """What Triton serves."""
        return self._copy.repository

    def prepare(self) -> None:
        """Let the engines that are there serve from the start; remember what is to be built."""
        for bundle in bundles_of(self.repository):
            key = self.cache.key(self.repository, bundle, self._settings.engine_profile)
            entry = self.cache.entry(key)
            engines = self._selected(bundle, self.repository)
            if not engines and entry is not None:
                engines = self._selected(bundle, entry)
            for model, records in engines.items():
                self._exchange.stage(model, records, self._named_config(model))
                self._came[model] = time.monotonic()
            if not engines and entry is None:
                self._missing.append(_Missing(bundle, key))

    def begin(self, address: str) -> None:
        """Start to build and to swap; Triton is ready at this address."""
        self._control = ModelControl(address, self._secret)
        self._copy.tell(
            {
                **asdict(self._control),
                "repository": str(self._settings.repository.absolute()),
                "cache": str(self.cache.root),
            }
        )
        if not self._threads:
            self._threads = [
                threading.Thread(target=self._exchange_all, name="engine-swap"),
                threading.Thread(target=self._build_all, name="engine-build"),
            ]
            for thread in self._threads:
                thread.start()

    def heed(self, line: str) -> None:
        """Look at a line of Triton's log for an engine that fails."""
        fault = fault_of(line)
        dead = None if fault else _DEAD_STUB.search(line)
        if fault and fault[1] != PORTABLE:
            self._events.put(partial(self._take_back, *fault))
        elif dead:
            self._events.put(partial(self._take_back, dead[1], None, "its process died"))

    def recover(self, message: str) -> bool:
        """Take back the engines that a failed start blames, or all; False when there are none."""
        swapped = self._exchange.swapped()
        blamed = {name: why for name, why in _NAMED_MODEL.findall(message) if name in swapped}
        if not blamed:
            blamed = dict.fromkeys(swapped, "Triton did not start with it")
        taken_back = [self._exchange.roll_back(name, why) for name, why in blamed.items()]
        return any(taken_back)

    def survive_crash(self) -> None:
        """Take back the engines that came shortly before Triton died."""
        now = time.monotonic()
        for model, came in self._came.items():
            if now - came < PROBATION_S:
                self._exchange.roll_back(model, "Triton died shortly after it came")

    def cancel(self) -> None:
        """Build no more; safe in a signal handler."""
        self._build.cancel()

    def stop(self) -> None:
        """End the builder and the threads, and remove the copy."""
        self.cancel()
        self._events.put(None)
        for thread in self._threads:
            thread.join()
        self._copy.close()

    def _build_all(self) -> None:
        for missing in self._missing:
            try:
                self._log(f"{missing.bundle}: building engines in the background")
                entry = self._build.entry(
                    missing.key, self._settings.repository, missing.bundle,
                    self._settings.engine_profile,
                )  # fmt: skip
            except ConfigurationError as error:
                self._log(f"{missing.bundle}: no engines, ONNX Runtime serves on. {error}")
            else:
                if entry is not None:
                    self._events.put(partial(self._use, missing.bundle, entry))

    def _exchange_all(self) -> None:
        while (event := self._events.get()) is not None:
            try:
                event()
            except SensoriumError as error:
                self._log(f"engines: {error}")

    def _use(self, bundle: str, entry: Path) -> None:
        engines = self._selected(bundle, entry)
        came = 0
        for model, records in engines.items():
            if self._exchange.swap_in(self._running(), model, records, self._named_config(model)):
                self._came[model] = time.monotonic()
                came += 1
        self._log(f"{bundle}: {came} of {len(engines)} models have engines")

    def _take_back(self, model: str, version: int | None, reason: str) -> None:
        """Roll back, unless that version was taken back meanwhile."""
        if version in {None, self._copy.active(model)}:
            self._exchange.roll_back(model, reason, self._running())

    def _selected(self, bundle: str, source: Path) -> Engines:
        return selected_engines(
            self.repository,
            bundle,
            source,
            self.cache.refused(),
            self._log,
            variant=self._variant,
        )

    def _named_config(self, model: str) -> str:
        return named_config(self.repository, model, self._variant)

    def _running(self) -> ModelControl:
        if self._control is None:
            raise RuntimeError("the server was not started")
        return self._control


def cache_root(settings: Settings) -> Path:
    """Return where the engines of a server's settings are kept."""
    if settings.engines == AUTO:
        return settings.cache_dir.expanduser().absolute() / "engines"
    return Path(settings.engines).expanduser().absolute()
