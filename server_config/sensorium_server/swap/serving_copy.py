"""The repository that Triton reads when engines may come: a copy made of links, under the cache.

    serving/<random>/lock                 held while the server lives
                     swap.lock            held by whoever changes a version
                     server.json          where the server is, for `sensorium rollback`
                     configs/MODEL/N.pbtxt, N.json
                     models/MODEL/config.pbtxt, 1/, 2/ …

Version 1 of a model is the one that was exported. A version is whole before the config names it,
and the config changes by renaming: whenever Triton, or this process, is killed, what lies here can
serve. The repository itself is only read.
"""

import fcntl
import json
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Self

from sensorium.errors import ConfigurationError
from sensorium_server.atomic_file import write_text
from sensorium_server.placement import WHEEL_VARIANT
from sensorium_server.swap.engine_config import served_by, with_version, without_plans
from sensorium_server.swap.link import link, link_tree, remove_tree

PORTABLE = 1
"""The version that was exported."""

FOLDER = "serving"
_CONFIG = "config.pbtxt"
_CONFIGS = "configs"


class ServingCopy:
    """One copy. Whoever made it closes it; others may look at it."""

    def __init__(self, root: Path, held: IO[str] | None = None) -> None:
        self.root = root
        self._held = held

    @property
    def repository(self) -> Path:
        """What Triton is given."""
        return self.root / "models"

    @classmethod
    def made_of(cls, repository: Path, cache_dir: Path, config_name: str = "") -> Self:
        """Make a copy; those that killed servers left are removed.

        Args:
            repository: The original.
            cache_dir: Where copies are made, in a directory of their own.
            config_name: `configs/NAME.pbtxt` is served where it needs no engine.

        Raises:
            ConfigurationError: There is no room, or the place cannot be written.
        """
        folder = cache_dir.expanduser().absolute() / FOLDER
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with folder.with_suffix(".lock").open("w") as only:
                fcntl.flock(only, fcntl.LOCK_EX)
                remove_dead(folder)
                root = Path(tempfile.mkdtemp(dir=folder))
                held = (root / "lock").open("w")
                fcntl.flock(held, fcntl.LOCK_EX)
            copy = cls(root, held)
            copy._fill(repository.absolute(), config_name)
        except OSError as error:
            raise ConfigurationError(
                f"the serving copy of {repository} cannot be made in {folder}: {error.strerror}. "
                f"Make room, choose another --cache-dir, or serve without: --engines off"
            ) from error
        return copy

    def close(self) -> None:
        """Remove it."""
        remove_tree(self.root)
        if self._held is not None:
            self._held.close()

    def _fill(self, repository: Path, config_name: str) -> None:
        configs = {path.parent / _CONFIG for path in repository.glob(f"*/{_CONFIG}")}
        link_tree(repository, self.repository, without=lambda path: path in configs)
        for path in sorted(configs):
            text = path.read_text(encoding="utf-8")
            named = path.parent / _CONFIGS / f"{config_name}.pbtxt"
            if config_name and named.is_file():
                other = named.read_text(encoding="utf-8")
                # What Triton's own TensorRT serves needs its engine first; our backends do not.
                if config_name == WHEEL_VARIANT or served_by(other) == served_by(text):
                    text = without_plans(other)
            self._keep(path.parent.name, PORTABLE, text)
            write_text(self.repository / path.parent.name / _CONFIG, text)

    def portable_config(self, model: str) -> str:
        """Return the text of a model's own config."""
        return self._config(model, PORTABLE).read_text(encoding="utf-8")

    def active(self, model: str) -> int:
        """Return the version that a model's config names."""
        text = (self.repository / model / _CONFIG).read_text(encoding="utf-8")
        kept = sorted(self._config(model, PORTABLE).parent.glob("*.pbtxt"), key=_number)
        return next(_number(path) for path in kept if path.read_text(encoding="utf-8") == text)

    def add_version(self, model: str, engines: Mapping[str, Path], config: str) -> int:
        """Make a version of what was exported and of engines; it is not served yet.

        Args:
            model: Which model.
            engines: Engine files by the names that they get, in the place of exported files.
            config: The text of the config that it is served with, but for the number.

        Returns:
            The number of the version.
        """
        folder = self.repository / model
        numbers = [int(path.name) for path in folder.iterdir() if path.name.isdigit()]
        number = max(numbers) + 1
        if number == PORTABLE + 1:  # else Triton would take the latest
            self._keep(model, PORTABLE, with_version(self.portable_config(model), PORTABLE))
            self.point_to(model, PORTABLE)
        staged = Path(tempfile.mkdtemp(dir=self.root)) / str(number)
        link_tree(
            folder / str(PORTABLE),
            staged,
            without=lambda path: path.name in engines,
        )
        for name, file in engines.items():
            link(file, staged / name)
        self._keep(model, number, with_version(config, number))
        staged.replace(folder / str(number))
        staged.parent.rmdir()
        return number

    def point_to(self, model: str, version: int) -> None:
        """Let a model's config name a version, for the next time that Triton reads it."""
        text = self._config(model, version).read_text(encoding="utf-8")
        write_text(self.repository / model / _CONFIG, text)

    def note(self, model: str, version: int, facts: Mapping[str, Any]) -> None:
        """Keep what is known of a version beside its config."""
        write_text(self._config(model, version).with_suffix(".json"), json.dumps(dict(facts)))

    def noted(self, model: str, version: int) -> dict[str, Any]:
        """Return what `note` kept."""
        path = self._config(model, version).with_suffix(".json")
        return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Be the only one who changes versions."""
        with (self.root / "swap.lock").open("w") as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            yield

    def tell(self, facts: Mapping[str, Any]) -> None:
        """Write where the server is; who may not read it cannot change versions."""
        path = self.root / "server.json"
        path.touch(mode=0o600)
        write_text(path, json.dumps(dict(facts)) + "\n")
        path.chmod(0o600)

    def told(self) -> dict[str, Any]:
        """Return what `tell` wrote; nothing before the server is ready."""
        path = self.root / "server.json"
        return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}

    def _config(self, model: str, version: int) -> Path:
        return self.root / _CONFIGS / model / f"{version}.pbtxt"

    def _keep(self, model: str, version: int, text: str) -> None:
        path = self._config(model, version)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, text)


def living(cache_dir: Path) -> list[ServingCopy]:
    """Return the copies of all servers that live."""
    folder = cache_dir.expanduser().absolute() / FOLDER
    return [ServingCopy(root) for root in sorted(folder.glob("*")) if _is_held(root / "lock")]


def remove_dead(folder: Path) -> None:
    """Remove the copies whose servers were killed."""
    for root in folder.glob("*"):
        if not _is_held(root / "lock"):
            remove_tree(root)


def _is_held(lock: Path) -> bool:
    try:
        with lock.open() as file:
            return not _takes(file)
    except OSError:
        return False


def _takes(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _number(path: Path) -> int:
    return int(path.stem)
