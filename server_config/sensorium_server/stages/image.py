"""The stage `image_preprocess`: picture bytes to normalised pixels.

Reads JPEG, PNG, WebP, GIF and BMP. Of an animation it takes the first frame; it turns the picture
upright by its EXIF orientation; transparency lies over white; 16-bit channels keep their high
byte; grey, palette and CMYK become RGB. Bytes are counted before the header is read, and
pixels by the header before anything is decoded.

Parameters in `config.pbtxt`:

| key | meaning | default |
|---|---|---|
| `image_size` | edge of the square that the encoder takes, pixels | required |
| `crop` | `squash`, `center_crop` or `fit`: see `framing.py` | `squash` |
| `resize_edge` | the shortest edge before `center_crop` or of `fit`, pixels | `image_size` |
| `longest_edge` | the longest edge of `fit`, pixels | `image_size` |
| `crop_rounding` | half a pixel of `center_crop`: `down` or to `even` | `down` |
| `multiple` | what the edges are multiples of by `fit`, pixels | `1` |
| `resample` | `bicubic`, `bilinear` or `lanczos`, all antialiased | `bicubic` |
| `mean`, `std` | three numbers each, `0.5,0.5,0.5`, of channels scaled to 0…1 | required |

Input `image` BYTES [n,1], outputs `pixel_values` FP32 [n,3,image_size,image_size], `image_present`
INT64 [n,1] and `image_extent` INT64 [n,2], the height and width that the picture covers: the rest
is zeros. With `audio`, an item that is empty gives zeros and is marked absent
where the audio's is not.
"""

import io
import warnings
from collections.abc import Callable

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from sensorium import contract
from sensorium.errors import InvalidInputError
from sensorium_server.settings import Settings
from sensorium_server.stages import Stage, StageConfig, Tensors
from sensorium_server.stages.framing import framing_from
from sensorium_server.stages.item import item, map_items

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP")
"""What is read, by Pillow's names; every further decoder is a further risk."""

FORMAT_NAMES = "JPEG, PNG, WebP, GIF or BMP"
_CHANNELS = 3
_JPEG_MAGIC = b"\xff\xd8\xff"
_EXIF_MAGIC = b"Exif\x00\x00"


def stage(config: StageConfig, settings: Settings) -> Stage:
    """Build the stage from its parameters and the limits."""
    size = config.integer("image_size")
    framed = framing_from(config)
    normalise = normaliser(config)

    def preprocess(inputs: Tensors) -> Tensors:
        images = inputs[contract.IMAGE.name].ravel()
        pixels = np.zeros((images.size, _CHANNELS, size, size), np.float32)
        present = np.ones((images.size, 1), np.int64)
        extent = np.zeros((images.size, 2), np.int64)

        def fill(row: int) -> None:
            if not images[row] and item(inputs, contract.AUDIO, row):
                present[row] = 0
            else:
                picture = np.asarray(framed(decode(images[row], settings)))
                height, width = extent[row] = picture.shape[:2]
                normalise(picture, pixels[row, :, :height, :width])

        map_items(fill, np.arange(images.size))
        return {
            contract.PIXEL_VALUES.name: pixels,
            contract.IMAGE_PRESENT.name: present,
            contract.IMAGE_EXTENT.name: extent,
        }

    return preprocess


def normaliser(config: StageConfig) -> Callable[[NDArray[np.uint8], NDArray[np.float32]], None]:
    """Return what writes (x/255 − mean)/std of pixels [..., h, w, channel] to [..., 3, h, w]."""
    mean = np.array(config.numbers("mean"), np.float64)
    std = np.array(config.numbers("std"), np.float64)
    scale = (1 / (255 * std)).astype(np.float32)
    shift = (-mean / std).astype(np.float32)

    def normalise(pixels: NDArray[np.uint8], out: NDArray[np.float32]) -> None:
        for channel in range(_CHANNELS):
            plane = out[..., channel, :, :]
            np.multiply(pixels[..., channel], scale[channel], out=plane)
            plane += shift[channel]

    return normalise


