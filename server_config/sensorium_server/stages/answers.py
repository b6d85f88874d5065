"""The stage `answer_postprocess`: a classifier over answers gives its likeliest one.

Parameters in `config.pbtxt`:

| key | meaning | default |
|---|---|---|
| `labels` | the answers in the network's order, a JSON list: `["yes", "no"]` | required |

Input `class_logits` FP32 [n,classes], outputs `answer` BYTES [n,1] and `score` FP32 [n,1]: the
probability that the softmax over all answers gives it.
"""

import numpy as np

from sensorium import contract
from sensorium_server.settings import Settings
from sensorium_server.stages import Stage, StageConfig, Tensors
from sensorium_server.stages.classes import logits_of, softmax
from sensorium_server.stages.labels import check_count, texts_from


def stage(config: StageConfig, _settings: Settings) -> Stage:
    """Build the stage from its parameters."""
    labels = texts_from(config, "labels")
    names = np.array([label.encode() for label in labels], np.object_)

    def postprocess(inputs: Tensors) -> Tensors:
        scores = softmax(logits_of(inputs))
        check_count(labels, scores.shape[1])
        return {
            contract.ANSWER.name: names[scores.argmax(axis=1)][:, None],
            contract.SCORE.name: scores.max(axis=1, keepdims=True).astype(np.float32),
        }

    return postprocess
