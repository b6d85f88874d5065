"""The stage `label_postprocess`: a classifier's logits become labels with scores, best first.

Parameters in `config.pbtxt`:

| key | meaning | default |
|---|---|---|
| `labels` | the classes in the network's order, a JSON list: `["cat", "dog"]` | required |
| `activation` | `softmax` (one class is right) or `sigmoid` (each may be) | `softmax` |

Input `class_logits` FP32 [n,classes], outputs `labels` BYTES [n,classes] and `scores` FP32
[n,classes].
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from sensorium import contract
from sensorium.errors import ServerError
from sensorium_server.settings import Settings
from sensorium_server.stages import Stage, StageConfig, Tensors
from sensorium_server.stages.labels import ranked, texts_from

Scores = NDArray[np.float64]


def stage(config: StageConfig, _settings: Settings) -> Stage:
    """Build the stage from its parameters."""
    labels = texts_from(config, "labels")
    activate = ACTIVATIONS[config.choice("activation", tuple(ACTIVATIONS), "softmax")]

    def postprocess(inputs: Tensors) -> Tensors:
        return ranked(activate(logits_of(inputs)), labels)

    return postprocess


def logits_of(inputs: Tensors) -> Scores:
    """Return the logits [n,classes].

    Raises:
        ServerError: the network put out numbers that are none.
    """
    logits: Scores = inputs[contract.CLASS_LOGITS.name].astype(np.float64)
    if not np.isfinite(logits).all():
        raise ServerError("the network put out NaN or infinity as class_logits")
    return logits


def softmax(logits: Scores) -> Scores:
    """Return probabilities that sum to 1 in each row."""
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities: Scores = powers / powers.sum(axis=1, keepdims=True)
    return probabilities


def sigmoid(logits: Scores) -> Scores:
    """Return each class's own probability."""
    probabilities: Scores = 1 / (1 + np.exp(-np.clip(logits, -500, 500)))
    return probabilities


ACTIVATIONS: dict[str, Callable[[Scores], Scores]] = {"softmax": softmax, "sigmoid": sigmoid}
