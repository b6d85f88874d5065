"""A small checkpoint of every family in one repository: exported, served, proven, asked, listed."""

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
from tests import diffusion_family, families, family_table
from tests.e2e import picture
from tests.server import media
from typer.testing import CliRunner, Result

from sensorium.cli import main
from sensorium_server.launch import Endpoints, Server

pytestmark = pytest.mark.triton

COUNT = 8
TABLE = Path("docs/families.md")
PAGES = Path("docs/families")

QUESTION = "what is red"
ASKED: Mapping[str, tuple[str, ...]] = {
    "audio_spectrogram": ("listen", "speech.wav"),
    "audio_spectrogram_backbone": ("embed", "--audio", "speech.wav"),
    "bert": ("embed", QUESTION),
    "blip": ("caption", "photo.jpg"),
    "blip_vqa": ("ask", "photo.jpg", QUESTION),
    "clap": ("embed", "--audio", "speech.wav"),
    "clip": ("embed", "--image", "photo.jpg"),
    "dinov2": ("embed", "--image", "photo.jpg"),
    "git": ("caption", "photo.jpg"),
    "open_clip": ("embed", QUESTION),
    "resnet": ("classify", "photo.jpg"),
    "siglip": ("embed", QUESTION),
    "siglip2": ("embed", QUESTION),
    "t5": ("generate", QUESTION),
    "timesformer": ("watch", "clip.mp4", "--actions"),
    "timesformer_backbone": ("embed", "--video", "clip.mp4"),
    "videomae": ("watch", "clip.mp4", "--actions"),
    "videomae_backbone": ("embed", "--video", "clip.mp4"),
    "vilt": ("ask", "photo.jpg", QUESTION),
    "vit": ("classify", "photo.jpg"),
    "vit_gpt2": ("caption", "photo.jpg"),
    "wav2vec2": ("transcribe", "speech.wav"),
    "wav2vec2_classifier": ("listen", "speech.wav"),
    "whisper": ("transcribe", "speech.wav"),
    "x_clip": ("embed", "--video", "clip.mp4"),
}
"""What each is asked by the command."""


def run(*arguments: object) -> Result:
    """Run the `sensorium` command."""
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def directories(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A user's directory of each family."""
    root = tmp_path_factory.mktemp("families")
    return {name: getattr(families, name)(root / name) for name in ASKED}


@pytest.fixture(scope="module")
def repository(directories: Mapping[str, Path]) -> Path:
    """All of them, exported by the command into one repository."""
    path = next(iter(directories.values())).parent / "models"
    for directory in directories.values():
        exported = run("export", directory, "--repository", path)
        assert exported.exit_code == 0, exported.output
    return path


@pytest.fixture(scope="module")
def running(start_server: Callable[..., Server], repository: Path) -> Iterator[Endpoints]:
    """Serve them all."""
    with start_server(repository) as server:
        yield server.endpoints


@pytest.mark.parametrize("name", ASKED)
def test_family_is_proven(
    running: Endpoints, directories: Mapping[str, Path], repository: Path, name: str
) -> None:
    """`sensorium verify` passes: raw bytes give what PyTorch and the library say, by both ways."""
    served = ("--grpc", running.grpc, "--http", running.http, "--count", COUNT, "--json")

    verified = run("verify", directories[name], "--repository", repository, *served)

    assert verified.exit_code == 0, verified.output
    assert json.loads(verified.stdout)["tasks"]


@pytest.mark.parametrize("name", ASKED)
def test_family_is_asked(running: Endpoints, tmp_path: Path, name: str) -> None:
    """The command gets an answer from each bundle by its name."""
    files = {"photo.jpg": picture.noise(), "clip.mp4": media.mp4(media.clip(6))}
    files["speech.wav"] = media.wav(media.tone(1.0, 16_000), 16_000)
    for file, data in files.items():
        (tmp_path / file).write_bytes(data)
    words = [tmp_path / word if word in files else word for word in ASKED[name]]

    asked = run(*words, "--url", running.grpc, "--bundle", name, "--json")

    assert asked.exit_code == 0, asked.output
    assert json.loads(asked.stdout)


def test_docs_are_of_what_was_tested(directories: Mapping[str, Path], tmp_path: Path) -> None:
    """The docs list what these tests exported; where they do not, they are written anew."""
    drawing = {"tiny_sd": diffusion_family.stable_diffusion(tmp_path / "tiny_sd")}
    exported, asked = {**directories, **drawing}, {**ASKED, "tiny_sd": ("draw", "a red star")}
    table = family_table.table(exported.values())
    expected = {TABLE: family_table.replaced(TABLE.read_text(encoding="utf-8"), table)}
    for module, page in family_table.pages(exported, asked).items():
        expected[PAGES / f"{module}.md"] = page

    written = {path: path.read_text() if path.is_file() else "" for path in expected}
    changed = [path for path in expected if expected[path] != written[path]]
    for path in changed:
        path.parent.mkdir(exist_ok=True)
        path.write_text(expected[path], encoding="utf-8")
    assert changed == [], "they were written anew: look at them and commit them"
    assert {path.name for path in PAGES.iterdir()} == {
        path.name for path in expected if path != TABLE
    }
