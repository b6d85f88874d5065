import io
from pathlib import Path

import pytest

from sensorium import Client, InvalidInputError, Limits
from sensorium._input import ImageInput
from sensorium.testing import MockTransport

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
        kinds: list[ImageInput] = [
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
