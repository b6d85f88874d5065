"""Engines that were built once, for every server that serves the same graphs on the same device.

    engines/<bundle>-<key>/            NAME.engines.json, and engines by their paths in a repository
            <bundle>-<key>.lock        held by the server that builds it
            <bundle>-<key>.work/       what is being built
            refused.json               engines that failed while they served, by their digests

The key is made of the digests of all ONNX files, the device with its driver, the versions of all
products and of this one, and the profile: whatever changes, other engines are looked for. An entry
appears whole by renaming, or not at all.
"""

import errno
import fcntl
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

from sensorium.errors import ConfigurationError
from sensorium_server import manifest
from sensorium_server.atomic_file import write_text
from sensorium_server.engine_record import engines_path, read_records
from sensorium_server.swap.device import graphics, processor, product_versions
from sensorium_server.swap.link import link_tree, remove_tree

NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
"""What the system says when a file cannot grow."""

_KEY_DIGITS = 16
_REFUSED = "refused.json"


@dataclass(frozen=True, slots=True)
class EngineCache:
    """A directory of engines, shared by whoever can write to it."""

    root: Path

    def key(self, repository: Path, bundle: str, profile: str) -> str:
        """Return the name of the entry for a bundle of a repository on this machine."""
        path = repository / f"{bundle}{manifest.SUFFIX}"
        files: dict[str, str] = json.loads(path.read_text(encoding="utf-8"))["files"]
        facts = {
            "graphs": {name: one for name, one in files.items() if ".onnx" in name},
            "devices": [asdict(processor()), asdict(graphics())],
            "versions": {**product_versions(), "sensorium": version("sensorium")},
            "profile": profile,
        }
        digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
        return f"{bundle}-{digest[:_KEY_DIGITS]}"

    def entry(self, key: str) -> Path | None:
        """Return the directory of finished engines; None while there is none."""
        path = self.root / key
        return path if path.is_dir() else None

    @contextmanager
    def building(self, key: str, repository: Path) -> Iterator[Path | None]:
        """Give a directory to build an entry in, a copy of the repository made of links.

        It gives None while another server builds the same. What was built by then is dropped unless
        `keep` was called.

        Raises:
            ConfigurationError: There is no room, or the cache cannot be written.
        """
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            lock = (self.root / f"{key}.lock").open("w")
        except OSError as error:
            raise _unwritable(self.root, error) from error
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield None
                return
            work = self.root / f"{key}.work"
            remove_tree(work)  # of a server that was killed
            try:
                try:
                    link_tree(repository, work, without=lambda _path: False)
                except OSError as error:
                    raise _unwritable(self.root, error) from error
                yield work
            finally:
                remove_tree(work)

    def keep(self, key: str, work: Path, bundle: str) -> Path:
        """Make what was built an entry: the records and the engines that they name.

        Raises:
            ConfigurationError: The records cannot be read, or there is no room.
        """
        made = self.root / f"{key}.made"
        remove_tree(made)
        try:
            made.mkdir()
            for record in read_records(work, bundle):
                (made / record.file).parent.mkdir(parents=True, exist_ok=True)
                (work / record.file).replace(made / record.file)
            # Without a record: the search found nothing faster, which is worth knowing as well.
            records = engines_path(work, bundle)
            if records.is_file():
                records.replace(engines_path(made, bundle))
            return made.rename(self.root / key)
        except OSError as error:
            raise _unwritable(self.root, error) from error
        finally:
            remove_tree(made)

    def refuse(self, digest: str, reason: str) -> None:
        """Note that an engine failed while it served: no server takes it again."""
        self.root.mkdir(parents=True, exist_ok=True)
        with (self.root / f"{_REFUSED}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            text = json.dumps(self.refused() | {digest: reason}, indent=2, ensure_ascii=False)
            write_text(self.root / _REFUSED, text + "\n")

    def refused(self) -> dict[str, str]:
        """Return why engines are refused, by their digests; an unreadable list refuses none."""
        try:
            return dict(json.loads((self.root / _REFUSED).read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return {}


def _unwritable(root: Path, error: OSError) -> ConfigurationError:
    what = "there is no room" if error.errno in NO_ROOM else "the engine cache cannot be written"
    return ConfigurationError(
        f"{what} in {root}: {error.strerror}. Make room, or choose another place: --engines DIR"
    )
