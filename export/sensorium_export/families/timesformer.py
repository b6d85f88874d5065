"""TimeSformer (Bertasius et al., 2021): a clip to a vector or to actions. Stage: one video encoder.

The vector is the last state of the class token. A checkpoint with a classifier's head offers
`action_recognition` instead.
"""

from pathlib import Path

from torch import Tensor
from transformers import TimesformerForVideoClassification, TimesformerModel

from sensorium_export.families.source import FamilySource
from sensorium_export.families.video_model import Kinds, video_source


def _class_token(states: Tensor) -> Tensor:
    return states[:, 0]


def load(path: Path, bundle: str) -> FamilySource:
    """Load a TimeSformer, with or without a classifier's head, with its processor.

    Raises:
        ConfigurationError: Config, weights and processor do not belong together.
    """
    kinds = Kinds(TimesformerModel, TimesformerForVideoClassification, _class_token)
    return video_source(path, bundle, kinds)
