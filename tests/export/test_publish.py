"""Publishing: whole, or not at all."""

import errno
import json
import os
import signal
import subprocess
import sys
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
        if path.name.endswith(".staging"):
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


def test_two_exports_at_once_are_refused(tmp_path: Path) -> None:
    """The second into the same repository is told so; one into another is not."""
    with staging_beside(tmp_path / "models"):
        with (
            pytest.raises(ConfigurationError, match="another export into models is running"),
            staging_beside(tmp_path / "models"),
        ):
            pass
        with staging_beside(tmp_path / "others"):
            pass


def test_full_disk_publishes_nothing(tmp_path: Path) -> None:
    """An export that the disk has no room for leaves the repository as it was."""
    publish_bundle(tmp_path / "models", "mine", "encoder", content="old")

    def build() -> None:
        with staging_beside(tmp_path / "models") as staging:
            stage_bundle(staging, "mine", "encoder")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(ConfigurationError, match="there is no room for models: No space left"):
        build()

    assert (tmp_path / "models" / "encoder" / "1" / "file").read_text() == "old"
    assert not list(tmp_path.glob(".*staging*"))


def test_killed_export_is_cleared_away(tmp_path: Path) -> None:
    """What an export that was killed left is gone after the next."""
    left = tmp_path / ".models.staging-12345678"
    left.mkdir()

    publish_bundle(tmp_path / "models", "mine", "encoder")

    assert not left.exists()


def test_interrupted_export_leaves_the_repository(tmp_path: Path) -> None:
    """Ctrl-C in the middle of an export, as a process of its own, changes nothing."""
    publish_bundle(tmp_path / "models", "mine", "encoder", content="old")
    program = (
        "import sys, time; from pathlib import Path\n"
        "from sensorium_export.publish import staging_beside\n"
        "with staging_beside(Path(sys.argv[1])) as staging:\n"
        "    (staging / 'half').write_text('written')\n"
        "    print('staged', flush=True)\n"
        "    time.sleep(60)\n"
    )
    arguments = [sys.executable, "-c", program, str(tmp_path / "models")]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"staged\n"
        process.send_signal(signal.SIGINT)
        process.wait(timeout=30)

    assert (tmp_path / "models" / "encoder" / "1" / "file").read_text() == "old"
    assert not list(tmp_path.glob(".*staging*"))


def test_card_goes_with_its_bundle(tmp_path: Path) -> None:
    """What was proven of the old models is not said of the new ones; other bundles keep theirs."""
    for bundle, model in (("mine", "encoder"), ("other", "decoder")):
        publish_bundle(tmp_path / "models", bundle, model)
        (tmp_path / "models" / f"{bundle}.card.json").write_text("{}")

    publish_bundle(tmp_path / "models", "mine", "encoder")

    assert not (tmp_path / "models" / "mine.card.json").exists()
    assert (tmp_path / "models" / "other.card.json").exists()


def test_engines_go_with_their_graphs(repository: Path) -> None:
    """Records of engines that were built from the old graphs go with them; those of others stay."""
    publish_bundle(repository, "other", "listener")
    (repository / "encoder/1/model.plan").write_text("engine")
    for bundle in ("mine", "other"):
        (repository / f"{bundle}.engines.json").write_text("{}")

    publish_bundle(repository, "mine", "encoder")

    assert not (repository / "encoder/1/model.plan").exists()
    assert [path.name for path in repository.glob("*.engines.json")] == ["other.engines.json"]
