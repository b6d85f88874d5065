"""Bytes to arrays for the reference: pictures by Pillow, sounds and clips each read as a whole.

It goes other ways than the serving code where they lead to the same numbers: the spectrogram is
PyTorch's, the mel bands are built one by one, all frames of a clip are decoded before any is
chosen. Where the ways of doing it round differently (resampling, and the order of resizing and
turning) it does what the serving code is documented to do.
"""

import io
import math
from dataclasses import dataclass

import av
import numpy as np
import soundfile
import soxr
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor

from sensorium.errors import ConfigurationError
from sensorium_export.recipe import AudioRecipe, ImageRecipe, VideoRecipe

FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}

_FLOOR = 1e-8
_EARLY_S = 1e-3
_LEAST_S = 0.05
_SHORTEST_S = 1e-3
_BREAK_HZ = 1000.0
_FULL_SCALE = {"u1": 2.0**7, "i2": 2.0**15, "i4": 2.0**31}


@dataclass(frozen=True, slots=True)
class Clip:
    """A clip's chosen frames, [1, frames, 3, image_size, image_size], and its length."""

    frames: NDArray[np.float32]
    duration_s: float


def pixel_values(data: bytes, recipe: ImageRecipe) -> NDArray[np.float32]:
    """Return a picture's normalised pixels, [1, 3, image_size, image_size]."""
    return _normalised(_cropped(rgb_picture(data), recipe), recipe)[None]


def rgb_picture(data: bytes) -> Image.Image:
    """Return a file's picture upright and in RGB."""
    return _rgb(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))


def _normalised(picture: Image.Image, recipe: ImageRecipe) -> NDArray[np.float32]:
    values = np.asarray(picture, np.float64) / 255
    normalised = (values - np.array(recipe.mean)) / np.array(recipe.std)
    planes: NDArray[np.float32] = normalised.transpose(2, 0, 1).astype(np.float32)
    return planes


