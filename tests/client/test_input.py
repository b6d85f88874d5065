import io
import math
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from tests.client.conftest import Caller

from sensorium import Client, InvalidInputError, Limits
from sensorium._input import MediaInput
from sensorium.testing import MockRequest, MockTransport

SMALL = Limits(max_image_bytes=10, max_text_chars=5)


@pytest.fixture
def transport() -> MockTransport:
    """Answer questions and captions."""
    return MockTransport(
        {
            "visual_question_answering": {"answer": "red", "score": 0.5},
            "image_captioning": {"caption": "a star", "score": 0.5},
        }
    )


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    """Write ten bytes."""
    path = tmp_path / "picture.png"
    path.write_bytes(b"0123456789")
    return path


def test_all_kinds_of_pictures(transport: MockTransport, picture: Path) -> None:
    """Bytes, paths and open files all bring the same bytes to the server."""
    with Client(transport=transport, limits=SMALL) as client, picture.open("rb") as file:
        data = picture.read_bytes()
        kinds: list[MediaInput] = [
            data,
            bytearray(data),
            memoryview(data),
            picture,
            str(picture),
            file,
        ]
        for image in [*kinds, io.BytesIO(data)]:
            client.caption(image)

    assert [request.inputs["image"] for request in transport.requests] == [data] * 7


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (b"", "image is empty"),
        (bytes(11), r"image is 0\.0 MB; the limit is 1e-05 MB \(max_image_bytes\)"),
        ("no such file", "there is no file 'no such file'"),
        (Path("/"), "Is a directory"),
        ("nul\0", "cannot read"),
        (None, "image is a NoneType"),
        (io.StringIO("text"), "opened as text"),
    ],
)
def test_wrong_pictures(transport: MockTransport, image: object, message: str) -> None:
    """Each wrong picture fails before the network and says what is wrong."""
    with (
        Client(transport=transport, limits=SMALL) as client,
        pytest.raises(InvalidInputError, match=message),
    ):
        client.caption(image)  # type: ignore[arg-type]

    assert not transport.requests


def test_large_files_are_not_read(transport: MockTransport, tmp_path: Path) -> None:
    """A file over the limit is named with its true size, though it was not read."""
    large = tmp_path / "large.png"
    with large.open("wb") as file:
        file.truncate(10**12)

    with (
        Client(transport=transport) as client,
        pytest.raises(InvalidInputError, match=r"1000000\.0 MB"),
    ):
        client.caption(large)


def test_closed_files(transport: MockTransport, picture: Path) -> None:
    """A closed file is the caller's mistake, told as such."""
    file = picture.open("rb")
    file.close()

    with Client(transport=transport) as client, pytest.raises(InvalidInputError, match="closed"):
        client.caption(file)


@pytest.mark.parametrize(
    ("question", "message"),
    [
        ("", "question is empty"),
        (" \n", "question is empty"),
        ("sixsix", r"question has 6 characters; the limit is 5 \(max_text_chars\)"),
        (b"what", "question is a bytes"),
        ("a\ud800", "surrogate pair at character 1"),
    ],
)
def test_wrong_questions(transport: MockTransport, question: object, message: str) -> None:
    """Each wrong question fails before the network and says what is wrong."""
    with (
        Client(transport=transport, limits=SMALL) as client,
        pytest.raises(InvalidInputError, match=message),
    ):
        client.ask(b"picture", question)  # type: ignore[arg-type]

    assert not transport.requests


MEDIA_LIMITS = Limits(max_audio_bytes=10, max_video_bytes=20)
AUDIO_CALLS = ["tag_audio", "ask_audio", "embed_audio", "detect_events", "ask_image_and_audio"]
VIDEO_CALLS = ["recognise_actions", "ask_video", "caption_video", "embed_video", "detect_events"]


def call_with(client: Client, method: str, name: str, media: object) -> object:
    """Call a method with `media` as its input `name`, and nothing else that could be wrong."""
    run = getattr(client, method)
    if method == "detect_events":
        return run(**{name: media})
    if method == "ask_image_and_audio":
        return run(b"picture", media, "what?")
    return run(media, "what?") if method.startswith("ask") else run(media)


@pytest.mark.parametrize(
    ("media", "message"),
    [
        (b"", "is empty: it has 0 bytes"),
        (bytes(21), r"is 0\.0 MB; the limit is [12]e-05 MB \(max_(audio|video)_bytes\)"),
        ("no such file", "there is no file 'no such file'"),
        (Path("/"), "Is a directory"),
        (1.5, "is a float; give bytes, a path"),
        (io.StringIO("text"), "opened as text"),
    ],
)
@pytest.mark.parametrize(
    ("name", "method"),
    [("audio", method) for method in AUDIO_CALLS] + [("video", method) for method in VIDEO_CALLS],
)
def test_wrong_media(name: str, method: str, media: object, message: str) -> None:
    """Each wrong sound and clip fails before the network, by its name and with its own limit."""
    transport = MockTransport({})
    with (
        Client(transport=transport, limits=MEDIA_LIMITS) as client,
        pytest.raises(InvalidInputError, match=f"^{name}.*{message}"),
    ):
        call_with(client, method, name, media)

    assert not transport.requests


