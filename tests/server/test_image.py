import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from sensorium.errors import ConfigurationError, InvalidInputError
from sensorium_server.settings import Settings, load
from sensorium_server.stages import Stage, StageConfig, image

Maker = Callable[..., bytes]
PARAMETERS = {"image_size": "8", "mean": "0.5,0.4,0.3", "std": "0.5,0.25,0.2"}


def stage(**parameters: str) -> Stage:
    """Return the stage with some parameters changed."""
    return image.stage(StageConfig("image_preprocess", Path(), PARAMETERS | parameters), load())


def batch(*items: bytes) -> dict[str, Any]:
    """Return one request of several pictures."""
    return {"image": np.array([[item] for item in items], np.object_)}


def rgb(data: bytes, settings: Settings) -> Any:  # noqa: ANN401 - an array
    """Return a picture's decoded bytes."""
    return image.pixels_of(image.decode(data, settings))


def encoded(picture: Image.Image, kind: str, **options: object) -> bytes:
    """Return a picture's file."""
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def png_header(width: int, height: int) -> bytes:
    """Return a PNG of a few bytes that claims to be huge."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    size = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", size)
        + chunk(b"IDAT", zlib.compress(bytes(9999)))
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "GIF"])
def test_values_equal_plain_pillow(picture: Maker, kind: str) -> None:
    """The stage gives what Pillow and a formula give, for every format."""
    data = picture((40, 30), kind=kind)
    plain = Image.open(io.BytesIO(data)).convert("RGB").resize((8, 8), Image.Resampling.BICUBIC)
    expected = (np.asarray(plain) / 255 - [0.5, 0.4, 0.3]) / [0.5, 0.25, 0.2]

    pixels = stage()(batch(data))["pixel_values"]

    assert pixels.dtype == np.float32
    np.testing.assert_allclose(pixels, expected.transpose(2, 0, 1)[None], atol=2e-6)


@pytest.mark.parametrize("subsampling", [0, 1, 2])
def test_fast_jpeg_path_equals_pillow(picture: Maker, settings: Settings, subsampling: int) -> None:
    """The fast JPEG path gives Pillow's very bytes, for every chroma subsampling and odd size."""
    data = picture((33, 21), kind="JPEG", subsampling=subsampling)

    np.testing.assert_array_equal(
        rgb(data, settings), np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    )


def test_grey_jpeg(picture: Maker, settings: Settings) -> None:
    """A grey JPEG becomes three equal channels."""
    pixels = rgb(picture(mode="L", kind="JPEG"), settings)

    np.testing.assert_array_equal(pixels[..., 0], pixels[..., 2])


def test_cmyk_jpeg(settings: Settings) -> None:
    """A CMYK JPEG comes out in its colours."""
    red = Image.new("RGB", (16, 16), (250, 5, 5)).convert("CMYK")

    np.testing.assert_allclose(
        rgb(encoded(red, "JPEG", quality=100), settings)[8, 8], (250, 5, 5), atol=6
    )


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(settings: Settings, orientation: int) -> None:
    """A picture is turned upright, as Pillow's own `exif_transpose` does."""
    corner = Image.new("RGB", (32, 16))
    corner.paste((255, 0, 0), (0, 0, 16, 8))
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(corner, "JPEG", exif=exif, quality=100, subsampling=0)
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))

    np.testing.assert_array_equal(rgb(data, settings), np.asarray(upright))


def test_unreadable_exif_is_ignored(picture: Maker, settings: Settings) -> None:
    """Garbage where the EXIF should be does not cost the picture."""
    data = picture(kind="JPEG", exif=b"Exif\x00\x00garbage")

    assert rgb(data, settings).shape == (9, 12, 3)


def test_16_bit_grey(settings: Settings) -> None:
    """A 16-bit picture keeps its high byte instead of turning white."""
    deep = Image.fromarray(np.full((4, 4), 0x80FF, np.uint16))

    assert rgb(encoded(deep, "PNG"), settings)[0, 0].tolist() == [128, 128, 128]


def test_transparency_lies_over_white(settings: Settings) -> None:
    """What is transparent becomes white, half transparent half white."""
    glass = Image.new("RGBA", (4, 4), (0, 0, 0, 0))
    glass.putpixel((0, 0), (255, 0, 0, 128))

    pixels = rgb(encoded(glass, "PNG"), settings)

    assert pixels[3, 3].tolist() == [255, 255, 255]
    np.testing.assert_allclose(pixels[0, 0], (255, 127, 127), atol=1)


def test_palette(settings: Settings) -> None:
    """A palette picture comes out in its colours, its transparent entry in white."""
    drawn = Image.new("P", (4, 4), 1)
    drawn.putpalette([0, 0, 0, 10, 200, 30])
    drawn.putpixel((0, 0), 0)

    pixels = rgb(encoded(drawn, "PNG", transparency=0), settings)

    assert pixels[3, 3].tolist() == [10, 200, 30]
    assert pixels[0, 0].tolist() == [255, 255, 255]


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_animation_gives_its_first_frame(settings: Settings, kind: str) -> None:
    """Of an animation the first frame is taken."""
    frames = [Image.new("RGB", (8, 8), color) for color in ("red", "blue")]
    data = encoded(frames[0], kind, save_all=True, append_images=frames[1:], lossless=True)

    np.testing.assert_allclose(rgb(data, settings)[4, 4], (255, 0, 0), atol=2)


