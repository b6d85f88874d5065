"""Films: the frames of a clip, and the MP4 file that carries them and its sounds."""

from dataclasses import replace
from fractions import Fraction
from io import BytesIO

import av
import numpy as np
from av.container import OutputContainer
from numpy.typing import NDArray

from sensorium_training.world.motion import Clip
from sensorium_training.world.picture import MAX_NOISE, backdrop, developed, ink, paint
from sensorium_training.world.sound import CLIP_S
from sensorium_training.world.waveform import RATE

FILM_SIZE = 64
"""Side of a film's frames in pixels, unless told otherwise."""

FPS = 8
"""Frames per second, unless told otherwise."""

_CRF = (14, 22)
_X264 = {"preset": "veryfast", "bf": "0", "rc-lookahead": "0"}
"""Looking ahead, x264 does not give the same bytes again for pictures this small."""

_SOUND_CHUNK = 1024


def frames(
    clip: Clip, rng: np.random.Generator, size: int = FILM_SIZE, fps: int = FPS
) -> NDArray[np.uint8]:
    """Draw `clip` as uint8 [CLIP_S · fps, size, size, 3] RGB.

    Light and shades are drawn from `rng` once for the clip, noise anew for each frame.
    """
    empty = backdrop(clip.background, rng, size)
    inks = [ink(actor.thing, rng) for actor in clip.actors]
    noise = rng.uniform(0, MAX_NOISE)
    drawn = []
    for number in range(round(CLIP_S * fps)):
        canvas = empty.copy()
        for actor, shade, pose in zip(clip.actors, inks, clip.poses(number / fps), strict=True):
            if pose.visible > 0:
                thing = replace(actor.thing, x=pose.x, y=pose.y, radius=pose.radius)
                paint(canvas, thing, shade, pose.visible)
        drawn.append(developed(canvas, rng, noise))
    return np.stack(drawn)


def mp4(
    pictures: NDArray[np.uint8],
    rng: np.random.Generator,
    fps: int = FPS,
    samples: NDArray[np.float32] | None = None,
) -> bytes:
    """Encode frames, and sound at `waveform.RATE` if there is any, as the bytes of an MP4 file.

    `rng` gives the quality. The picture is H.264, or MPEG-4 part 2 where no H.264 encoder is built
    in; the sound is AAC.
    """
    file = BytesIO()
    crf = int(rng.integers(_CRF[0], _CRF[1] + 1))
    with av.open(file, "w", format="mp4") as container:
        if "libx264" in av.codecs_available:
            stream = container.add_stream("libx264", fps, {"crf": str(crf), **_X264})
        else:
            stream = container.add_stream("mpeg4", fps, {"qscale": str(crf // 6)})
        stream.width, stream.height = pictures.shape[2], pictures.shape[1]
        stream.pix_fmt = "yuv420p"
        stream.thread_count = 1
        if samples is not None:
            _add_sound(container, samples)
        for number, picture in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), "rgb24")
            frame.pts, frame.time_base = number, Fraction(1, fps)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return file.getvalue()


def _add_sound(container: OutputContainer, samples: NDArray[np.float32]) -> None:
    stream = container.add_stream("aac", RATE, layout="mono")
    for start in range(0, len(samples), _SOUND_CHUNK):
        part = np.ascontiguousarray(samples[None, start : start + _SOUND_CHUNK])
        frame = av.AudioFrame.from_ndarray(part, "fltp", "mono")
        frame.sample_rate, frame.pts = RATE, start
        frame.time_base = Fraction(1, RATE)
        container.mux(stream.encode(frame))
    container.mux(stream.encode(None))
