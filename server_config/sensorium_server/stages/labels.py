"""Labels: read from a model's parameters, and ranked by their scores."""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sensorium import contract
from sensorium.errors import ConfigurationError
from sensorium_server.stages import StageConfig, Tensors


def labels_from(config: StageConfig, key: str) -> tuple[str, ...]:
    """Return a parameter written as labels with commas between them.

    Raises:
        ConfigurationError: it is missing, one label is empty, or one is there twice.
    """
    labels = tuple(label.strip() for label in config.text(key).split(","))
    if not all(labels) or len(set(labels)) < len(labels):
        raise ConfigurationError(
            f'{config.name}/config.pbtxt: {key} = "{config.text(key)}" has an empty label or one '
            f"twice. Write each label once, with commas between them."
        )
    return labels


def texts_from(config: StageConfig, key: str) -> tuple[str, ...]:
    """Return a parameter written as a JSON list; its texts may hold commas, one may be there twice.

    Raises:
        ConfigurationError: it is missing, or not a JSON list of texts.
    """
    written = config.text(key)
    try:
        texts = json.loads(written)
    except ValueError:
        texts = None
    if not isinstance(texts, list) or not texts or not all(isinstance(x, str) for x in texts):
        raise ConfigurationError(
            f'{config.name}/config.pbtxt: {key} = "{written[:40]}" is not a JSON list of texts. '
            f'Write one, such as ["cat", "dog"], or export the bundle again.'
        )
    return tuple(texts)


def check_count(labels: Sequence[str], count: int) -> None:
    """Check that there is one label for each of the encoder's scores.

    Raises:
        ConfigurationError: there are more or fewer.
    """
    if len(labels) != count:
        raise ConfigurationError(
            f"config.pbtxt names {len(labels)} labels ({labels[0]}, …), but the encoder scores "
            f"{count}. Export the bundle again."
        )


def ranked(scores: NDArray[Any], labels: tuple[str, ...]) -> Tensors:
    """Return all labels of each row, best first; equal scores keep the labels' own order.

    Args:
        scores: float, [n, labels].
        labels: The name of each column.

    Raises:
        ConfigurationError: there is not one label for each column.
    """
    check_count(labels, scores.shape[1])
    order = np.argsort(-scores, axis=1, kind="stable")
    names = np.array([label.encode() for label in labels], np.object_)
    return {
        contract.SOUND_LABELS.name: names[order],
        contract.SOUND_SCORES.name: np.take_along_axis(scores, order, 1).astype(np.float32),
    }
