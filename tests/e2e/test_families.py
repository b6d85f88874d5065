"""A user's directory of each family, by the commands: exported, proven, served and asked."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tests import families
from tests.e2e import picture
from typer.testing import CliRunner, Result

from sensorium import Client
from sensorium.cli import main
from sensorium_export.source import open_source
from sensorium_server.launch import Endpoints, Server

pytestmark = pytest.mark.triton


def run(*arguments: object) -> Result:
    """Run the `sensorium` command."""
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CLIP."""
    return families.clip(tmp_path_factory.mktemp("families") / "clip-tiny")


@pytest.fixture(scope="module")
def repository(clip: Path) -> Path:
    """It, exported by the command; each test leaves it as it was."""
    path = clip.parent / "models"
    exported = run("export", clip, "--repository", path, "--json")
    assert exported.exit_code == 0, exported.output
    assert json.loads(exported.stdout)["versions"]["transformers"]
    return path


@pytest.fixture(scope="module")
def running(start_server: Callable[..., Server], repository: Path) -> Iterator[Endpoints]:
    """Serve it."""
    with start_server(repository) as server:
        yield server.endpoints


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_clip_answers_as_the_library_does(running: Endpoints, clip: Path, protocol: str) -> None:
    """From bytes to the embedding, the served vectors are those of PyTorch and transformers."""
    source = open_source(clip)
    image, words = picture.noise(), "a red star"
    with Client(getattr(running, protocol), bundle="clip_tiny") as client:
        seen, read = client.embed_image(image).vector, client.embed_text(words).vector

    ids = np.array([source.token_ids(words)])
    expected = embedded(
        clip, pixel_values=source.image_values(image)["pixel_values"], input_ids=ids
    )
    np.testing.assert_allclose(seen, expected["image_embeds"][0], atol=1e-5)
    np.testing.assert_allclose(read, expected["text_embeds"][0], atol=1e-5)


def embedded(path: Path, **arrays: NDArray[Any]) -> dict[str, NDArray[Any]]:
    """Return what `CLIPModel` makes of arrays."""
    import torch  # noqa: PLC0415 - only the reference needs it
    from transformers import CLIPModel  # noqa: PLC0415

    model: Any = CLIPModel.from_pretrained(path)
    model.eval()
    with torch.no_grad():
        found = model(**{name: torch.from_numpy(array) for name, array in arrays.items()})
    return {name: found[name].numpy() for name in ("image_embeds", "text_embeds")}


def test_clip_is_asked_by_the_command(running: Endpoints) -> None:
    """`sensorium embed --bundle` answers with a vector of length 1."""
    asked = run("embed", "a star", "--url", running.grpc, "--bundle", "clip_tiny", "--json")

    assert asked.exit_code == 0, asked.output
    assert np.linalg.norm(json.loads(asked.stdout)["vector"]) == pytest.approx(1, abs=1e-5)


def test_clip_is_proven(clip: Path, repository: Path) -> None:
    """`sensorium verify` compares with transformers from raw bytes, and passes."""
    verified = run("verify", clip, "--repository", repository, "--count", 20, "--json")

    assert verified.exit_code == 0, verified.output
    assert {*json.loads(verified.stdout)["tasks"]} == {"text_embedding", "image_embedding"}


@pytest.mark.parametrize(
    ("name", "was", "becomes"),
    [
        ("clip_tiny.image_preprocess", 'string_value: "bicubic"', 'string_value: "bilinear"'),
        ("clip_tiny.image_preprocess", '"center_crop"', '"squash"'),
    ],
)
def test_another_preprocessing_is_found(
    clip: Path, repository: Path, name: str, was: str, becomes: str
) -> None:
    """A filter or crop that is not the checkpoint's fails the proof, by the stage's name."""
    path = repository / name / "config.pbtxt"
    kept = path.read_text()
    assert was in kept
    path.write_text(kept.replace(was, becomes))
    try:
        verified = run("verify", clip, "--repository", repository, "--count", 8)
    finally:
        path.write_text(kept)

    assert verified.exit_code == 1
    assert "image_preprocess/pixel_values" in verified.output
    assert "text_preprocess/" not in verified.output
