"""CLIP: what is served sees, reads and embeds as the library does; what is broken is told."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from tests import families
from torch.nn import functional as F
from transformers import CLIPModel

from sensorium.errors import ConfigurationError
from sensorium_export.bundle import export_bundle
from sensorium_export.families import bundle_named_like
from sensorium_export.probes import WAYS, drawn_picture
from sensorium_export.recipe import required
from sensorium_export.source import Source, open_source
from sensorium_export.stage_parameters import parameters_of
from sensorium_server import settings
from sensorium_server.stages import StageConfig, image, text

TEXTS = ("a RED star!", "  two   spaces ", "żółć 日本 🙂", "don't", "x" * 20)
PICTURES = "docs/images"


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's directory; do not change it."""
    return families.clip(tmp_path_factory.mktemp("families") / "clip-tiny")


@pytest.fixture(scope="module")
def source(directory: Path) -> Source:
    """That directory, loaded."""
    return open_source(directory)


@pytest.fixture
def copy(directory: Path, tmp_path: Path) -> Path:
    """The directory again, to be broken."""
    return Path(shutil.copytree(directory, tmp_path / "mine"))


def stage_of(source: Source, name: str) -> StageConfig:
    """Return a stage's config as it is exported."""
    return StageConfig(name, source.tokenizer_path.parent, parameters_of(name, source.recipe))


def test_recipe_is_the_checkpoints(source: Source) -> None:
    """Sizes, tasks and tokens are read from the directory, and the bundle is called like it."""
    recipe = source.recipe

    assert (recipe.name, recipe.bundle) == ("clip_tiny", "clip_tiny")
    assert recipe.tasks == ("text_embedding", "image_embedding")
    assert required(recipe.image).crop == "center_crop"
    assert required(recipe.text).max_tokens == 24
    assert [spec.name for spec in recipe.signature("image_encoder").outputs] == ["image_embedding"]


@pytest.mark.parametrize("number", range(2 * len(WAYS)))
def test_pictures_are_seen_as_the_library_sees_them(source: Source, number: int) -> None:
    """For every way to store a picture, the served pixels are the processor's to a rounding."""
    name, data = drawn_picture(3, number)
    stage = image.stage(stage_of(source, "image_preprocess"), settings.load())

    served = stage({"image": np.array([[data]], object)})["pixel_values"]

    assert np.abs(served - source.image_values(data)["pixel_values"]).max() < 1e-5, name


def test_real_pictures_have_the_same_embedding(source: Source) -> None:
    """The drift from bytes to the embedding is none: cosine 1 to six digits."""
    stage = image.stage(stage_of(source, "image_preprocess"), settings.load())
    encoder = source.model.get_submodule("image_encoder")
    for path in sorted(Path(PICTURES).glob("playroom-*.jpg")):
        data = path.read_bytes()
        served = stage({"image": np.array([[data]], object)})["pixel_values"]
        with torch.no_grad():
            one, other = (
                encoder(torch.from_numpy(pixels))
                for pixels in (served, source.image_values(data)["pixel_values"])
            )
        assert float(F.cosine_similarity(one, other)) > 0.999999, path.name


@pytest.mark.parametrize("words", TEXTS)
def test_texts_are_read_as_the_library_reads_them(source: Source, words: str) -> None:
    """The served ids are those of the library's own tokenizer."""
    stage = text.stage(stage_of(source, "text_preprocess"), settings.load())

    served = stage({"text": np.array([[words.encode()]], object)})

    assert served["input_ids"][0].tolist() == source.token_ids(words)


def test_embeddings_are_clips_own(source: Source, directory: Path) -> None:
    """The two stages give what CLIP compares: its scores are their cosines, scaled."""
    clip = CLIPModel.from_pretrained(directory)
    pixels = torch.from_numpy(source.image_values(drawn_picture(0, 1)[1])["pixel_values"])
    ids = torch.tensor([source.token_ids("a red star")])
    with torch.no_grad():
        expected = clip(input_ids=ids, pixel_values=pixels).logits_per_image
        seen = source.model.get_submodule("image_encoder")(pixels)
        read = source.model.get_submodule("text_encoder")(ids, torch.ones_like(ids))

    torch.testing.assert_close(seen @ read.T * clip.logit_scale.exp(), expected)


def changed(path: Path, **values: object) -> None:
    """Change values of a JSON file."""
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def cut(path: Path) -> None:
    """Cut a file in half."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def changed_tokenizer(path: Path) -> None:
    """Give the last word an id that the network does not know."""
    tokenizer = json.loads(path.read_text())
    tokenizer["model"]["vocab"]["red</w>"] = 9999
    path.write_text(json.dumps(tokenizer))


def hidden(path: Path, **values: object) -> None:
    """Change the text tower's config."""
    config = json.loads(path.read_text())
    config["text_config"] |= values
    path.write_text(json.dumps(config))


BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "unknown family": (
        lambda path: changed(path / "config.json", model_type="mamba"),
        r'model_type = "mamba" is no family that can be exported; those are: .*, bert, blip',
    ),
    "not JSON": (lambda path: (path / "config.json").write_text("{"), r"mine/config\.json: Exp"),
    "code of its own": (
        lambda path: changed(path / "config.json", auto_map={"AutoModel": "x.Y"}),
        "code of its own .*never run",
    ),
    "no weights": (lambda path: (path / "model.safetensors").unlink(), "lacks model.safetensors"),
    "pickled": (
        lambda path: (path / "model.safetensors").rename(path / "pytorch_model.bin"),
        r"pickled weights \(pytorch_model.bin\).*model.save_pretrained",
    ),
    "cut weights": (lambda path: cut(path / "model.safetensors"), "is truncated or damaged"),
    "no tokenizer": (lambda path: (path / "tokenizer.json").unlink(), "lacks tokenizer.json"),
    "another tokenizer": (
        lambda path: changed_tokenizer(path / "tokenizer.json"),
        "gives ids up to 9999, the network of config.json knows",
    ),
    "other depth": (
        lambda path: hidden(path / "config.json", num_hidden_layers=3),
        "config.json and model.safetensors disagree .missing",
    ),
    "other width": (lambda path: hidden(path / "config.json", hidden_size=64), "mine"),
    "other resize": (
        lambda path: changed(path / "preprocessor_config.json", do_center_crop=False),
        r"do_center_crop = False.* cannot be served",
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


@pytest.mark.parametrize(
    ("name", "bundle"),
    [("clip-vit-b32", "clip_vit_b32"), ("CLIP 2", "clip_2"), ("7b", "bundle_7b")],
)
def test_bundles_are_named_like_directories(name: str, bundle: str) -> None:
    """Any directory gives a name that a bundle may have."""
    assert bundle_named_like(Path(name)) == bundle
