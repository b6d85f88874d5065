"""What Kubernetes and the custom resources' own schemas say about an object."""

import json
import re
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
from tests.deploy.chart import Manifest

CRD = Path(__file__).parent / "crd"
KUBERNETES = ("1.30", kubernetes_validate.latest_version())
"""The oldest version that the chart supports, and the newest that is known here."""


def problems(manifest: Manifest) -> list[str]:
    """Return what is wrong with an object by its schema; unknown keys and kinds are."""
    return _problems(json.dumps(manifest))


@cache
def _problems(text: str) -> list[str]:
    # Most objects are the same in most cases, and reading a schema takes longer than using it.
    manifest = json.loads(text)
    custom = _custom(manifest["apiVersion"], manifest["kind"])
    if custom is not None:
        validator = jsonschema.Draft202012Validator(custom)
        return [f"{error.json_path}: {error.message}" for error in validator.iter_errors(manifest)]
    found = []
    for version in KUBERNETES:
        try:
            kubernetes_validate.validate(manifest, version, strict=True)
        except kubernetes_validate.ValidationError as error:
            found.append(f"{version}: {'.'.join(map(str, error.path))}: {error.message}")
        except kubernetes_validate.SchemaNotFoundError as error:
            found.append(f"{version}: {error.message}")
    return found


@cache
def _custom(api_version: str, kind: str) -> dict[str, Any] | None:
    group, _, version = api_version.rpartition("/")
    path = CRD / group / f"{kind.lower()}_{version}.json"
    if not path.is_file() or not re.fullmatch(r"[\w.]+", group):
        return None
    return dict(json.loads(path.read_text(encoding="utf-8")))
