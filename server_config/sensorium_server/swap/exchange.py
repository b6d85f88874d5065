"""One version of a model for another, while the server serves; and back."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from sensorium.errors import SensoriumError, ServerError
from sensorium_server.engine_record import EngineRecord
from sensorium_server.swap.engine_cache import EngineCache
from sensorium_server.swap.engine_config import engine_config
from sensorium_server.swap.model_control import ModelControl
from sensorium_server.swap.serving_copy import PORTABLE, ServingCopy

_ONNX = ".onnx"


@dataclass(frozen=True, slots=True)
class Exchange:
    """Changes versions in a serving copy, and tells Triton when it runs."""

    copy: ServingCopy
    cache: EngineCache
    log: Callable[[str], None]

    def stage(self, model: str, records: Sequence[EngineRecord], named_config: str) -> None:
        """Make a version of a model with engines, and let its config name it."""
        engines = {_served_name(record): self.copy.repository / record.file for record in records}
        config = engine_config(self.copy.portable_config(model), named_config, records)
        number = self.copy.add_version(model, engines, config)
        self.copy.note(model, number, {"digests": [record.digest for record in records]})
        self.copy.point_to(model, number)

    def swap_in(
        self,
        control: ModelControl,
        model: str,
        records: Sequence[EngineRecord],
        named_config: str,
    ) -> bool:
        """Serve a model by engines; when Triton cannot load them, what served before serves on."""
        with self.copy.locked():
            before = self.copy.active(model)
            self.stage(model, records, named_config)
            try:
                control.load(model)
            except ServerError as error:
                self._refuse(model, self.copy.active(model), str(error))
                self.copy.point_to(model, before)
                self.log(f"{model}: {_what(records)} cannot be loaded, ONNX serves on: {error}")
                return False
            except SensoriumError:
                self.copy.point_to(model, before)
                raise
        self.log(f"{model}: {_what(records)} serves now")
        return True

    def roll_back(self, model: str, reason: str, control: ModelControl | None = None) -> bool:
        """Serve a model as it was exported again; False when it is.

        The engine is refused from now on, by every server that shares the cache. Without `control`
        Triton is not told, and reads it when it starts.
        """
        with self.copy.locked():
            version = self.copy.active(model)
            if version == PORTABLE:
                return False
            self.copy.point_to(model, PORTABLE)
            self._refuse(model, version, reason)
            if control is not None:
                control.load(model)
        self.log(f"{model}: rolled back to the exported version: {reason}")
        return True

    def swapped(self) -> list[str]:
        """Return the models that engines serve now."""
        models = sorted(path.parent.name for path in self.copy.repository.glob("*/config.pbtxt"))
        return [model for model in models if self.copy.active(model) != PORTABLE]

    def _refuse(self, model: str, version: int, reason: str) -> None:
        for digest in self.copy.noted(model, version).get("digests", ()):
            self.cache.refuse(digest, f"{model}: {reason}")


def _served_name(record: EngineRecord) -> str:
    """Return what an engine is called in its version: ONNX takes the place of what it was."""
    file, source = Path(record.file), Path(next(iter(record.onnx)))
    return source.name if file.suffix == _ONNX else file.name


def _what(records: Sequence[EngineRecord]) -> str:
    kinds = sorted({f"{record.precision} by {record.product}" for record in records})
    return f"the engine ({', '.join(kinds)})"
