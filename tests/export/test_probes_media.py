"""Sounds and clips drawn from seeds."""

import io

import av
import numpy as np
import pytest
import soundfile

from sensorium_export.probes_media import CLIP_WAYS, SOUND_WAYS, drawn_clip, drawn_sound


@pytest.mark.parametrize("number", range(len(SOUND_WAYS)))
def test_sound_is_stored_as_its_way_says(number: int) -> None:
    """Format, rate and channels are those of the name, and the same seed draws the same sound."""
    way = SOUND_WAYS[number]

    name, data = drawn_sound(0, number)
    info = soundfile.info(io.BytesIO(data))

    assert name == str(way)
    assert (info.format, info.subtype) == (way.kind, way.subtype)
    assert (info.samplerate, info.channels) == (way.rate, way.channels)
    # Not the bytes: an OGG has a random number of its own.
    samples, again, other = (
        soundfile.read(io.BytesIO(one))[0]
        for one in (data, drawn_sound(0, number)[1], drawn_sound(1, number)[1])
    )
    assert np.array_equal(samples, again)
    assert way.silent or not np.array_equal(samples, other)


def test_silence_is_silent_and_the_rest_is_not() -> None:
    """There are sounds to hear, and one without any."""
    loudest = {
        way: float(np.abs(soundfile.read(io.BytesIO(drawn_sound(0, number)[1]))[0]).max())
        for number, way in enumerate(SOUND_WAYS)
    }

    assert {way for way, level in loudest.items() if level == 0} == {
        way for way in SOUND_WAYS if way.silent
    }
    assert max(loudest.values()) < 1


@pytest.mark.parametrize("number", range(len(CLIP_WAYS)))
def test_clip_is_stored_as_its_way_says(number: int) -> None:
    """Size, sound track, rotation and times are those of the name, and seeds repeat."""
    way = CLIP_WAYS[number]

    name, data = drawn_clip(0, number)
    with av.open(io.BytesIO(data), "r") as container:
        frames = list(container.decode(video=0))
        assert bool(container.streams.audio) == bool(way.sound)
    gaps = np.diff([frame.time for frame in frames])

    assert name == str(way)
    assert {(frame.width, frame.height) for frame in frames} == {way.size}
    assert {abs(frame.rotation) for frame in frames} == {90 if way.turned else 0}
    assert len(frames) == way.frames or len(frames) >= 8
    assert (bool(gaps.size) and gaps.max() > 1.5 * gaps.min()) == way.varying
    assert drawn_clip(0, number)[1] == data
    assert drawn_clip(1, number)[1] != data