def _rgb(picture: Image.Image) -> Image.Image:
    """Return 8-bit RGB: 16 bits by their high byte, transparency over white."""
    if picture.mode.startswith("I"):
        return Image.fromarray((np.asarray(picture) // 256).astype(np.uint8)).convert("RGB")
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        ground = Image.new("RGBA", picture.size, "white")
        ground.alpha_composite(picture)
        return ground.convert("RGB")
    return picture.convert("RGB")


def _cropped(picture: Image.Image, recipe: ImageRecipe) -> Image.Image:
    size, resample = recipe.image_size, FILTERS[recipe.resample]
    if recipe.crop == "squash":
        return picture.resize((size, size), resample)
    short, resized_edge = min(picture.size), recipe.resize_edge or size
    width, height = (resized_edge * edge // short for edge in picture.size)
    left, top = (
        round((edge - size) / 2) if recipe.crop_rounding == "even" else (edge - size) // 2
        for edge in (width, height)
    )
    resized = picture.resize((width, height), resample)
    return resized.crop((left, top, left + size, top + size))


def log_mel(data: bytes, recipe: AudioRecipe) -> NDArray[np.float32]:
    """Return the log-mel spectrogram of a sound file, [1, mel_frames, mels]."""
    samples, rate = soundfile.read(io.BytesIO(data), dtype="float32", always_2d=True)
    return _spectrogram(samples.mean(axis=1), rate, recipe)


def mono_samples(data: bytes, sample_rate: int) -> NDArray[np.float32]:
    """Return a sound file's samples at a rate: the mean of its channels, full scale ±1."""
    samples, rate = soundfile.read(io.BytesIO(data), dtype="float32", always_2d=True)
    mono = samples.mean(axis=1)
    if rate != sample_rate:
        mono = soxr.resample(mono, rate, sample_rate, quality="HQ")
    return np.asarray(mono, np.float32)


def track_log_mel(data: bytes, recipe: AudioRecipe) -> NDArray[np.float32] | None:
    """Return the log-mel spectrogram of a clip's sound track, None if it has none to speak of."""
    with av.open(io.BytesIO(data), "r") as container:
        if not container.streams.audio:
            return None
        frames = list(container.decode(audio=0))
        track = container.streams.audio[0]
        picture = container.streams.video[0]
        picture_s = float((picture.start_time or 0) * (picture.time_base or 0))
        rate = track.sample_rate
    if sum(frame.samples for frame in frames) < _LEAST_S * rate:
        return None
    late = round(((frames[0].time or 0.0) - picture_s) * rate)
    samples = np.concatenate([_mono(frame) for frame in frames])
    samples = np.concatenate([np.zeros(max(late, 0), np.float32), samples[max(-late, 0) :]])
    return _spectrogram(samples, rate, recipe)


def clip(data: bytes, image: ImageRecipe, video: VideoRecipe) -> Clip:
    """Return the chosen frames of a clip, treated as pictures are, and how long they last."""
    chosen, seconds = chosen_frames(data, video)
    return Clip(np.stack([_frame_values(frame, image) for frame in chosen])[None], seconds)


def upright(frame: av.VideoFrame) -> Image.Image:
    """Return a frame turned as its file says."""
    turned = np.rot90(frame.to_ndarray(format="rgb24"), round(frame.rotation / 90))
    return Image.fromarray(np.ascontiguousarray(turned))


def chosen_frames(data: bytes, video: VideoRecipe) -> tuple[list[av.VideoFrame], float]:
    """Return the frames on the screen at the sampled moments, and the seconds that they cover."""
    with av.open(io.BytesIO(data), "r") as container:
        decoded = sorted(container.decode(video=0), key=lambda frame: frame.time)
        stream = container.streams.video[0]
        length, time_base = stream.duration, stream.time_base or 0
    if length is None:
        with av.open(io.BytesIO(data), "r") as container:
            ends = [
                (packet.pts + (packet.duration or 0)) * time_base
                for packet in container.demux(video=0)
                if packet.pts is not None
            ]
        seconds = float(max(ends)) - decoded[0].time
    else:
        seconds = float(length * time_base)
    # Headers may end before the last frame begins, or say nothing of a lone one.
    seconds = max(seconds, decoded[-1].time - decoded[0].time, _SHORTEST_S)
    if video.sampling == "fps" and video.fps is not None:
        seconds = video.frames / video.fps
    chosen = []
    for number in range(video.frames):
        moment = decoded[0].time + (number + 0.5) * seconds / video.frames
        begun = [frame for frame in decoded if frame.time <= moment + _EARLY_S]
        chosen.append(begun[-1])
    return chosen, seconds


def _frame_values(frame: av.VideoFrame, recipe: ImageRecipe) -> NDArray[np.float32]:
    size = recipe.image_size
    picture = Image.fromarray(frame.to_ndarray(format="rgb24"))
    upright = picture.resize((size, size), FILTERS[recipe.resample]).rotate(frame.rotation)
    return _normalised(upright, recipe)


def _mono(frame: av.AudioFrame) -> NDArray[np.float32]:
    """Return the mean of a decoded block's channels, full scale ±1."""
    values = frame.to_ndarray()
    if not frame.format.is_planar:
        values = values.reshape(-1, frame.layout.nb_channels).T
    kind = values.dtype.str[1:]
    if kind in _FULL_SCALE:
        offset = _FULL_SCALE[kind] if kind == "u1" else 0.0
        values = ((values.astype(np.float64) - offset) / _FULL_SCALE[kind]).astype(np.float32)
    mono: NDArray[np.float32] = values.astype(np.float32).mean(axis=0)
    return mono


def _spectrogram(
    samples: NDArray[np.float32], rate: int, recipe: AudioRecipe
) -> NDArray[np.float32]:
    if recipe.noise_reduction != "none":
        raise ConfigurationError(
            f"config.json: audio_preprocess.noise_reduction = {recipe.noise_reduction} has no "
            f"reference to be verified against; verify the bundle without it"
        )
    if rate != recipe.sample_rate:
        samples = soxr.resample(samples, rate, recipe.sample_rate, quality="HQ")
    spectrum = torch.stft(
        torch.from_numpy(samples).double(),
        recipe.n_fft,
        recipe.hop,
        window=torch.hann_window(recipe.n_fft, periodic=True, dtype=torch.float64),
        center=True,
        pad_mode="constant",
        return_complex=True,
    )
    power = _mel_bands(recipe) @ spectrum.abs().square()
    levels = (power.clamp(min=_FLOOR).log10() - recipe.mean) / recipe.std
    return levels.T[None].float().numpy()


def _mel_bands(recipe: AudioRecipe) -> Tensor:
    """Return Slaney's triangles of area 1, [mels, n_fft // 2 + 1]."""
    low, high = _mel(recipe.min_hz), _mel(recipe.max_hz)
    step = (high - low) / (recipe.mels + 1)
    bins = recipe.n_fft // 2 + 1
    bands = torch.zeros(recipe.mels, bins, dtype=torch.float64)
    for band in range(recipe.mels):
        left, centre, right = (_hertz(low + (band + side) * step) for side in range(3))
        for number in range(bins):
            hertz = number * recipe.sample_rate / recipe.n_fft
            if left < hertz < right:
                rise, fall = (hertz - left) / (centre - left), (right - hertz) / (right - centre)
                bands[band, number] = min(rise, fall) * 2 / (right - left)
    return bands


def _mel(hertz: float) -> float:
    if hertz < _BREAK_HZ:
        return hertz * 3 / 200
    return 15 + 27 * math.log(hertz / _BREAK_HZ) / math.log(6.4)


def _hertz(mel: float) -> float:
    return mel * 200 / 3 if mel < _mel(_BREAK_HZ) else _BREAK_HZ * 6.4 ** ((mel - 15) / 27)
