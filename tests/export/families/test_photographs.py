"""Real photographs, stored in many ways: every family's pixels are those of its own processor."""

import io
from collections.abc import Callable, Mapping
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tests import families
from torch.nn import functional as F

from sensorium_export.source import Source, open_source
from sensorium_export.stage_parameters import parameters_of
from sensorium_server import settings
from sensorium_server.stages import StageConfig, Tensors, image

EXIF_ORIENTATION, TURNED = 0x0112, 6
SEEING = (
    "blip",
    "blip_vqa",
    "clip",
    "dinov2",
    "git",
    "open_clip",
    "resnet",
    "siglip",
    "siglip2",
    "vilt",
    "vit",
    "vit_gpt2",
)
EMBEDDING = "image_embedding"


def photograph(name: str) -> bytes:
    """Return a sample of scikit-image as it is stored."""
    return files("skimage").joinpath("data", name).read_bytes()


def stored(name: str, kind: str, size: tuple[int, int], mode: str = "RGB") -> bytes:
    """Return a sample in another size, mode and format."""
    out = io.BytesIO()
    Image.open(io.BytesIO(photograph(name))).convert(mode).resize(size).save(out, kind)
    return out.getvalue()


def turned(name: str) -> bytes:
    """Return a sample as a camera held sideways stores it."""
    out, exif = io.BytesIO(), Image.Exif()
    exif[EXIF_ORIENTATION] = TURNED
    Image.open(io.BytesIO(photograph(name))).convert("RGB").save(out, "JPEG", exif=exif)
    return out.getvalue()


WAYS: Mapping[str, Callable[[], bytes]] = {
    "colour": lambda: photograph("astronaut.png"),
    "JPEG": lambda: photograph("rocket.jpg"),
    "grey": lambda: photograph("camera.png"),
    "alpha": lambda: photograph("logo.png"),
    "odd size": lambda: photograph("chelsea.png"),
    "wide": lambda: stored("coffee.png", "JPEG", (333, 91)),
    "tall": lambda: stored("coffee.png", "WebP", (67, 401)),
    "smaller than seen": lambda: stored("astronaut.png", "PNG", (19, 23)),
    "grey with alpha": lambda: stored("logo.png", "PNG", (131, 77), "LA"),
    "palette": lambda: stored("chelsea.png", "PNG", (140, 99), "P"),
    "CMYK": lambda: stored("coffee.png", "JPEG", (120, 80), "CMYK"),
    "EXIF": lambda: turned("rocket.jpg"),
}


@pytest.fixture(scope="module")
def photographs() -> dict[str, bytes]:
    """Every photograph's file."""
    return {way: photo() for way, photo in WAYS.items()}


@pytest.mark.parametrize("name", SEEING)
def test_photographs_are_seen_as_the_library_sees_them(
    photographs: Mapping[str, bytes], name: str, tmp_path: Path
) -> None:
    """No pixel and no embedding drifts further than the bundle's budget allows."""
    source = open_source(getattr(families, name)(tmp_path / name))
    parameters = parameters_of("image_preprocess", source.recipe)
    stage = image.stage(StageConfig("image_preprocess", tmp_path, parameters), settings.load())

    for way, data in photographs.items():
        served, wanted = stage({"image": np.array([[data]], object)}), source.image_values(data)
        for output, array in wanted.items():
            allowed = source.recipe.tolerance.stage * np.abs(array).max()
            assert np.abs(served[output] - array).max() <= allowed, (way, output)
        if EMBEDDING in source.recipe.tasks:
            cosine = F.cosine_similarity(embedded(source, served), embedded(source, wanted))
            assert cosine.item() >= source.recipe.tolerance.cosine, way


def embedded(source: Source, seen: Tensors) -> torch.Tensor:
    """Return what the encoder makes of pixels."""
    encoder = source.model.get_submodule("image_encoder")
    with torch.no_grad():
        found = encoder(torch.from_numpy(seen["pixel_values"]))
    return found if isinstance(found, torch.Tensor) else found[0]
