"""Publish a bundle into a model repository: whole, or not at all.

Everything is built in a directory beside the repository, which takes the repository's place by
renaming. Whatever interrupts that before, the old repository keeps serving.
"""

import errno
import fcntl
import os
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from sensorium.errors import ConfigurationError
from sensorium_export.manifest import manifest_path, models_in
from sensorium_server.engine_record import engines_path
from sensorium_server.gate import CARD_SUFFIX


@contextmanager
def staging_beside(repository: Path) -> Iterator[Path]:
    """Give an empty directory beside the repository; it is gone afterwards, published or not.

    Raises:
        ConfigurationError: Another export into the repository is running, or the disk is full.
    """
    repository.parent.mkdir(parents=True, exist_ok=True)
    with alone(repository):
        _recover(repository)
        for stale in repository.parent.glob(f"{_staging(repository).name}*"):
            shutil.rmtree(stale, ignore_errors=True)
        staging = _staging(repository)
        staging.mkdir()
        try:
            yield staging
        except OSError as error:
            if error.errno not in {errno.ENOSPC, errno.EDQUOT}:
                raise
            raise ConfigurationError(
                f"there is no room for {repository.name}: {error.strerror}. Nothing was "
                f"published. Make room, or choose another --repository."
            ) from error
        finally:
            shutil.rmtree(staging, ignore_errors=True)


@contextmanager
def alone(repository: Path) -> Iterator[None]:
    """Hold the repository's lock; it is gone with the process, however that ends.

    Raises:
        ConfigurationError: Another export or compilation writes into the repository.
    """
    path = repository.with_name(f".{repository.name}.lock")
    with path.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Whoever had it may have removed the file since it was opened here.
            is_held = path.exists() and os.path.samestat(os.fstat(lock.fileno()), path.stat())
        except BlockingIOError:
            is_held = False
        if not is_held:
            raise ConfigurationError(
                f"another export into {repository.name} is running. Wait until it has ended."
            )
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def _staging(repository: Path) -> Path:
    return repository.with_name(f".{repository.name}.staging")


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


def check_names(repository: Path, bundle: str, names: Collection[str]) -> list[Path]:
    """Check that a bundle may have these names; return what else is in the repository.

    Raises:
        ConfigurationError: A model of the bundle would overwrite one that is not the bundle's own.
    """
    if not repository.exists():
        return []
    own = {
        *models_in(repository, bundle),
        manifest_path(repository, bundle).name,
        engines_path(repository, bundle).name,
        f"{bundle}{CARD_SUFFIX}",
    }
    others = sorted(entry for entry in repository.iterdir() if entry.name not in own)
    if clashes := [entry.name for entry in others if entry.name in names]:
        raise ConfigurationError(
            f"{repository.name} already holds {', '.join(clashes)}, which the manifest of the "
            f"bundle {bundle!r} does not list. "
            f"Give this bundle a name with --bundle, or choose another --repository."
        )
    return others


def _carry_over(staging: Path, repository: Path, bundle: str) -> None:
    """Link everything into the staging directory that is not the bundle's own."""
    staged = {entry.name for entry in staging.iterdir()}
    for entry in check_names(repository, bundle, staged):
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
