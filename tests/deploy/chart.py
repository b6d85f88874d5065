"""The chart, rendered by the real Helm, and what its objects say about each other."""

import re
from collections.abc import Iterator, Mapping
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any

import helm_python as helm
import yaml

Manifest = Mapping[str, Any]

ROOT = Path(__file__).parents[2]
CHART = ROOT / "deploy/helm/sensorium"
HERE = Path(__file__).parent
RELEASE = "demo"
NAMESPACE = "models"
PROFILES = {name: CHART / f"values-{name}.yaml" for name in ("cpu", "gpu", "kind")}
CASES = {
    "default": CHART / "values.yaml",
    **PROFILES,
    **{path.stem.removeprefix("values-"): path for path in sorted(HERE.glob("values-*.yaml"))},
}
"""Values files: none, the chart's own, and those of the tests, which turn everything on."""

_UNITS: dict[str, Decimal] = {"": Decimal(1), "m": Decimal("0.001"), "k": Decimal(1000)}
for _power, _prefix in enumerate("KMGTPE", start=1):
    _UNITS |= {_prefix: Decimal(1000) ** _power, f"{_prefix}i": Decimal(1024) ** _power}


@cache
def chart() -> helm.Chart:
    """Load the chart once."""
    return helm.Chart.load(CHART)


def values_of(case: str) -> dict[str, Any]:
    """Return the values of a case."""
    return dict(yaml.safe_load(CASES[case].read_text(encoding="utf-8")))


def render(values: Mapping[str, Any], release: str = RELEASE) -> list[Manifest]:
    """Return the objects that Helm makes of some values.

    Raises:
        helm.HelmError: the values are refused.
    """
    chart().validate_schema(chart().merge_values(dict(values)))
    rendered = chart().render(dict(values), name=release, namespace=NAMESPACE)
    return [
        manifest
        for name, text in sorted(rendered.items())
        if name.endswith(".yaml")
        for manifest in yaml.safe_load_all(text)
        if manifest
    ]


@cache
def rendered(case: str) -> tuple[Manifest, ...]:
    """Return the objects of a case, rendered once; do not change them."""
    return tuple(render(values_of(case)))


def of_kind(manifests: tuple[Manifest, ...] | list[Manifest], kind: str) -> list[Manifest]:
    """Return the objects of a kind."""
    return [manifest for manifest in manifests if manifest["kind"] == kind]


def deployment(manifests: tuple[Manifest, ...] | list[Manifest]) -> Manifest:
    """Return the one Deployment."""
    (found,) = of_kind(manifests, "Deployment")
    return found


def pod_of(manifest: Manifest) -> Manifest:
    """Return the pod's specification in a Deployment."""
    return dict(manifest["spec"]["template"]["spec"])


def server_of(manifest: Manifest) -> Manifest:
    """Return the container of the server in a Deployment."""
    (found,) = pod_of(manifest)["containers"]
    return dict(found)


def fits(selector: Mapping[str, str], labels: Mapping[str, str]) -> bool:
    """Tell whether a selector of labels picks something; an empty one picks nothing here."""
    return bool(selector) and selector.items() <= labels.items()


def quantity(text: object) -> Decimal:
    """Return a Kubernetes quantity as a number: `500m`, `2`, `4Gi`."""
    match = re.fullmatch(r"([0-9.]+)([a-zA-Z]*)", str(text))
    if match is None:
        raise ValueError(f"{text} is not a quantity")
    return Decimal(match[1]) * _UNITS[match[2]]


def selectors(node: object) -> Iterator[Mapping[str, str]]:
    """Yield every `matchLabels` in an object."""
    if isinstance(node, Mapping):
        if "matchLabels" in node:
            yield node["matchLabels"]
        for value in node.values():
            yield from selectors(value)
    elif isinstance(node, list):
        for value in node:
            yield from selectors(value)
