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
from sensorium_export.engines import BuildPlan, GraphFile
from sensorium_export.engines.compilation import CompileOptions, graph_file, plan_for
from sensorium_export.engines.tensorrt import TENSORRT_RTX
from sensorium_export.graphs import Graph, graphs_of
from sensorium_export.source import Source, open_source
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

REFUSED: frozenset[tuple[str, str, str, str]] = frozenset()
"""What TensorRT-RTX refuses: bundle, graph, node, operator. It takes all, so far."""

BUILT = (
    ("blip_vqa", "fusion"),
    ("clap", "audio_encoder"),
    ("clip", "image_encoder"),
    ("resnet", "image_encoder"),
    ("t5", "text_encoder"),
    ("wav2vec2", "audio_encoder"),
    ("whisper", "text_decoder/step"),
    ("x_clip", "video_encoder"),
)
"""A graph of each kind of network: bundle and graph."""

NO_RTX = TENSORRT_RTX.why_unavailable("8.6")
needs_rtx = pytest.mark.skipif(bool(NO_RTX), reason=NO_RTX)


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


def graphs_in(directory: Path, repository: Path) -> dict[str, tuple[Source, Graph, GraphFile]]:
    """The graphs of a family's bundle, as they are published."""
    source = open_source(directory)
    return {
        graph.name: (source, graph, graph_file(repository, source.recipe, graph))
        for graph in graphs_of(source.recipe)
    }


@needs_rtx
@pytest.mark.parametrize("name", ASKED)
def test_family_is_taken_by_tensorrt_rtx(
    directories: Mapping[str, Path], repository: Path, name: str
) -> None:
    """Its parser takes every node, but for those that are known; the known ones are refused."""
    refused = {
        (name, graph, problem.node, problem.operator)
        for graph, (_, _, file) in graphs_in(directories[name], repository).items()
        for problem in TENSORRT_RTX.problems(file)
    }

    assert refused == {one for one in REFUSED if one[0] == name}


@needs_rtx
@pytest.mark.parametrize(("name", "graph"), BUILT)
def test_kind_of_network_is_built_by_tensorrt_rtx(
    directories: Mapping[str, Path], repository: Path, name: str, graph: str
) -> None:
    """One of each kind becomes an engine in fp16, with all of its profiles."""
    source, one, file = graphs_in(directories[name], repository)[graph]
    options = CompileOptions(
        repository, {graph: "fp16"}, "again", BuildPlan("fp16", (), compute_capability="8.6")
    )

    assert TENSORRT_RTX.build(file, plan_for(one, file, source.recipe, TENSORRT_RTX, options))


@needs_rtx
@pytest.mark.full_size
@pytest.mark.parametrize("name", ASKED)
def test_family_is_built_by_tensorrt_rtx(
    directories: Mapping[str, Path], repository: Path, name: str
) -> None:
    """Every graph that is taken becomes an engine in fp16; it takes minutes for all families."""
    for graph, (source, one, file) in graphs_in(directories[name], repository).items():
        if any(refused[:2] == (name, graph) for refused in REFUSED):
            continue
        options = CompileOptions(
            repository, {graph: "fp16"}, "again", BuildPlan("fp16", (), compute_capability="8.6")
        )
        assert TENSORRT_RTX.build(file, plan_for(one, file, source.recipe, TENSORRT_RTX, options))


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
