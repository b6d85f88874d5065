"""The stage `tag_postprocess`: how probable each sound is anywhere in the recording.

A sound's score is its greatest activity over the frames that `log_mel_mask` shows; without any
such frame it is 0. All labels are put out, best first; equal scores keep the labels' own order.

Parameters in `config.pbtxt`:

| key | meaning | default |
|---|---|---|
| `labels` | the sounds in the encoder's order, `beep,bell` | required |

Inputs `sound_activity` FP32 [n,mel_frames,sounds] and `log_mel_mask` INT64 [n,mel_frames], outputs
`labels` BYTES [n,sounds] and `scores` FP32 [n,sounds].
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
        mask = inputs[contract.LOG_MEL_MASK.name]
        activity = shown(inputs, contract.SOUND_ACTIVITY, mask)
        return ranked(activity.max(axis=1, initial=0), labels)

    return postprocess
