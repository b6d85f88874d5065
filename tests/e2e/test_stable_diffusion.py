"""A user's Stable Diffusion by the commands: exported, proven, served and asked to draw."""

import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from tests import diffusion_family
from typer.testing import CliRunner, Result

from sensorium import Client
from sensorium.cli import main
from sensorium.errors import InvalidInputError
from sensorium_server.diffusion import noise
from sensorium_server.launch import Endpoints, Server

pytestmark = pytest.mark.triton

PROMPT = "a red star"


def run(*arguments: object) -> Result:
    """Run the `sensorium` command."""
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's directory."""
    path = tmp_path_factory.mktemp("families") / "tiny-sd"
    return diffusion_family.stable_diffusion(path)


@pytest.fixture(scope="module")
def repository(directory: Path) -> Path:
    """It, exported by the command."""
    path = directory.parent / "models"
    exported = run("export", directory, "--repository", path, "--json")
    assert exported.exit_code == 0, exported.output
    assert json.loads(exported.stdout)["versions"]["diffusers"]
    return path


@pytest.fixture(scope="module")
def running(start_server: Callable[..., Server], repository: Path) -> Iterator[Endpoints]:
    """Serve it."""
    with start_server(repository) as server:
        yield server.endpoints


def drawn_by_library(path: Path, seed: int, steps: int, scale: float) -> NDArray[np.int64]:
    """Draw as anybody would with diffusers, from the same noise."""
    import torch  # noqa: PLC0415 - only the reference needs it
    from diffusers import StableDiffusionPipeline  # noqa: PLC0415

    pipeline: Any = StableDiffusionPipeline.from_pretrained(path, local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    side = diffusion_family.SIDE
    latents = torch.from_numpy(noise(seed, (1, 4, side // 2, side // 2)))
    drawn = pipeline(PROMPT, latents=latents, num_inference_steps=steps, guidance_scale=scale)
    return np.asarray(drawn.images[0]).astype(np.int64)


def test_pictures_are_the_librarys(running: Endpoints, directory: Path) -> None:
    """Over gRPC and HTTP, the picture is the pipeline's; the same seed gives the same bytes."""
    files = []
    for address in (running.grpc, running.http, running.grpc):
        with Client(address, bundle="tiny_sd") as client:
            files.append(client.draw(PROMPT, seed=11, steps=6, guidance_scale=5.0).png)

    assert files[0] == files[1] == files[2]
    picture = np.asarray(Image.open(io.BytesIO(files[0]))).astype(np.int64)
    expected = drawn_by_library(directory, 11, 6, 5.0)
    assert picture.shape == expected.shape == (32, 32, 3)
    assert np.abs(picture - expected).max() <= 1
    assert np.ptp(expected) > 100


def test_seed_text_and_limits_count(running: Endpoints) -> None:
    """Another seed or text is another picture, and a text that is too long is refused."""
    with Client(running.grpc, bundle="tiny_sd") as client:
        pictures = {
            client.draw(words, seed=seed, steps=2).png
            for words, seed in ((PROMPT, 1), (PROMPT, 2), ("a red moon", 1))
        }
        with pytest.raises(InvalidInputError, match=r"the model takes 20 \(max_tokens\)"):
            client.draw("red " * 30, seed=1)

    assert len(pictures) == 3


def test_it_is_proven(directory: Path, repository: Path) -> None:
    """`sensorium verify` compares with diffusers from raw text, and passes."""
    verified = run("verify", directory, "--repository", repository, "--count", 6, "--json")

    assert verified.exit_code == 0, verified.output
    assert {*json.loads(verified.stdout)["tasks"]} == {"text_to_image"}


def test_another_schedule_is_found(directory: Path, repository: Path) -> None:
    """A scheduler that is not the checkpoint's fails the proof, by the stage's name."""
    path = repository / "tiny_sd.image_decoder/config.pbtxt"
    kept = path.read_text()
    assert 'string_value: "pndm"' in kept
    path.write_text(kept.replace('string_value: "pndm"', 'string_value: "ddim"'))
    try:
        verified = run("verify", directory, "--repository", repository, "--count", 4)
    finally:
        path.write_text(kept)

    assert verified.exit_code == 1
    assert "image_decoder/image" in verified.output
    assert "text_encoder/" not in verified.output
