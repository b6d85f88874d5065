"""Stable Diffusion: what is served draws as the library's pipeline does; what is broken is told."""

import io
import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import load_file, save_file
from tests import diffusion_family
from torch import Tensor

from sensorium.errors import ConfigurationError
from sensorium_export.bundle import export_bundle
from sensorium_export.graphs import graphs_of
from sensorium_export.recipe import required
from sensorium_export.source import Source, open_source
from sensorium_export.stage_parameters import parameters_of
from sensorium_server import settings
from sensorium_server.diffusion import Conditions, noise, pixels, sample
from sensorium_server.schedules import Array, schedule_from
from sensorium_server.stages import StageConfig, text

PROMPT = "a red star"
SHAPE = (1, 4, diffusion_family.SIDE // 2, diffusion_family.SIDE // 2)


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's directory; do not change it."""
    path = tmp_path_factory.mktemp("families") / "tiny-sd"
    return diffusion_family.stable_diffusion(path)


@pytest.fixture(scope="module")
def source(directory: Path) -> Source:
    """That directory, loaded."""
    return open_source(directory)


@pytest.fixture
def copy(directory: Path, tmp_path: Path) -> Path:
    """The directory again, to be changed."""
    return Path(shutil.copytree(directory, tmp_path / "mine"))


def stage_of(source: Source, name: str) -> StageConfig:
    """Return a stage's config as it is exported."""
    return StageConfig(name, source.tokenizer_path.parent, parameters_of(name, source.recipe))


def served_ids(source: Source, words: str) -> dict[str, NDArray[Any]]:
    """Return what the server reads of a text."""
    stage = text.stage(stage_of(source, "text_preprocess"), settings.load())
    return dict(stage({"text": np.array([[words.encode()]], object)}))


def drawn_by_server(source: Source, seed: int, steps: int, scale: float) -> NDArray[np.uint8]:
    """Draw with the server's loop and schedule, and the networks in PyTorch."""
    decoder: Any = source.model.get_submodule("image_decoder")
    read = {name: torch.from_numpy(ids) for name, ids in served_ids(source, PROMPT).items()}

    def run(method: str, *arrays: Array | Tensor) -> Array:
        given = [torch.as_tensor(array) for array in arrays]
        with torch.no_grad():
            out: Array = getattr(decoder, method)(*given).numpy()
        return out

    tokens: Tensor = source.model.get_submodule("text_encoder")(read["input_ids"]).detach()
    mask = read["attention_mask"]
    latents = sample(
        lambda *arrays: run("denoise", *arrays),
        noise(seed, SHAPE),
        Conditions(
            run("condition", tokens, mask), run("condition", tokens, torch.zeros_like(mask))
        ),
        steps=steps,
        guidance_scale=scale,
        schedule=schedule_from(stage_of(source, "image_decoder")),
    )
    picture: NDArray[np.uint8] = pixels(run("decode", latents))[0]
    return picture


def drawn_by_library(path: Path, words: str, seed: int, steps: int, scale: float) -> Any:  # noqa: ANN401
    """Draw as anybody would with diffusers, from the same noise."""
    from diffusers import StableDiffusionPipeline  # noqa: PLC0415 - after the offline switch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pipeline: Any = StableDiffusionPipeline.from_pretrained(
            path, local_files_only=True, use_safetensors=True
        )
    pipeline.set_progress_bar_config(disable=True)
    latents = torch.from_numpy(noise(seed, SHAPE))
    drawn = pipeline(words, latents=latents, num_inference_steps=steps, guidance_scale=scale)
    return np.asarray(drawn.images[0])


def levels_apart(one: NDArray[Any], other: NDArray[Any]) -> int:
    """Return the largest difference in levels."""
    assert one.shape == other.shape
    return int(np.abs(one.astype(np.int64) - other.astype(np.int64)).max())


