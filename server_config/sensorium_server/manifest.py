"""Check that a model repository's artefacts are those that its manifests promise.

`NAME.manifest.json` beside the models lists the digest of every artefact of the bundle NAME. A
corrupt or missing one is named, with both digests, before Triton starts.
"""

import hashlib
import json
from pathlib import Path

from sensorium.errors import ConfigurationError

SUFFIX = ".manifest.json"


def digest(path: Path) -> str:
    """Return a file's digest as manifests write it: `sha256:` and 64 hexadecimal digits."""
    with path.open("rb") as file:
        return "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()


def check(repository: Path) -> list[str]:
    """Check every manifest of a repository; return the names of its bundles.

    Raises:
        ConfigurationError: an artefact or a manifest is corrupt; the message lists all.
    """
    manifests = sorted(repository.glob("*" + SUFFIX))
    found = [problem for manifest in manifests for problem in problems(manifest)]
    if found:
        raise ConfigurationError("\n".join(found))
    return [manifest.name.removesuffix(SUFFIX) for manifest in manifests]


def problems(manifest: Path) -> list[str]:
    """Return what is wrong with the artefacts of a manifest, or with itself."""
    try:
        files: dict[str, str] = dict(json.loads(manifest.read_text(encoding="utf-8"))["files"])
    except (ValueError, KeyError, TypeError) as error:
        return [f"{manifest} cannot be read ({error!r}). Export the bundle again."]
    return [
        problem
        for name, expected in files.items()
        if (problem := _problem(manifest.parent / name, expected, manifest.name))
    ]


def _problem(path: Path, expected: str, manifest: str) -> str | None:
    if not path.is_file():
        return f"{path} is missing; {manifest} expects {expected}. Export the bundle again."
    found = digest(path)
    if found == expected:
        return None
    return (
        f"{path} is corrupt: {manifest} expects {expected}, found {found}. "
        f"Export the bundle again, or restore the file."
    )
