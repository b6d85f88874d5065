"""A library's image processor as the parameters of `image_preprocess`, for any family."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from transformers import AutoImageProcessor

from sensorium.errors import ConfigurationError
from sensorium_export.families.source import PREPROCESSOR_FILE
from sensorium_export.recipe import ImageRecipe

Processor = Any
See = Callable[[Image.Image], Mapping[str, NDArray[Any]]]

_FILTERS = {2: "bilinear", 3: "bicubic", 1: "lanczos"}
_SQUASHED_FROM = 384
_LONGER = 1333 / 800


def image_processor(path: Path) -> Processor:
    """Return the library's processor of Pillow; its other one differs by a grey level."""
    load: Any = AutoImageProcessor.from_pretrained
    return load(path, local_files_only=True, backend="pil")


def seeing(processor: Processor, image_size: int) -> See:
    """Return what gives `pixel_values` and `image_extent` of a picture, by the library itself."""

    def see(picture: Image.Image) -> Mapping[str, NDArray[Any]]:
        pixels = processor(images=picture, return_tensors="np")["pixel_values"]
        height, width = pixels.shape[-2:]
        canvas = np.zeros((1, 3, image_size, image_size), np.float32)
        canvas[:, :, :height, :width] = pixels
        return {"pixel_values": canvas, "image_extent": np.array([[height, width]])}

    return see


def image_recipe(path: Path, processor: Processor, image_size: int) -> ImageRecipe:
    """Return what the image processor does as the stage's parameters.

    Args:
        path: The checkpoint, for messages.
        processor: Loaded by `image_processor`.
        image_size: The edge of the square that the encoder takes, pixels.

    Raises:
        ConfigurationError: It does something that the stage cannot.
    """
    problems = [
        f"{name} = {found}"
        for name, found, can in (
            ("do_resize", processor.do_resize, True),
            ("do_rescale", processor.do_rescale, True),
            ("do_normalize", processor.do_normalize, True),
            ("rescale_factor", processor.rescale_factor, 1 / 255),
        )
        if found != can
    ]
    if int(processor.resample) not in _FILTERS:
        problems.append(f"resample = {processor.resample}")
    shape = _shape(processor, image_size)
    if shape is None:
        shown = ("size", "do_center_crop", "crop_size")
        problems += [f"{name} = {_shown(getattr(processor, name, None))}" for name in shown]
    if problems or shape is None:
        raise ConfigurationError(
            f"{path.name}/{PREPROCESSOR_FILE}: {', '.join(problems)} cannot be served to an "
            f"encoder of {image_size} x {image_size} pixels; see docs/families.md"
        )
    return ImageRecipe(
        image_size=image_size,
        resample=_FILTERS[int(processor.resample)],
        mean=tuple(processor.image_mean),
        std=tuple(processor.image_std),
        **shape,
    )


def longest_edge_of(processor: Processor) -> int:
    """Return the longest edge that a processor like ViLT's asks for, before it rounds it down."""
    return int(_LONGER * processor.size["shortest_edge"])


def canvas_of(processor: Processor) -> int:
    """Return the longest edge that it makes, pixels."""
    multiple: int = processor.size_divisor
    return longest_edge_of(processor) // multiple * multiple


def _shape(processor: Processor, image_size: int) -> dict[str, Any] | None:
    """Return `crop` and `resize_edge` for the shape that it makes; None if it makes another."""
    size, square = _plain(processor.size), {"height": image_size, "width": image_size}
    edge = size.get("shortest_edge")
    if edge and getattr(processor, "size_divisor", None) and processor.do_pad:
        return {
            "crop": "fit",
            "resize_edge": edge,
            "longest_edge": longest_edge_of(processor),
            "multiple": processor.size_divisor,
        }
    if edge == image_size and getattr(processor, "crop_pct", None):
        if edge >= _SQUASHED_FROM:
            return {"crop": "squash"}
        return {"crop": "center_crop", "resize_edge": int(edge / processor.crop_pct)}
    if processor.do_center_crop:
        if edge and edge >= image_size and _plain(processor.crop_size) == square:
            return {"crop": "center_crop", "resize_edge": None if edge == image_size else edge}
        return None
    return {"crop": "squash"} if size == square else None


def _shown(value: Any) -> object:  # noqa: ANN401 - untyped
    return value if value is None or isinstance(value, bool) else _plain(value)


def _plain(size: Any) -> dict[str, int]:  # noqa: ANN401 - transformers' SizeDict
    return {name: value for name, value in dict(size or {}).items() if value is not None}