def test_recipe_is_the_checkpoints(source: Source) -> None:
    """Sizes, schedule and graphs are read from the directory, and the bundle is called like it."""
    recipe = source.recipe

    assert (recipe.bundle, recipe.tasks) == ("tiny_sd", ("text_to_image",))
    assert recipe.stages == ("text_preprocess", "text_encoder", "image_decoder")
    assert (recipe.sizes["image_size"], recipe.sizes["noise_size"]) == (32, 16)
    assert required(recipe.text).pad_to == diffusion_family.LENGTH
    assert required(recipe.diffusion).scheduler == "pndm"
    assert [spec.name for spec in recipe.signature("text_encoder").inputs] == ["input_ids"]
    assert [graph.path for graph in graphs_of(recipe)][-1] == "image_decoder/1/decode.onnx"


def test_every_file_is_told(source: Source, directory: Path) -> None:
    """The manifest will name each file that the bundle was made of."""
    assert set(source.files) >= {"model_index.json", "tokenizer/tokenizer.json", "vae/config.json"}
    assert all((directory / name).is_file() for name in source.files)


def test_prompts_are_read_as_the_library_reads_them(source: Source, directory: Path) -> None:
    """The served ids are those of the library's own tokenizer, padding included."""
    from transformers import AutoTokenizer  # noqa: PLC0415 - after the offline switch

    tokenizer = AutoTokenizer.from_pretrained(directory / "tokenizer")
    expected = tokenizer(PROMPT, padding="max_length").input_ids

    assert served_ids(source, PROMPT)["input_ids"].tolist() == [expected]


@pytest.mark.parametrize(
    ("scheduler", "changes"),
    [
        ("PNDMScheduler", {}),
        ("DDIMScheduler", {"prediction_type": "v_prediction", "timestep_spacing": "trailing"}),
        ("DDIMScheduler", {"clip_sample": True, "steps_offset": 0, "set_alpha_to_one": False}),
        ("EulerDiscreteScheduler", {"timestep_spacing": "linspace"}),
    ],
    ids=str,
)
def test_drawings_are_the_librarys(copy: Path, scheduler: str, changes: dict[str, Any]) -> None:
    """With each scheduler, the served picture is the one of `StableDiffusionPipeline`."""
    diffusion_family.set_scheduler(copy, scheduler, **changes)
    source = open_source(copy)

    expected = drawn_by_library(copy, PROMPT, 7, 6, 4.0)

    assert levels_apart(drawn_by_server(source, 7, 6, 4.0), expected) <= 1
    assert np.ptp(expected) > 100


@pytest.mark.parametrize(("scale", "words"), [(0.0, ""), (1.0, PROMPT)])
def test_guidance_is_from_the_empty_prompt(
    source: Source, directory: Path, scale: float, words: str
) -> None:
    """Scale 0 draws the empty prompt, and 1 the prompt alone."""
    served = drawn_by_server(source, 3, 3, scale)

    assert levels_apart(served, drawn_by_library(directory, words, 3, 3, 1.0)) <= 1


def test_reference_is_the_library(source: Source, directory: Path) -> None:
    """What a verification compares with is what the pipeline draws, from bytes on."""
    ids = torch.from_numpy(served_ids(source, PROMPT)["input_ids"])
    tokens = source.model.get_submodule("text_encoder")(ids).detach()

    picture = np.asarray(Image.open(io.BytesIO(source.drawn(tokens, 5, 4, 7.5))))

    assert levels_apart(picture, drawn_by_library(directory, PROMPT, 5, 4, 7.5)) <= 1


