"""Several bundles in one model repository, served side by side, exported and proven by name."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from tests.e2e import picture
from typer.testing import CliRunner

from sensorium import Client
from sensorium.cli import main
from sensorium.errors import ConfigurationError, UnknownTaskError
from sensorium_export.bundle import ExportedBundle, export_bundle
from sensorium_export.checkpoint import Checkpoint
from sensorium_export.testing import toy_checkpoint
from sensorium_export.verify import Options, verify
from sensorium_server.launch import Endpoints, Server

pytestmark = pytest.mark.triton


@pytest.fixture(scope="module")
def second(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    """A checkpoint of other weights, for pictures and text alone."""
    return toy_checkpoint(tmp_path_factory.mktemp("second") / "plain", seed=5, modalities=())


@pytest.fixture(scope="module")
def shared(
    bundle: ExportedBundle, second: Checkpoint, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A repository that holds the first bundle, and the other one by the name `second`."""
    repository = tmp_path_factory.mktemp("shared") / "repository"
    shutil.copytree(bundle.repository, repository)
    export_bundle(second.path, repository, bundle="second")
    return repository


@pytest.fixture(scope="module")
def running(start_server: Callable[..., Server], shared: Path) -> Iterator[Endpoints]:
    """Serve both."""
    with start_server(shared) as server:
        yield server.endpoints


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_each_bundle_answers_by_its_own_weights(running: Endpoints, protocol: str) -> None:
    """The same picture has another embedding in the other bundle, and a task of its own answers."""
    url, image = getattr(running, protocol), picture.noise()
    with Client(url, timeout_s=60) as first, Client(url, timeout_s=60, bundle="second") as other:
        embeddings = [one.embed_image(image).vector for one in (first, other, other)]
        answer = other.ask(image, "what color is the star?")

        assert first.is_ready("audio_tagging")
        assert not other.is_ready("audio_tagging")
        assert other.is_ready("image_embedding")
        with pytest.raises(UnknownTaskError, match=r"does not offer the task 'second\.audio_tag"):
            other.tag_audio(b"any sound")

    assert not np.allclose(embeddings[0], embeddings[1], atol=0.1)
    assert np.allclose(embeddings[1], embeddings[2], atol=1e-5)
    assert answer.model == "second.visual_question_answering"


def test_bundle_nobody_exported(running: Endpoints) -> None:
    """A bundle that is not there is told, and so is what no bundle can be called."""
    with (
        Client(running.grpc, bundle="third") as client,
        pytest.raises(UnknownTaskError, match=r"'third\.image_embedding'"),
    ):
        client.embed_image(picture.noise())
    with pytest.raises(ConfigurationError, match="'Second' is not a bundle's name"):
        Client(running.grpc, bundle="Second")


def test_commands_take_the_bundle(running: Endpoints, tmp_path: Path) -> None:
    """`--bundle` and its environment variable choose the bundle."""
    path = tmp_path / "photo.png"
    path.write_bytes(picture.noise())
    ask = ["ask", str(path), "what color?", "--url", running.grpc, "--json"]

    plain, named = CliRunner().invoke(main, ask), CliRunner().invoke(main, [*ask, "--bundle", "x"])
    by_variable = CliRunner().invoke(main, ask, env={"SENSORIUM_BUNDLE": "second"})

    assert plain.exit_code == 0
    assert '"second.visual_question_answering"' in by_variable.stdout
    assert named.exit_code == 1


def test_named_bundle_is_proven_like_any(shared: Path, second: Checkpoint) -> None:
    """Verification finds the bundle by its name, and what PyTorch computes is what is served."""
    card = verify(Options(second.path, shared, count=8, bundle="second"))

    assert card.bundle == "second"
    assert card.has_passed, card.to_dict()


def test_plain_names_are_given_once(shared: Path, second: Checkpoint) -> None:
    """A second bundle without a name is refused with the way out, and both stay as they were."""
    before = sorted(path.name for path in shared.iterdir())

    with pytest.raises(ConfigurationError, match="Give this bundle a name with --bundle"):
        export_bundle(second.path, shared)
    with pytest.raises(ConfigurationError, match="'no name' is not a bundle's name"):
        export_bundle(second.path, shared, bundle="no name")

    assert sorted(path.name for path in shared.iterdir()) == before
    assert "second.manifest.json" in before
