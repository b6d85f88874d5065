"""Clips for any family: frames chosen as the server does, seen as the library's processor does."""

from collections.abc import Callable
from typing import Any

import numpy as np

from sensorium_export.families.images import Processor
from sensorium_export.recipe import VideoRecipe
from sensorium_export.reference_input import Clip, chosen_frames, upright


def watching(processor: Processor, video: VideoRecipe) -> Callable[[bytes], Clip]:
    """Return what gives the frames of a clip's file, by the library itself."""

    def watch(data: bytes) -> Clip:
        frames, seconds = chosen_frames(data, video)
        pictures: Any = [upright(frame) for frame in frames]
        seen = processor(pictures, return_tensors="np")["pixel_values"]
        return Clip(np.asarray(seen, np.float32), seconds)

    return watch
