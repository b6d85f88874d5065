"""VideoMAE (Tong et al., 2022): a clip to a vector or to actions. Stage: one video encoder.

The vector is the mean of the last states. A checkpoint with a classifier's head offers
`action_recognition` instead.
"""

from pathlib import Path

from torch import Tensor
from transformers import VideoMAEForVideoClassification, VideoMAEModel

from sensorium_export.families.source import FamilySource
from sensorium_export.families.video_model import Kinds, video_source


def _mean(states: Tensor) -> Tensor:
    return states.mean(dim=1)


def load(path: Path, bundle: str) -> FamilySource:
    """Load a VideoMAE, with or without a classifier's head, with its processor.

    Raises:
        ConfigurationError: Config, weights and processor do not belong together.
    """
    kinds = Kinds(VideoMAEModel, VideoMAEForVideoClassification, _mean)
    return video_source(path, bundle, kinds)
