"""Which moments of a video are looked at.

The stretch that is looked at is cut into equal parts, and each part's middle is a moment, as in
Wang et al., "Temporal Segment Networks" (2016). `uniform` looks at the whole video; `fps` at its
first `frames / fps` seconds, the end of a shorter one standing still.
"""

import numpy as np
from numpy.typing import NDArray


def stretch_s(duration_s: float, frames: int, fps: float | None = None) -> float:
    """Return how many seconds the frames cover: the whole video, or with `fps` `frames / fps`."""
    return duration_s if fps is None else frames / fps


def sample_times(duration_s: float, frames: int, fps: float | None = None) -> NDArray[np.float64]:
    """Return the moments to look at, in seconds from the first frame, ascending, [frames].

    Args:
        duration_s: the video's length.
        frames: how many moments.
        fps: moments per second; None spreads them over the whole video.
    """
    return (np.arange(frames) + 0.5) * (stretch_s(duration_s, frames, fps) / frames)