def changed(path: Path, **values: object) -> None:
    """Change values of a JSON file."""
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def cut(path: Path) -> None:
    """Cut a file in half."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def lose(*files: Path) -> None:
    """Delete files."""
    for file in files:
        file.unlink()


def lose_a_weight(path: Path) -> None:
    """Write a file of weights again, without the last of them."""
    weights = load_file(path)
    weights.pop(max(weights))
    save_file(weights, path)


WEIGHTS = "diffusion_pytorch_model.safetensors"
INDEX = "model_index.json"
BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "another pipeline": (
        lambda path: changed(path / INDEX, _class_name="StableDiffusionXLPipeline"),
        r'"StableDiffusionXLPipeline" is no pipeline .*those that can are: StableDiffusionPipeline',
    ),
    "code of its own": (
        lambda path: changed(path / INDEX, _class_name=["pipeline", "MyPipeline"]),
        r"code that a directory brings along is never run",
    ),
    "component of its own": (
        lambda path: changed(path / INDEX, unet=["my_unet", "MyUNet"]),
        r"unet is my_unet\.MyUNet, and only diffusers\.UNet2DConditionModel is served",
    ),
    "safety checker": (
        lambda path: changed(
            path / INDEX, safety_checker=["stable_diffusion", "StableDiffusionSafetyChecker"]
        ),
        r'not served: .*set "safety_checker": \[null, null\] in model_index\.json',
    ),
    "another scheduler": (
        lambda path: changed(path / INDEX, scheduler=["diffusers", "UniPCMultistepScheduler"]),
        r"only diffusers\.DDIMScheduler or .*DDIMScheduler\.from_config\(pipe\.scheduler\.config\)",
    ),
    "another way to step": (
        lambda path: diffusion_family.set_scheduler(
            path, "EulerDiscreteScheduler", use_karras_sigmas=True, prediction_type="sample"
        ),
        r"prediction_type = 'sample' .*; use_karras_sigmas = True .*DDIMScheduler\.from_config",
    ),
    "Runge-Kutta": (
        lambda path: changed(path / "scheduler/scheduler_config.json", skip_prk_steps=False),
        r"skip_prk_steps = False",
    ),
    "several missing": (
        lambda path: lose(path / "unet" / WEIGHTS, path / "vae" / WEIGHTS),
        r"lacks unet/diffusion_.*, vae/diffusion_.*pipe\.save_pretrained",
    ),
    "no tokenizer": (
        lambda path: (path / "tokenizer/tokenizer.json").unlink(),
        r"lacks tokenizer/tokenizer\.json",
    ),
    "pickled": (
        lambda path: (path / "vae" / WEIGHTS).rename(path / "vae/diffusion_pytorch_model.bin"),
        r"pickled weights \(vae/diffusion_pytorch_model\.bin\).*pipe\.save_pretrained",
    ),
    "cut weights": (
        lambda path: cut(path / "unet" / WEIGHTS),
        r"unet/diffusion_pytorch_model\.safetensors is truncated or damaged",
    ),
    "a weight too few": (
        lambda path: lose_a_weight(path / "unet" / WEIGHTS),
        r"unet: config\.json and diffusion_\S+ disagree .missing",
    ),
    "other channels": (
        lambda path: changed(path / "vae/config.json", latent_channels=8),
        r"vae cannot be loaded as AutoencoderKL: ",
    ),
    "latents that are not square": (
        lambda path: changed(path / "unet/config.json", sample_size=[16, 8]),
        r"sample_size = .*\[16, 8\].* is no whole number",
    ),
    "masked text": (
        lambda path: changed(path / "text_encoder/config.json", use_attention_mask=True),
        r"use_attention_mask is not served",
    ),
    "other text length": (
        lambda path: changed(path / "tokenizer/tokenizer_config.json", model_max_length=77),
        r"model_max_length = 77, and the text encoder reads 20 tokens",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_directory_is_refused(copy: Path, tmp_path: Path, case: str) -> None:
    """Each kind of broken directory is told with its reason, and nothing is published."""
    spoil, message = BROKEN[case]
    spoil(copy)

    with pytest.raises(ConfigurationError, match=message) as caught:
        export_bundle(copy, tmp_path / "models")

    assert str(tmp_path) not in str(caught.value)
    assert not (tmp_path / "models").exists()
