"""The manifest beside a published bundle: what it is made of, and how well it agrees with PyTorch.

`sensorium_server.manifest` reads it and checks the digests before the server starts. It holds no
time and no path of this machine. `config.pbtxt` files are not in it: they are there to be edited.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from sensorium.errors import ConfigurationError
from sensorium_export.onnx_graph import OPSET
from sensorium_export.precision import Drift
from sensorium_export.source import Source
from sensorium_export.stage_parity import GraphParity
from sensorium_server.manifest import SUFFIX, digest

PACKAGES = ("sensorium", "torch", "onnx", "onnxscript", "onnxruntime")


@dataclass(frozen=True, slots=True)
class Manifest:
    """What is written; `files` maps paths in the repository to digests.

    `precision` has the stages that are not served in fp32, and how far they drift on noise.
    """

    bundle: str
    created_from: Mapping[str, str]
    packages: tuple[str, ...]
    models: tuple[str, ...]
    files: Mapping[str, str]
    parity: Mapping[str, Mapping[str, float]]
    precision: Mapping[str, Mapping[str, str | float]]

    def to_json(self) -> str:
        """Write it as text, the same for the same bundle."""
        values: dict[str, Any] = {
            "bundle": self.bundle,
            "created_from": dict(self.created_from),
            "opset": OPSET,
            "versions": {package: version(package) for package in self.packages},
            "models": list(self.models),
            "files": dict(self.files),
            "parity": {stage: dict(figures) for stage, figures in self.parity.items()},
        }
        if self.precision:
            values["precision"] = {stage: dict(one) for stage, one in self.precision.items()}
        return json.dumps(values, indent=2) + "\n"


def manifest_from_build(
    source: Source, repository: Path, parities: Iterable[GraphParity], drifts: Iterable[Drift]
) -> Manifest:
    """Describe a repository that has just been written and holds nothing but the bundle."""
    models = sorted(entry.name for entry in repository.iterdir())
    files = sorted(path for path in repository.glob("*/1/*") if not path.name.startswith("."))
    return Manifest(
        bundle=source.recipe.name,
        created_from={name: digest(source.path / name) for name in source.files},
        packages=PACKAGES + source.packages,
        models=tuple(models),
        files={path.relative_to(repository).as_posix(): digest(path) for path in files},
        parity={
            one.graph: {
                "max_abs": _rounded(one.worst.max_abs),
                "max_rel": _rounded(one.worst.max_rel),
                "tolerance": one.worst.tolerance,
            }
            for one in parities
        },
        precision={
            one.stage: {"precision": one.precision, "cosine": round(one.cosine, 6)}
            for one in drifts
        },
    )


def manifest_path(repository: Path, bundle: str) -> Path:
    """Return where a bundle's manifest lies."""
    return repository / f"{bundle}{SUFFIX}"


def models_in(repository: Path, bundle: str) -> tuple[str, ...]:
    """Return the models that a published bundle owns; none when it was never published here."""
    path = manifest_path(repository, bundle)
    if not path.is_file():
        return ()
    return tuple(json.loads(path.read_text(encoding="utf-8")).get("models", ()))


def precision_in(repository: Path, bundle: str) -> dict[str, str]:
    """Return the precision of each stage of a published bundle that is not served in fp32."""
    path = manifest_path(repository, bundle)
    if not path.is_file():
        return {}
    chosen = json.loads(path.read_text(encoding="utf-8")).get("precision", {})
    return {stage: one["precision"] for stage, one in chosen.items()}


def check_origin(repository: Path, bundle: str, checkpoint: Path) -> None:
    """Check that a repository's bundle was made of this checkpoint; one without manifest may be.

    Raises:
        ConfigurationError: It was made of other files; the message names them.
    """
    path = manifest_path(repository, bundle)
    if not path.is_file():
        return
    origin = json.loads(path.read_text(encoding="utf-8")).get("created_from", {})
    if changed := [name for name, was in origin.items() if digest(checkpoint / name) != was]:
        raise ConfigurationError(
            f"{repository.name} was made of another {', '.join(changed)} than {checkpoint} holds. "
            f"Export it again: sensorium export {checkpoint} --repository {repository}"
        )


def _rounded(value: float) -> float:
    """Round to two digits: more of them differ from machine to machine and say nothing."""
    return float(f"{value:.1e}")
