"""Publish a bundle into a model repository: whole, or not at all.

Everything is built in a directory beside the repository, which takes the repository's place by
renaming. Whatever interrupts that before, the old repository keeps serving.
"""

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sensorium.errors import ConfigurationError
from sensorium_export.manifest import manifest_path, models_in


@contextmanager
def staging_beside(repository: Path) -> Iterator[Path]:
    """Give an empty directory beside the repository; it is gone afterwards, published or not."""
    _recover(repository)
    repository.parent.mkdir(parents=True, exist_ok=True)
    staging = repository.with_name(f".{repository.name}.staging-{secrets.token_hex(4)}")
    staging.mkdir()
    try:
        yield staging
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def publish(staging: Path, repository: Path, bundle: str) -> None:
    """Put the staged bundle in the place of the repository; other bundles stay in it.

    Raises:
        ConfigurationError: A model of the bundle would overwrite one that is not the bundle's own.
    """
    if repository.exists():
        _carry_over(staging, repository, bundle)
        retired = _retired(repository)
        repository.rename(retired)
        try:
            staging.rename(repository)
        except BaseException:
            retired.rename(repository)
            raise
        shutil.rmtree(retired, ignore_errors=True)
    else:
        staging.rename(repository)


def _carry_over(staging: Path, repository: Path, bundle: str) -> None:
    """Link everything into the staging directory that is not the bundle's own."""
    own = {*models_in(repository, bundle), manifest_path(repository, bundle).name}
    staged = {entry.name for entry in staging.iterdir()}
    others = sorted(entry for entry in repository.iterdir() if entry.name not in own)
    if clashes := [entry.name for entry in others if entry.name in staged]:
        raise ConfigurationError(
            f"{repository.name} already holds {', '.join(clashes)}, which the manifest of the "
            f"bundle {bundle!r} does not list. "
            f"Give this bundle a name with --bundle, or choose another --repository."
        )
    for entry in others:
        if entry.is_dir() and not entry.is_symlink():
            shutil.copytree(entry, staging / entry.name, symlinks=True, copy_function=_link)
        else:
            _link(entry, staging / entry.name)


def _link(source: str | Path, target: str | Path) -> None:
    """Share the file where the file system can, copy it where it cannot."""
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError:
        shutil.copy2(source, target, follow_symlinks=False)


def _retired(repository: Path) -> Path:
    return repository.with_name(f".{repository.name}.retired")


def _recover(repository: Path) -> None:
    """Finish or undo a publication that was killed between its two renames."""
    retired = _retired(repository)
    if not retired.exists():
        return
    if repository.exists():
        shutil.rmtree(retired)
    else:
        retired.rename(repository)
