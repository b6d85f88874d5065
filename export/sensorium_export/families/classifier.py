"""The classes of a checkpoint with a classifier's head."""

from pathlib import Path
from typing import Any

from sensorium.errors import ConfigurationError


def class_labels(path: Path, config: Any) -> tuple[str, ...]:  # noqa: ANN401 - untyped
    """Return the names of the classes in the order of the logits.

    Raises:
        ConfigurationError: config.json does not name each of them.
    """
    named = {int(number): str(label) for number, label in config.id2label.items()}
    if sorted(named) != list(range(config.num_labels)):
        raise ConfigurationError(
            f"{path.name}/config.json: id2label names {len(named)} classes, there are "
            f"{config.num_labels}, from 0 on. Name each one."
        )
    return tuple(named[number] for number in range(config.num_labels))