def decode(data: bytes, limits: Settings) -> Image.Image:
    """Return the upright picture in mode RGB, or RGBX whose fourth channel means nothing.

    Raises:
        InvalidInputError: `data` is empty, too large, not a picture or damaged.
    """
    if not data:
        raise InvalidInputError(f"image is empty (0 bytes). Send the bytes of a {FORMAT_NAMES}.")
    if len(data) > limits.max_image_bytes:
        raise InvalidInputError(
            f"image is {len(data) / 1e6:.1f} MB; the limit is {limits.max_image_bytes / 1e6:g} MB "
            f"(max_image_bytes). Send a smaller file, or raise the limit on the server."
        )
    if data.startswith(_JPEG_MAGIC):
        fast = _decode_plain_jpeg(data, limits)
        if fast is not None:
            return fast
    return _decode_any(data, limits)


def _decode_plain_jpeg(data: bytes, limits: Settings) -> Image.Image | None:
    """Decode a JPEG without EXIF in half of Pillow's time; None leaves it to Pillow."""
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
    except ValueError:
        return None
    _check_pixels(width, height, limits)
    if colours in {"CMYK", "YCCK"} or _EXIF_MAGIC in data:
        return None
    try:
        # Four bytes per pixel is Pillow's own layout, so that it needs no copy.
        pixels = simplejpeg.decode_jpeg(data, "RGBX", fastdct=False, fastupsample=False)
    except ValueError:
        return None
    return Image.frombuffer("RGBX", (width, height), pixels, "raw", "RGBX", 0, 1)


def _decode_any(data: bytes, limits: Settings) -> Image.Image:
    try:
        with warnings.catch_warnings():
            # Our limit follows; Pillow's own would only warn.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            picture: Image.Image = Image.open(io.BytesIO(data), formats=FORMATS)
            _check_pixels(picture.width, picture.height, limits)
            picture.load()
            return _as_rgb(_upright(picture))
    except InvalidInputError:
        raise
    except Image.DecompressionBombError:
        raise InvalidInputError(
            f"image has more than {limits.max_image_pixels:,} pixels (max_image_pixels). "
            f"Send a smaller one, or raise the limit on the server."
        ) from None
    except UnidentifiedImageError:
        raise InvalidInputError(
            f"image is not a {FORMAT_NAMES}: its {len(data):,} bytes start with "
            f"{data[:8].hex(' ')}. Send the bytes of a picture file."
        ) from None
    except Exception as error:  # damaged files raise a dozen classes in Pillow
        raise InvalidInputError(
            f"image is damaged or truncated after {len(data):,} bytes ({_reason(error)}). "
            f"Send the whole file."
        ) from error


def _reason(error: Exception) -> str:
    return str(error) or type(error).__name__


def _check_pixels(width: int, height: int, limits: Settings) -> None:
    if width * height > limits.max_image_pixels:
        raise InvalidInputError(
            f"image has {width:,} x {height:,} = {width * height:,} pixels; the limit is "
            f"{limits.max_image_pixels:,} (max_image_pixels). Send a smaller one, or raise the "
            f"limit on the server."
        )


def _upright(picture: Image.Image) -> Image.Image:
    """Turn the picture as its EXIF says; an unreadable EXIF says nothing."""
    try:
        orientation = picture.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # noqa: BLE001 - what is wrong with the EXIF is no fault of the picture
        return picture
    return picture if orientation == 1 else ImageOps.exif_transpose(picture)


def _as_rgb(picture: Image.Image) -> Image.Image:
    """Return the picture in RGB: transparency over white, 16 bits by their high byte."""
    if picture.mode.startswith("I"):
        high = np.asarray(picture).astype(np.uint32) >> 8
        picture = Image.fromarray(np.minimum(high, 255).astype(np.uint8))
    if picture.has_transparency_data:
        layer = picture.convert("RGBA")
        white = Image.new("RGBA", layer.size, (255, 255, 255, 255))
        picture = Image.alpha_composite(white, layer)
    return picture if picture.mode == "RGB" else picture.convert("RGB")


def pixels_of(picture: Image.Image) -> NDArray[np.uint8]:
    """Return a decoded picture's RGB bytes, [height, width, 3]."""
    return np.asarray(picture)[..., :_CHANNELS]
