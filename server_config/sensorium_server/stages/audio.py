"""The stage `audio_preprocess`: bytes of a sound, or of a clip, to what the audio encoder hears.

Reads WAV (8 to 32 bits, float), FLAC, OGG (Vorbis, Opus) and MP3 of 1 to 8 channels, which are
averaged, at 8 to 192 kHz. Bytes are counted and the header's seconds checked before anything is
decoded, and no more is decoded than the header says.

Parameters in `config.pbtxt`:

| key | meaning | default |
|---|---|---|
| `sample_rate` | samples per second that the recipe takes | required |
| `features` | `log_mel`, those of other libraries in `window_features.py`, `waveform` | `log_mel` |
| `normalize` | `true`: the samples of `waveform` get mean 0 and variance 1 | `false` |
| `n_fft`, `hop` | window and step of the spectrogram, samples | required for one |
| `mels`, `min_hz`, `max_hz` | mel bands, and what they span | required for one |
| `mean`, `std` | normalisation of the logarithms | required for one |
| `window` | how much of a sound is heard then, in samples, or frames of `ast` | required then |
| `noise_reduction` | `none` or `spectral_gate`: see `denoise.py` | `none` |

Optional inputs `audio`, `video`, `image` BYTES [n,1], at least one of them; outputs `log_mel` FP32
[n,mel_frames,mels] and `log_mel_mask` INT64 [n,mel_frames], or `waveform` FP32 [n,samples] and
`waveform_mask` INT64 [n,samples], padded to the longest. An item without `audio` takes the sound
track of `video`; where there is none, or only an `image`, no frame is valid.
"""

from dataclasses import replace
from itertools import chain

import numpy as np
import soxr
from av import AudioResampler
from av.container import InputContainer
from numpy.typing import NDArray

from sensorium import contract
from sensorium.errors import InvalidInputError
from sensorium_server.isolation import IsolatedWorker
from sensorium_server.settings import Settings
from sensorium_server.stages import Stage, StageConfig, Tensors, window_features
from sensorium_server.stages.container import AUDIO_CODECS, check_seconds, opened, packets_of
from sensorium_server.stages.denoise import NOISE_REDUCTION
from sensorium_server.stages.item import item, map_items
from sensorium_server.stages.log_mel import LogMel, log_mel
from sensorium_server.stages.sound_file import Samples, check_rate, checked, decode
from sensorium_server.stages.waveform import normalized, waveform

FEATURES = {"log_mel": log_mel, **window_features.FEATURES}
WAVEFORM = contract.WAVEFORM.name
_SPECTROGRAM = (contract.LOG_MEL.name, contract.LOG_MEL_MASK.name)
_SAMPLES = (WAVEFORM, contract.WAVEFORM_MASK.name)
_SILENCE = np.zeros(0, np.float32)
MIN_S = 0.05
"""The shortest sound that is listened to, seconds."""


def stage(config: StageConfig, settings: Settings) -> Stage:
    """Build the stage from its parameters and the limits."""
    kind = config.choice("features", (*FEATURES, WAVEFORM), "log_mel")
    if kind == WAVEFORM:
        is_normalized = config.choice("normalize", ("false", "true"), "false") == "true"
        hear, outputs, missing = (normalized if is_normalized else waveform), _SAMPLES, _SILENCE
    else:
        recipe, features = recipe_of(config), FEATURES[kind]
        outputs, missing = _SPECTROGRAM, np.zeros((0, recipe.mels), np.float32)

        def hear(samples: Samples) -> NDArray[np.float32]:
            return features(samples, recipe)

    rate = config.integer("sample_rate")
    clean = NOISE_REDUCTION[config.choice("noise_reduction", tuple(NOISE_REDUCTION), "none")]
    worker = IsolatedWorker(settings.decode_timeout_s)
    worker.load(samples_of)

    def heard(inputs: Tensors, row: int) -> NDArray[np.float32]:
        audio, video = item(inputs, contract.AUDIO, row), item(inputs, contract.VIDEO, row)
        if not audio and video:
            samples = worker.call("video", sound_track_of, video, settings, rate)
        elif not audio and item(inputs, contract.IMAGE, row):
            return missing
        else:
            samples = worker.call("audio", samples_of, audio, settings, rate)
        return hear(clean(samples)) if samples.size else missing

    def preprocess(inputs: Tensors) -> Tensors:
        count = max(
            (tensor.size for name, tensor in inputs.items() if name != contract.AFTER.name),
            default=1,
        )
        rows = map_items(lambda row: heard(inputs, row), np.arange(count))
        return dict(zip(outputs, padded(rows), strict=True))

    return preprocess


