"""Samples as a network hears them that takes no spectrogram, such as wav2vec 2.0."""

import numpy as np
from numpy.typing import NDArray

from sensorium_server.stages.sound_file import Samples

_LEAST_VARIANCE = 1e-7


def waveform(samples: Samples) -> NDArray[np.float32]:
    """Return the samples as they are."""
    return samples


def normalized(samples: Samples) -> NDArray[np.float32]:
    """Return the samples with mean 0 and variance 1 (Baevski et al., 2020, section 4.1)."""
    deviation = np.sqrt(samples.var() + _LEAST_VARIANCE)
    return np.asarray((samples - samples.mean()) / deviation, np.float32)
