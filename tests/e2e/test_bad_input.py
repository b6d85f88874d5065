from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose
from PIL import Image
from tests.e2e import picture
from tests.e2e.conftest import Caller, bytes_tensor

from sensorium._transports.base import Tensor
from sensorium.errors import InvalidInputError, SensoriumError, UnknownTaskError

pytestmark = pytest.mark.triton

QUESTION = b"what color is the star"


@pytest.fixture(autouse=True)
def _still_up(caller: Caller) -> Iterator[None]:
    """After every bad input the server answers a good one."""
    yield
    answer = caller.ask("visual_question_answering", image=picture.noise(), question=QUESTION)
    assert answer["score"]


def numbers(name: str, array: Any) -> Tensor:  # noqa: ANN401 - an array
    """Pack an array as a tensor."""
    kind = {"float32": "FP32", "int64": "INT64", "uint8": "UINT8"}[str(array.dtype)]
    return Tensor(name, kind, array.shape, array.tobytes())


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (b"", r"image is empty \(0 bytes\)"),
        (b"this is no picture", "image is not a JPEG, PNG, WebP"),
        (picture.noise(kind="JPEG", size=(200, 200))[:4000], "image is damaged or truncated"),
        (picture.noise(kind="PNG", size=(200, 200))[:4000], "image is damaged or truncated"),
        (bytes(20_000_001), r"image is 20.0 MB; the limit is 20 MB \(max_image_bytes\)"),
        (picture.noise() + bytes(25_000_000), r"image is 25.0 MB; the limit is 20 MB"),
    ],
    ids=["empty", "text", "cut JPEG", "cut PNG", "bytes", "padded"],
)
@pytest.mark.parametrize("task", ["visual_question_answering", "image_captioning"])
def test_bad_image(caller: Caller, task: str, image: bytes, message: str) -> None:
    """A bad image is refused with what is wrong and what to do, without paths or tracebacks."""
    with pytest.raises(InvalidInputError, match=f"^{message}") as caught:
        caller.ask(task, image=image, question=QUESTION)

    assert "Traceback" not in str(caught.value)
    assert "/" not in str(caught.value)


def test_bomb_is_not_decoded(caller: Caller) -> None:
    """A picture of 30,000 x 30,000 pixels in few kilobytes is refused by its header."""
    data = picture.bomb()
    assert len(data) < 200_000

    with pytest.raises(InvalidInputError, match=r"more than 40,000,000 pixels|900,000,000"):
        caller.ask("image_captioning", image=data)


def _rotated() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = picture.drawing().transpose(Image.Transpose.ROTATE_90)
    return picture.encoded(turned, "PNG", exif=exif)


def _deep() -> bytes:
    grey = np.asarray(picture.drawing().convert("L")).astype(np.uint16) * 257
    return picture.encoded(Image.fromarray(grey), "PNG")


def _animated() -> bytes:
    other = Image.new("RGB", picture.drawing().size)
    return picture.encoded(picture.drawing(), "PNG", save_all=True, append_images=[other])


@pytest.mark.parametrize(
    ("make", "mode", "tolerance"),
    [
        (_rotated, "RGB", 1e-5),
        (_animated, "RGB", 1e-5),
        (_deep, "L", 1e-5),
        (lambda: picture.encoded(picture.drawing().convert("P"), "PNG"), "RGB", 0.05),
        (
            lambda: picture.encoded(picture.drawing().convert("RGBA"), "WEBP", lossless=True),
            "RGB",
            1e-5,
        ),
        (lambda: picture.encoded(picture.drawing().convert("L"), "JPEG", quality=100), "L", 0.05),
        (
            lambda: picture.encoded(picture.drawing().convert("CMYK"), "JPEG", quality=100),
            "RGB",
            0.1,
        ),
    ],
    ids=["EXIF-rotated", "animated", "16-bit", "palette", "alpha", "grey", "CMYK"],
)
def test_unusual_image_is_answered_right(
    caller: Caller, make: Callable[[], bytes], mode: str, tolerance: float
) -> None:
    """A picture in an unusual form gives the embedding of the same picture in its plain form."""
    plain = picture.encoded(picture.drawing().convert(mode).convert("RGB"), "PNG")

    usual, unusual = (
        np.frombuffer(caller.ask("image_embedding", image=data)["embedding"][0], "<f4")
        for data in (plain, make())
    )

    assert_allclose(unusual, usual, atol=tolerance)