def recipe_of(config: StageConfig) -> LogMel:
    """Return the spectrogram's recipe from the model's parameters."""
    recipe = LogMel(
        *(config.integer(key) for key in ("sample_rate", "n_fft", "hop", "mels")),
        *(config.numbers(key)[0] for key in ("min_hz", "max_hz", "mean", "std")),
    )
    return replace(recipe, window=config.integer("window", 0))


def padded(rows: list[NDArray[np.float32]]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return spectrograms or samples as one batch, and its mask; at least one frame long."""
    shape = (len(rows), max(1, *map(len, rows)))
    values = np.zeros((*shape, *rows[0].shape[1:]), np.float32)
    mask = np.zeros(shape, np.int64)
    for index, row in enumerate(rows):
        values[index, : len(row)] = row
        mask[index, : len(row)] = 1
    return values, mask


def samples_of(data: bytes, limits: Settings, rate: int) -> Samples:
    """Return a sound file's samples, float32 [n], mono, full scale ±1, at a rate.

    Raises:
        InvalidInputError: `data` is empty, beyond a limit, not a sound file or damaged.
    """
    samples, own_rate = decode(data, limits)
    if samples.size < MIN_S * own_rate:
        raise InvalidInputError(
            f"audio is {samples.size / own_rate:.3f} s long ({samples.size:,} samples); the least "
            f"is {MIN_S} s. Send a longer one."
        )
    return resample(samples, own_rate, rate)


def sound_track_of(data: bytes, limits: Settings, rate: int) -> Samples:
    """Return a video's sound as `samples_of` does, in time with its first frame.

    A video without a sound track, or with less than 0.05 s of it, gives no samples.

    Raises:
        InvalidInputError: `data` is empty, beyond a limit, not a video or damaged.
    """
    with opened(data, limits) as container:
        samples, own_rate = _track(container, data, limits)
    if samples.size < MIN_S * own_rate:
        return np.zeros(0, np.float32)
    return resample(checked(samples, "video's sound track"), own_rate, rate)


def resample(samples: Samples, rate: int, target: int) -> Samples:
    """Return the samples at another rate, by soxr's high quality."""
    if rate == target:
        return samples
    return np.asarray(soxr.resample(samples, rate, target, quality="HQ"), np.float32)


def _track(container: InputContainer, data: bytes, limits: Settings) -> tuple[Samples, int]:
    """Decode the first sound track, the mean of its channels, from the first frame's time on."""
    if not container.streams.audio:
        return np.zeros(0, np.float32), 1
    stream = container.streams.audio[0]
    name = stream.codec_context.name if stream.codec_context is not None else "unknown"
    if name not in AUDIO_CODECS:
        raise InvalidInputError(
            f'video has a sound track with the codec "{name}". Encode it as AAC or Opus.'
        )
    rate = stream.codec_context.sample_rate
    check_rate(rate)
    stream.codec_context.thread_count = 1
    to_float = AudioResampler(format="fltp")
    blocks: list[Samples] = []
    count = 0
    begin: float | None = None
    packets = packets_of(container, stream, data, limits)
    for frame in chain.from_iterable(map(stream.codec_context.decode, chain(packets, [None]))):
        begin = frame.time if begin is None else begin
        blocks += [each.to_ndarray().mean(axis=0) for each in to_float.resample(frame)]
        count += frame.samples
        check_seconds(count / rate, limits)
    late = (begin or 0.0) - _first_frame_s(container)
    check_seconds(late + count / rate, limits)
    samples = np.concatenate([*blocks, np.zeros(0, np.float32)])
    return _shifted(samples, round(late * rate)), rate


def _first_frame_s(container: InputContainer) -> float:
    """Return when the picture starts, seconds; 0 when there is none or it does not say."""
    for stream in container.streams.video[:1]:
        if stream.start_time is not None and stream.time_base is not None:
            return float(stream.start_time * stream.time_base)
    return 0.0


def _shifted(samples: Samples, late: int) -> Samples:
    """Return the samples that many later, with silence before, or earlier and cut."""
    return np.pad(samples, (late, 0)) if late > 0 else samples[-late:]