def test_center_crop() -> None:
    """`center_crop` keeps the proportions and cuts the longer edge's ends."""
    flag = Image.new("RGB", (48, 16), "blue")
    flag.paste("white", (16, 0, 32, 16))

    pixels = stage(crop="center_crop")(batch(encoded(flag, "PNG")))["pixel_values"]

    assert pixels[0, 0].min() > 0.5


def test_center_crop_refuses_a_thread() -> None:
    """A picture so thin that its resized form would be huge is refused."""
    thread = encoded(Image.new("L", (1, 500)), "PNG")

    with pytest.raises(InvalidInputError, match=r"1 x 500 pixels.*100 times"):
        stage(crop="center_crop")(batch(thread))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", r"image is empty \(0 bytes\)"),
        (b"hello world", r"not a JPEG, PNG, WebP, GIF or BMP: its 11 bytes start with 68 65"),
        (b"\xff\xd8\xff", "not a JPEG|damaged"),
        (png_header(30_000, 30_000), r"900,000,000|more than 40,000,000 pixels"),
        (png_header(10_000, 5_000), r"10,000 x 5,000 = 50,000,000 pixels; the limit is 40,000,000"),
        (b"%PDF-1.4 and so on", "not a JPEG"),
    ],
    ids=["empty", "text", "three bytes", "bomb", "large", "pdf"],
)
def test_bad_bytes(settings: Settings, data: bytes, message: str) -> None:
    """What is no acceptable picture is refused with the reason, and never decoded."""
    with pytest.raises(InvalidInputError, match=message):
        image.decode(data, settings)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_truncated(picture: Maker, settings: Settings, kind: str) -> None:
    """A file cut in the middle is refused, not half answered."""
    data = picture((64, 64), kind=kind)

    with pytest.raises(InvalidInputError, match=r"damaged or truncated|not a JPEG"):
        image.decode(data[: len(data) // 2], settings)


def test_large_jpeg_is_refused_by_its_header(picture: Maker) -> None:
    """The pixel limit holds on the fast path too."""
    with pytest.raises(InvalidInputError, match=r"12 x 9 = 108 pixels; the limit is 100"):
        image.decode(picture(kind="JPEG"), load({"max_image_pixels": 100}))


def test_byte_limit(picture: Maker) -> None:
    """A file over the limit is refused before anything reads it."""
    with pytest.raises(InvalidInputError, match=r"image is 0.0 MB; the limit is 1e-05 MB"):
        image.decode(picture(), load({"max_image_bytes": 10}))


def test_bad_item_is_named(picture: Maker) -> None:
    """In a batch the message says which item is bad."""
    with pytest.raises(InvalidInputError, match=r"^item 1 of 3: image is empty"):
        stage()(batch(picture(), b"", picture()))


@pytest.mark.parametrize(
    ("key", "value"),
    [("image_size", "big"), ("crop", "stretch"), ("resample", "nearest"), ("mean", "0.5,x")],
)
def test_bad_parameter(key: str, value: str) -> None:
    """A bad parameter of config.pbtxt is named with its value."""
    with pytest.raises(
        ConfigurationError, match=f'image_preprocess/config.pbtxt: {key} = "{value}"'
    ):
        stage(**{key: value})


def test_present_images_are_marked(picture: Maker) -> None:
    """Every image that was sent is marked as present."""
    assert stage()(batch(picture(), picture()))["image_present"].tolist() == [[1], [1]]


def test_missing_image_is_zeros(picture: Maker) -> None:
    """Where the image is empty and the audio is not, there are zeros, marked as absent."""
    request = batch(b"", picture()) | {"audio": np.array([[b"any"], [b""]], np.object_)}

    outputs = stage()(request)

    assert outputs["image_present"].tolist() == [[0], [1]]
    assert not outputs["pixel_values"][0].any()
    assert outputs["pixel_values"][1].any()


def test_nothing_at_all_is_refused() -> None:
    """Without image and audio the image is told to be empty."""
    with pytest.raises(InvalidInputError, match=r"^image is empty"):
        stage()(batch(b"") | {"audio": np.array([[b""]], np.object_)})


def test_missing_parameter() -> None:
    """A missing parameter is named."""
    with pytest.raises(ConfigurationError, match='lacks the parameter "image_size"'):
        image.stage(StageConfig("image_preprocess", Path()), load())


@hypothesis_settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    kind=st.sampled_from(["JPEG", "PNG", "WEBP", "GIF", "BMP"]),
    place=st.floats(0, 1),
    byte=st.integers(0, 255),
    cut=st.floats(0, 1),
)
def test_any_damage_is_refused_or_read(  # noqa: PLR0917 - hypothesis names them
    picture: Maker, settings: Settings, kind: str, place: float, byte: int, cut: float
) -> None:
    """Whatever happens to a file, it is read or refused as invalid input, and nothing else."""
    data = bytearray(picture((24, 24), kind=kind))
    data[int(place * (len(data) - 1))] = byte
    try:
        pixels = rgb(bytes(data[: int(cut * len(data)) + 1]), settings)
    except InvalidInputError:
        return
    assert pixels.shape[2] == 3
