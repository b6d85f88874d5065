"""The stage `action_postprocess`: how probable each action is anywhere in the clip.

An action's score is the greatest product, over the tracks, of the probability that the track is
one and the probability that it does the action. All labels are put out, best first; equal scores
keep the labels' own order.

Parameters in `config.pbtxt`:

| key | meaning | default |
|---|---|---|
| `labels` | the actions in the encoder's order, `stands still,moves left` | required |

Inputs `track_actions` FP32 [n,tracks,actions] and `track_spans` FP32 [n,tracks,3], outputs
`labels` BYTES [n,actions] and `scores` FP32 [n,actions].
"""

from sensorium import contract
from sensorium_server.settings import Settings
from sensorium_server.stages import Stage, StageConfig, Tensors
from sensorium_server.stages.encoded import shown
from sensorium_server.stages.labels import labels_from, ranked


def stage(config: StageConfig, _settings: Settings) -> Stage:
    """Build the stage from its parameters."""
    labels = labels_from(config, "labels")

    def postprocess(inputs: Tensors) -> Tensors:
        actions = shown(inputs, contract.TRACK_ACTIONS)
        presence = shown(inputs, contract.TRACK_SPANS)[..., :1]
        return ranked((presence * actions).max(axis=1, initial=0), labels)

    return postprocess
