"""Stages: pure functions from one request's tensors to its outputs.

A stage module offers `stage(config, settings)`, a factory that reads the model's parameters once
and returns the function. `sensorium_server.triton.as_model` makes a Triton model of the factory;
the exporter's parity proof and the tests call it directly.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from sensorium.errors import ConfigurationError
from sensorium_server.settings import Settings

Tensors = Mapping[str, NDArray[Any]]
"""One request's tensors by name; the first axis is the request's own batch."""

Stage = Callable[[Tensors], Tensors]
"""From one request's inputs to its outputs; raises `InvalidInputError` for a bad input."""


@dataclass(frozen=True, slots=True)
class StageConfig:
    """What a stage is told: its model's name, the version's directory, and the parameters.

    `parameters` is the block of the same name in the model's `config.pbtxt`.
    """

    name: str
    directory: Path
    parameters: Mapping[str, str] = field(default_factory=dict)

    def text(self, key: str, default: str | None = None) -> str:
        """Return a parameter's text, or the default when there is one."""
        value = self.parameters.get(key, default)
        if value is None:
            raise ConfigurationError(
                f'{self.name}/config.pbtxt lacks the parameter "{key}". '
                f"Export the bundle again, or add it to the file."
            )
        return value

    def integer(self, key: str, default: int | None = None) -> int:
        """Return a parameter as an integer."""
        value = self.text(key, None if default is None else str(default))
        try:
            return int(value)
        except ValueError:
            raise self._malformed(key, value, "an integer") from None

    def numbers(self, key: str, default: str | None = None) -> tuple[float, ...]:
        """Return a parameter written as numbers with commas between them."""
        value = self.text(key, default)
        try:
            return tuple(float(number) for number in value.split(","))
        except ValueError:
            raise self._malformed(key, value, "a list of numbers") from None

    def number(self, key: str, default: float | None = None) -> float:
        """Return a parameter as a number."""
        value = self.text(key, None if default is None else str(default))
        try:
            return float(value)
        except ValueError:
            raise self._malformed(key, value, "a number") from None

    def integers(self, key: str, default: str | None = None) -> tuple[int, ...]:
        """Return a parameter written as integers with commas between them, or as nothing."""
        value = self.text(key, default)
        try:
            return tuple(int(number) for number in value.split(",") if value)
        except ValueError:
            raise self._malformed(key, value, "a list of integers") from None

    def flag(self, key: str) -> bool:
        """Return a parameter that is `true` or, as without it, `false`."""
        return self.choice(key, ("true", "false"), "false") == "true"

    def choice(self, key: str, choices: tuple[str, ...], default: str | None = None) -> str:
        """Return a parameter that is one of a few words."""
        value = self.text(key, default)
        if value not in choices:
            raise self._malformed(key, value, "one of " + ", ".join(choices))
        return value

    def _malformed(self, key: str, value: str, wanted: str) -> ConfigurationError:
        return ConfigurationError(f'{self.name}/config.pbtxt: {key} = "{value}" is not {wanted}.')


StageFactory = Callable[[StageConfig, Settings], Stage]
"""Builds a stage once per model instance."""


def together(*factories: StageFactory) -> StageFactory:
    """Make one stage of several, for a task with several inputs; outputs are all of theirs.

    One process then does what two would do, in one step: a task saves a hop, and a bad input fails
    it before any other step has begun.
    """

    def build(config: StageConfig, settings: Settings) -> Stage:
        stages = [factory(config, settings) for factory in factories]

        def run(inputs: Tensors) -> Tensors:
            outputs: dict[str, NDArray[Any]] = {}
            for stage in stages:
                outputs |= stage(inputs)
            return outputs

        return run

    return build


__all__ = ["Stage", "StageConfig", "StageFactory", "Tensors", "together"]
