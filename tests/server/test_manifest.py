import json
from pathlib import Path

import pytest

from sensorium.errors import ConfigurationError
from sensorium_server import manifest


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Return a repository with one artefact and its manifest."""
    artefact = tmp_path / "encoder" / "1" / "model.onnx"
    artefact.parent.mkdir(parents=True)
    artefact.write_bytes(b"weights")
    files = {"encoder/1/model.onnx": manifest.digest(artefact)}
    (tmp_path / "tiny.manifest.json").write_text(json.dumps({"files": files}))
    return tmp_path


def test_intact_repository(repository: Path) -> None:
    """An intact repository gives the names of its bundles."""
    assert manifest.check(repository) == ["tiny"]


def test_digest_is_sha256(tmp_path: Path) -> None:
    """A digest says its algorithm and is that of the content."""
    (tmp_path / "empty").touch()

    assert manifest.digest(tmp_path / "empty") == (
        "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    )


def test_corrupt_artefact(repository: Path) -> None:
    """A corrupt artefact is named with the expected and the found digest."""
    artefact = repository / "encoder/1/model.onnx"
    expected = manifest.digest(artefact)
    artefact.write_bytes(b"Weights")

    with pytest.raises(ConfigurationError) as caught:
        manifest.check(repository)

    assert all(
        part in str(caught.value)
        for part in ("encoder/1/model.onnx", expected, manifest.digest(artefact), "Export")
    )


def test_missing_artefact(repository: Path) -> None:
    """A missing artefact is named."""
    (repository / "encoder/1/model.onnx").unlink()

    with pytest.raises(ConfigurationError, match=r"encoder/1/model.onnx is missing"):
        manifest.check(repository)


@pytest.mark.parametrize("text", ["{", "[]", '{"files": 3}', "{}"])
def test_unreadable_manifest(repository: Path, text: str) -> None:
    """A manifest that is none is named."""
    (repository / "tiny.manifest.json").write_text(text)

    with pytest.raises(ConfigurationError, match=r"tiny.manifest.json cannot be read"):
        manifest.check(repository)