@pytest.mark.parametrize(
    ("question", "message"),
    [
        (b"", "text is empty"),
        (b"   ", "text is empty"),
        (b"a" * 513, r"text is 513 characters long; the limit is 512 characters"),
        (b"star " * 65, r"text has 65 tokens; the model takes 64"),
        (b"what \xff\xfe color", r"text is not valid UTF-8: byte 0xff at position 5"),
    ],
    ids=["empty", "blank", "characters", "tokens", "UTF-8"],
)
def test_bad_question(caller: Caller, question: bytes, message: str) -> None:
    """A bad question is refused with what is wrong and the limit."""
    with pytest.raises(InvalidInputError, match=f"^{message}"):
        caller.ask("visual_question_answering", image=picture.noise(), question=question)


def test_unknown_words_are_answered(caller: Caller) -> None:
    """Words outside the vocabulary get an answer."""
    answer = caller.ask(
        "visual_question_answering", image=picture.noise(), question="где звезда?".encode()
    )

    assert len(answer["answer"]) == 1


def test_bad_item_of_a_batch_is_named(caller: Caller) -> None:
    """In a request of several items the message says which one is bad."""
    with pytest.raises(InvalidInputError, match=r"^item 1 of 3: image is empty"):
        caller.ask("image_embedding", image=[picture.noise(), b"", picture.noise()])


IMAGE = bytes_tensor("image", picture.noise())


@pytest.mark.parametrize(
    ("task", "tensors", "message"),
    [
        ("image_captioning", [numbers("image", np.ones((1, 1), np.float32))], "data-type.*BYTES"),
        ("image_captioning", [numbers("image", np.ones((1, 9), np.uint8))], "data-type|shape"),
        ("image_captioning", [Tensor("image", "BYTES", (1, 2), IMAGE.data * 2)], "shape"),
        ("image_captioning", [Tensor("image", "BYTES", (1,), IMAGE.data)], "shape"),
        ("image_captioning", [bytes_tensor("image", *[b"x"] * 99)], "batch.?size"),
        ("image_captioning", [Tensor("image", "BYTES", (1, 1), b"\xff\xff\xff\x7fab")], "image"),
        ("image_captioning", [Tensor("image", "BYTES", (1, 1), b"")], "image"),
        ("visual_question_answering", [IMAGE], "expected 2 inputs|question"),
        ("image_captioning", [IMAGE, bytes_tensor("sound", b"x")], "sound|expected 1 inputs"),
        ("image_captioning", [bytes_tensor("picture", b"x")], "picture"),
        ("image_encoder", [numbers("pixel_values", np.ones((1, 3, 5, 5), np.float32))], "shape"),
        (
            "text_encoder",
            [numbers("input_ids", np.ones((1, 3), np.int64))],
            "attention_mask|inputs",
        ),
        (
            "text_encoder",
            [
                numbers("input_ids", np.ones((1, 3), np.int64)),
                numbers("attention_mask", np.ones((1, 2), np.int64)),
            ],
            "attention_mask is 2 long along sequence, another input 3",
        ),
    ],
    ids=[
        *("dtype", "raw bytes", "two columns", "no batch axis", "too many items", "lying length"),
        *("no content", "missing input", "unknown input", "wrong input", "stage shape"),
        *("stage input missing", "lengths differ"),
    ],
)
def test_misshapen_request(caller: Caller, task: str, tensors: list[Tensor], message: str) -> None:
    """Wrong dtypes, shapes and names are the caller's mistakes, told as such."""
    with pytest.raises(InvalidInputError, match=message):
        caller.infer(task, *tensors)


def test_ids_outside_the_vocabulary_fail_alone(caller: Caller) -> None:
    """Token ids that no tokenizer gives, sent to a stage directly, are an error and no crash."""
    with pytest.raises(SensoriumError) as caught:
        caller.infer(
            "text_encoder",
            numbers("input_ids", np.full((1, 3), 9999, np.int64)),
            numbers("attention_mask", np.ones((1, 3), np.int64)),
        )

    assert "internal error, see the server's log (request test)" in str(caught.value)


def test_unknown_task(caller: Caller) -> None:
    """A task that does not exist has an error of its own, which lists those that do."""
    with pytest.raises(UnknownTaskError, match="mind_reading"):
        caller.infer("mind_reading", IMAGE)
