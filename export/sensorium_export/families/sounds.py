"""Sounds for any family: the library's own feature extractor on what the server decodes too."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sensorium.errors import ConfigurationError
from sensorium_export.families.source import PREPROCESSOR_FILE
from sensorium_export.reference_input import mono_samples

Extractor = Any
Hear = Callable[[bytes], Mapping[str, NDArray[Any]]]


def hearing(extract: Callable[[NDArray[np.float32]], Any], sample_rate: int) -> Hear:
    """Return what gives `log_mel` of a sound's file.

    Args:
        extract: From mono samples to features [1, mel_frames, mels], by the library itself.
        sample_rate: Of those samples.
    """

    def hear(data: bytes) -> Mapping[str, NDArray[Any]]:
        features = extract(mono_samples(data, sample_rate))
        return {"log_mel": np.asarray(features, np.float32)}

    return hear


def check_extractor(path: Path, extractor: Extractor, served: Mapping[str, Any]) -> None:
    """Check that the extractor is set as the stage computes.

    Raises:
        ConfigurationError: It is not; all settings that differ are named.
    """
    found = {name: getattr(extractor, name, None) for name in served}
    if problems := [f"{name} = {found[name]}" for name in served if found[name] != served[name]]:
        raise ConfigurationError(
            f"{path.name}/{PREPROCESSOR_FILE}: {', '.join(problems)} cannot be served; "
            f"needed: {dict(served)}"
        )
