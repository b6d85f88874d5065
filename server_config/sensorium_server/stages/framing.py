"""How a picture of any shape becomes one of the shape that an encoder takes.

- `squash` resizes both edges to `image_size`.
- `center_crop` resizes the shortest edge to `resize_edge` and cuts a square out of the middle,
  half a pixel rounded as `crop_rounding` says: `down`, as transformers does, or to `even`, as
  torchvision does.
- `fit` resizes the shortest edge to `resize_edge`, or the longest to `longest_edge` where that is
  less, and rounds both edges down to a multiple of `multiple`, at least one.

All filters are Pillow's, antialiased.
"""

from collections.abc import Callable
from dataclasses import dataclass

from PIL import Image

from sensorium.errors import ConfigurationError, InvalidInputError
from sensorium_server.stages import StageConfig

RESAMPLE = {
    "bicubic": Image.Resampling.BICUBIC,
    "bilinear": Image.Resampling.BILINEAR,
    "lanczos": Image.Resampling.LANCZOS,
}
MAX_ASPECT = 100
"""The most that `center_crop` accepts: beyond it, the resized picture would be a bomb itself."""

CROPS = ("squash", "center_crop", "fit")


@dataclass(frozen=True, slots=True)
class Framing:
    """What is done to a picture's shape; it can be sent to another process."""

    image_size: int
    resample: str = "bicubic"
    crop: str = "squash"
    resize_edge: int = 0
    longest_edge: int = 0
    multiple: int = 1
    crop_rounding: str = "down"

    def __call__(self, picture: Image.Image) -> Image.Image:
        """Return the picture in the shape that the encoder takes.

        Raises:
            InvalidInputError: Its longer edge is too many times the shorter one.
        """
        return _FRAMED[self.crop](self, picture)


def framing_from(config: StageConfig) -> Framing:
    """Read a stage's parameters.

    Raises:
        ConfigurationError: One is missing, malformed, or they contradict each other.
    """
    size = config.integer("image_size")
    crop = config.choice("crop", CROPS, "squash")
    edge = config.integer("resize_edge", size)
    if (crop == "center_crop" and edge < size) or (crop == "fit" and edge > size):
        least = "at least" if crop == "center_crop" else "at most"
        raise ConfigurationError(
            f"{config.name}/config.pbtxt: resize_edge = {edge} must be {least} image_size = {size}."
        )
    resample = config.choice("resample", tuple(RESAMPLE), "bicubic")
    longest, multiple = config.integer("longest_edge", size), config.integer("multiple", 1)
    if crop == "fit" and longest // multiple * multiple > size:
        raise ConfigurationError(
            f"{config.name}/config.pbtxt: longest_edge = {longest} is beyond image_size = {size}."
        )
    rounding = config.choice("crop_rounding", ("down", "even"), "down")
    return Framing(size, resample, crop, edge, longest, multiple, rounding)


def _squash(framing: Framing, picture: Image.Image) -> Image.Image:
    size = framing.image_size
    return picture.resize((size, size), RESAMPLE[framing.resample])


def _center_crop(framing: Framing, picture: Image.Image) -> Image.Image:
    size, edge, short = framing.image_size, framing.resize_edge, min(picture.size)
    width, height = (edge * one // short for one in picture.size)
    if max(width, height) > edge * MAX_ASPECT:
        raise InvalidInputError(
            f"image is {picture.width:,} x {picture.height:,} pixels; its longer edge may be "
            f"{MAX_ASPECT} times the shorter one. Crop it."
        )
    spare = (width - size, height - size)
    # Python rounds a half to even, as torchvision does.
    left, top = (round(one / 2) if framing.crop_rounding == "even" else one // 2 for one in spare)
    box = (left, top, left + size, top + size)
    return picture.resize((width, height), RESAMPLE[framing.resample]).crop(box)


def _fit(framing: Framing, picture: Image.Image) -> Image.Image:
    scale = framing.resize_edge / min(picture.size)
    edges = [scale * one for one in picture.size]
    if max(edges) > framing.longest_edge:
        shrink = framing.longest_edge / max(edges)
        edges = [shrink * one for one in edges]
    width, height = (_rounded(edge, framing.multiple) for edge in edges)
    return picture.resize((width, height), RESAMPLE[framing.resample])


def _rounded(edge: float, multiple: int) -> int:
    return max(int(edge + 0.5) // multiple, 1) * multiple


_FRAMED: dict[str, Callable[[Framing, Image.Image], Image.Image]] = {
    "squash": _squash,
    "center_crop": _center_crop,
    "fit": _fit,
}