def test_default_limits() -> None:
    """Out of the box, sounds may have 20 MB and clips 50 MB."""
    assert (Limits().max_audio_bytes, Limits().max_video_bytes) == (20_000_000, 50_000_000)


def test_missing_media_travel_as_empty_bytes(call: Caller) -> None:
    """What a task of two kinds of media is not given goes to the server as empty bytes."""
    no_events: dict[str, object] = {"labels": [], "scores": [], "start_s": [], "end_s": []}
    transport = MockTransport(
        {
            "event_detection": no_events,
            "audio_visual_question_answering": {"answer": "yes", "score": 1.0},
        }
    )
    options = {"transport": transport}
    call("", "detect_events", audio=b"sound", options=options)
    call("", "detect_events", video=b"clip", options=options)
    call("", "infer", "event_detection", {"audio": b"sound"}, options=options)
    call("", "ask_image_and_audio", None, b"sound", "what?", options=options)
    call("", "ask_image_and_audio", b"picture", None, "what?", options=options)

    assert [request.inputs for request in transport.requests] == [
        {"video": b"", "audio": b"sound"},
        {"video": b"clip", "audio": b""},
        {"video": b"", "audio": b"sound"},
        {"image": b"", "audio": b"sound", "question": b"what?"},
        {"image": b"picture", "audio": b"", "question": b"what?"},
    ]


def test_both_media_missing(call: Caller) -> None:
    """A task of two kinds of media needs one of them."""
    options = {"transport": MockTransport({})}
    with pytest.raises(InvalidInputError, match="neither video nor audio was given"):
        call("", "detect_events", options=options)
    with pytest.raises(InvalidInputError, match="neither image nor audio was given"):
        call("", "ask_image_and_audio", None, None, "what?", options=options)


@pytest.mark.parametrize("method", ["tag_audio", "recognise_actions", "caption"])
def test_the_only_medium_cannot_be_missing(method: str) -> None:
    """None is no input for a task of one kind of media."""
    with (
        Client(transport=MockTransport({})) as client,
        pytest.raises(InvalidInputError, match="is a NoneType"),
    ):
        getattr(client, method)(None)


def draw_nothing(_: MockRequest) -> dict[str, object]:
    """Answer with a picture of no bytes."""
    return {"image": b""}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seed": -1}, r"seed is -1; it must lie between 0 and 9223372036854775807"),
        ({"seed": 2**63}, r"seed is 9223372036854775808"),
        ({"seed": 1.0}, "seed is a float; give a whole number"),
        ({"seed": True}, "seed is a bool; give a whole number"),
        ({"seed": "1"}, "seed is a str"),
        ({"seed": None}, "seed is a NoneType"),
        ({"steps": 0}, "steps is 0; it must lie between 1 and 100"),
        ({"steps": 101}, "steps is 101"),
        ({"steps": 2.5}, "steps is a float"),
        ({"guidance_scale": -0.5}, r"guidance_scale is -0\.5; it must lie between 0 and 20"),
        ({"guidance_scale": 20.5}, r"guidance_scale is 20\.5"),
        ({"guidance_scale": math.nan}, "guidance_scale is nan"),
        ({"guidance_scale": math.inf}, "guidance_scale is inf"),
        ({"guidance_scale": 10**400}, "guidance_scale is 1000"),
        ({"guidance_scale": "3"}, "guidance_scale is a str; give a number"),
        ({"guidance_scale": False}, "guidance_scale is a bool"),
    ],
)
def test_wrong_numbers(call: Caller, options: dict[str, object], message: str) -> None:
    """Each wrong number fails before the network, with its range."""
    transport = MockTransport(draw_nothing)
    with pytest.raises(InvalidInputError, match=message):
        call("", "draw", "a star", options={"transport": transport}, **options)

    assert not transport.requests


def test_numbers_of_all_kinds(call: Caller) -> None:
    """The ends of each range pass, and so do whole numbers for real ones and NumPy's own."""
    transport = MockTransport(draw_nothing)
    for seed, steps, scale in [
        (0, 1, 0),
        (2**63 - 1, 100, 20),
        (np.int64(7), np.uint8(9), np.float32(1.5)),
        (7, 9, Fraction(3, 2)),
    ]:
        options = {"transport": transport}
        call("", "draw", "a", seed=seed, steps=steps, guidance_scale=scale, options=options)

    assert [tuple(request.inputs.values()) for request in transport.requests] == [
        (b"a", 0, 1, 0.0),
        (b"a", 2**63 - 1, 100, 20.0),
        (b"a", 7, 9, 1.5),
        (b"a", 7, 9, 1.5),
    ]
