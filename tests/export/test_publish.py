"""Publishing: whole, or not at all."""

import json
from pathlib import Path

import pytest

from sensorium.errors import ConfigurationError
from sensorium_export.publish import publish, staging_beside


def stage_bundle(staging: Path, bundle: str, *models: str, content: str = "new") -> None:
    """Write a bundle of models that hold one file each."""
    for model in models:
        (staging / model / "1").mkdir(parents=True)
        (staging / model / "1" / "file").write_text(content)
    (staging / f"{bundle}.manifest.json").write_text(json.dumps({"models": models}))


def publish_bundle(repository: Path, bundle: str, *models: str, content: str = "new") -> None:
    """Stage and publish a bundle."""
    with staging_beside(repository) as staging:
        stage_bundle(staging, bundle, *models, content=content)
        publish(staging, repository, bundle)


def content_of(repository: Path) -> dict[str, str]:
    """Return every model's content."""
    return {path.parts[-3]: path.read_text() for path in repository.glob("*/1/file")}


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository that holds a published bundle of two models."""
    path = tmp_path / "models"
    publish_bundle(path, "mine", "encoder", "decoder", content="old")
    return path


def test_first_publication_makes_the_repository(tmp_path: Path) -> None:
    """A repository need not exist before."""
    publish_bundle(tmp_path / "deep" / "models", "mine", "encoder")

    assert content_of(tmp_path / "deep" / "models") == {"encoder": "new"}


def test_new_version_replaces_the_old_one_whole(repository: Path) -> None:
    """Models that the new version has no more are gone."""
    publish_bundle(repository, "mine", "encoder", "fusion")

    assert content_of(repository) == {"encoder": "new", "fusion": "new"}


def test_other_bundles_stay(repository: Path) -> None:
    """A repository may hold several bundles, and files of other people."""
    publish_bundle(repository, "other", "listener")
    (repository / "README.md").write_text("read me")
    (repository / "link").symlink_to("README.md")

    publish_bundle(repository, "mine", "encoder")

    assert content_of(repository) == {"encoder": "new", "listener": "new"}
    assert (repository / "README.md").read_text() == "read me"
    assert (repository / "link").is_symlink()


def test_models_of_others_are_not_overwritten(repository: Path) -> None:
    """A clash is refused with the names, and nothing changes."""
    with pytest.raises(ConfigurationError, match=r"already holds decoder, encoder.*--repository"):
        publish_bundle(repository, "other", "encoder", "decoder")

    assert content_of(repository) == {"encoder": "old", "decoder": "old"}


@pytest.mark.parametrize("interruption", [RuntimeError("disk full"), KeyboardInterrupt()])
def test_interrupted_build_leaves_the_old_version(
    repository: Path, interruption: BaseException
) -> None:
    """A build that fails or is stopped halfway changes nothing and leaves nothing behind."""

    def build() -> None:
        with staging_beside(repository) as staging:
            stage_bundle(staging, "mine", "encoder")
            raise interruption

    with pytest.raises(type(interruption)):
        build()

    assert content_of(repository) == {"encoder": "old", "decoder": "old"}
    assert [path.name for path in repository.parent.iterdir()] == ["models"]


def test_failed_rename_puts_the_old_version_back(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even between the two renames nothing is lost."""
    rename = Path.rename

    def refuse(path: Path, target: Path) -> Path:
        if ".staging-" in path.name:
            raise OSError("no")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", refuse)

    with pytest.raises(OSError, match="no"):
        publish_bundle(repository, "mine", "encoder")

    assert content_of(repository) == {"encoder": "old", "decoder": "old"}


def test_publication_killed_between_renames_is_undone(repository: Path) -> None:
    """The next export finds the old version where the kill left it."""
    repository.rename(repository.with_name(".models.retired"))

    with staging_beside(repository):
        assert content_of(repository) == {"encoder": "old", "decoder": "old"}


def test_publication_killed_after_renames_is_finished(repository: Path) -> None:
    """What the kill left of the old version is removed by the next export."""
    retired = repository.with_name(".models.retired")
    retired.mkdir()

    with staging_beside(repository):
        assert not retired.exists()
    assert content_of(repository) == {"encoder": "old", "decoder": "old"}


def test_files_are_copied_where_they_cannot_be_linked(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file system without hard links is good enough."""
    publish_bundle(repository, "other", "listener")

    def refuse(*_args: object, **_options: object) -> None:
        raise OSError("no hard links here")

    monkeypatch.setattr("os.link", refuse)
    publish_bundle(repository, "mine", "encoder")

    assert content_of(repository) == {"encoder": "new", "listener": "new"}
