"""The stage `media_join`: the tokens of several media as one sequence, each with its mask.

What is given is joined in the order image, video, audio; nothing is padded. Where `image_present`
is 0 the whole image is masked. Masked tokens are put out as zeros, whatever they were, so that a
missing modality cannot change an answer by a single bit.

It has no parameters in `config.pbtxt`.

Inputs `audio_tokens` FP32 [n,audio_tokens,width] and `audio_mask` INT64 [n,audio_tokens], perhaps
the same of `video` and `image`, and `image_present` INT64 [n,1]; outputs `media_tokens` FP32
[n,media,width] and `media_mask` INT64 [n,media].
"""

import numpy as np

from sensorium import contract
from sensorium_server.settings import Settings
from sensorium_server.stages import Stage, StageConfig, Tensors
from sensorium_server.stages.encoded import shown

_MEDIA = (
    (contract.IMAGE_TOKENS, contract.IMAGE_MASK, contract.IMAGE_PRESENT),
    (contract.VIDEO_TOKENS, contract.VIDEO_MASK, None),
    (contract.AUDIO_TOKENS, contract.AUDIO_MASK, None),
)
"""Tokens, their mask, and what tells whether the medium is there at all."""


def stage(_config: StageConfig, _settings: Settings) -> Stage:
    """Build the stage; it needs neither parameters nor limits."""
    return joined


def joined(inputs: Tensors) -> Tensors:
    """Join the given media's tokens and masks along the token axis.

    Raises:
        ServerError: a token that is not masked holds NaN or infinity.
    """
    tokens, masks = [], []
    for spec, mask_spec, present_spec in _MEDIA:
        if spec.name in inputs:
            mask = inputs[mask_spec.name]
            if present_spec is not None and present_spec.name in inputs:
                mask = mask * (inputs[present_spec.name] != 0)
            masks.append(mask)
            tokens.append(shown(inputs, spec, mask))
    return {
        contract.MEDIA_TOKENS.name: np.concatenate(tokens, axis=1),
        contract.MEDIA_MASK.name: np.concatenate(masks, axis=1),
    }
