"""The chart: linted, rendered and held against the schemas of what it makes."""

import copy
import io
import itertools
import re
import shlex
import subprocess
import sys
import tarfile
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import helm_python as helm
import pytest
import yaml
from tests.deploy import chart
from tests.deploy.schema import problems

WARNING = 2


@pytest.mark.parametrize("case", chart.CASES)
def test_lint_finds_nothing(case: str) -> None:
    """Helm's own lint has neither a warning nor an error."""
    report = helm.lint(chart.CHART, chart.values_of(case), strict=True, kube_version="v1.30.0")

    assert report["errors"] == []
    assert [each for each in report["messages"] if each["severity"] >= WARNING] == []


@pytest.mark.parametrize("case", chart.CASES)
def test_objects_are_what_their_schemas_say(case: str) -> None:
    """Every object passes the strict schema of Kubernetes or of its custom resource."""
    manifests = chart.rendered(case)

    assert {m["metadata"]["name"]: p for m in manifests if (p := problems(m))} == {}
    assert len(manifests) >= 5


def test_everything_that_can_be_made_is_made_somewhere() -> None:
    """The cases of these tests together make every kind of object that the chart knows."""
    kinds = {each["kind"] for case in chart.CASES for each in chart.rendered(case)}
    templates = "".join(path.read_text() for path in (chart.CHART / "templates").glob("*.yaml"))

    assert kinds == {
        *("Deployment", "ConfigMap", "Service", "ServiceAccount", "PodDisruptionBudget"),
        *("HorizontalPodAutoscaler", "ScaledObject", "NetworkPolicy", "GRPCRoute", "HTTPRoute"),
        *("ServiceMonitor", "PrometheusRule"),
    }
    assert [kind for kind in kinds if kind not in templates] == []


@pytest.mark.parametrize("kind", ["Deployment", "ServiceMonitor", "ScaledObject", "GRPCRoute"])
def test_a_typo_is_a_problem(kind: str) -> None:
    """The schemas refuse a key that they do not know, custom resources' too."""
    (found, *_) = [m for c in chart.CASES for m in chart.of_kind(chart.rendered(c), kind)]
    wrong: dict[str, Any] = copy.deepcopy(dict(found))
    wrong["spec"]["replcias"] = 2

    assert problems(found) == []
    assert problems(wrong) != []


def test_an_unknown_kind_is_a_problem() -> None:
    """What has no schema does not pass unseen."""
    assert problems({"apiVersion": "example.com/v1", "kind": "Thing", "metadata": {}}) != []


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ({"replicas": 3}, "replicas"),
        ({"settings": {"max_image_byte": 1}}, "max_image_byte"),
        ({"settings": {"http_threads": 0}}, "http_threads"),
        ({"settings": {"log_level": "loud"}}, "log_level"),
        ({"settings": {"http_port": 9000}}, "http_port"),
        ({"settings": {"drain_timeout_s": None}}, "drain_timeout_s"),
        ({"autoscaling": {"kind": "both"}}, "kind"),
        ({"autoscaling": {"hpa": {"enabled": True}}}, "enabled"),
        ({"autoscaling": {"kind": "hpa", "minReplicas": 9}}, "minReplicas = 9 is more than"),
        ({"autoscaling": {"kind": "keda", "minReplicas": 9}}, "minReplicas = 9 is more than"),
        ({"modelRepository": {"source": "pvc"}}, "claimName"),
        ({"modelRepository": {"source": "objectStore"}}, "url"),
        ({"tls": {"verifyClients": True}}, "secretName"),
        ({"gateway": {"enabled": True}}, "parentRefs"),
        ({"rollingUpdate": {"maxSurge": 0}}, "maxUnavailable"),
        ({"sharedMemory": {"sizeLimit": "1 GB"}}, "sizeLimit"),
    ],
)
def test_values_that_cannot_work_are_refused(values: dict[str, Any], complaint: str) -> None:
    """A wrong key, setting or combination stops the installation, and is named."""
    with pytest.raises(helm.HelmError, match=complaint):
        chart.render(values)


def test_the_package_holds_what_the_links_lead_to(tmp_path: Path) -> None:
    """A packaged chart carries the rules and dashboards of deploy/monitoring."""
    archive = helm.package(chart.CHART, destination=tmp_path)
    with tarfile.open(archive) as package:
        names = {name.removeprefix("sensorium/") for name in package.getnames()}
        rules = package.extractfile("sensorium/monitoring/rules.yml")
        held = io.BytesIO(rules.read() if rules else b"").getvalue()

    assert held == (chart.ROOT / "deploy/monitoring/rules/sensorium.yml").read_bytes()
    assert {"Chart.yaml", "values.schema.json", "monitoring/dashboards/overview.json"} <= names


def test_rules_and_dashboards_arrive_unchanged() -> None:
    """Templates in alerts and panels are Prometheus's and Grafana's, not Helm's."""
    (rule,) = chart.of_kind(chart.rendered("all-hpa"), "PrometheusRule")
    boards = chart.of_kind(chart.rendered("all-hpa"), "ConfigMap")[-1]["data"]
    monitoring = chart.ROOT / "deploy/monitoring"

    assert rule["spec"] == yaml.safe_load((monitoring / "rules/sensorium.yml").read_text())
    assert boards == {p.name: p.read_text() for p in (monitoring / "dashboards").glob("*.json")}


def test_values_are_documented() -> None:
    """The schema's settings and the README's table are what reference.py writes."""
    check = [sys.executable, "deploy/helm/reference.py", "--check"]
    done = subprocess.run(check, cwd=chart.ROOT, capture_output=True, check=False, text=True)

    assert done.returncode == 0, done.stdout + done.stderr


def test_every_key_of_the_schema_has_its_value() -> None:
    """values.yaml shows every key that there is, so that nobody has to read the schema."""

    def missing(facts: Mapping[str, Any], values: Mapping[str, Any], prefix: str) -> list[str]:
        found = [prefix + name for name in facts["properties"] if name not in values]
        for name in facts["properties"].keys() & values.keys():
            each = facts["properties"][name]
            if "properties" in each and name != "settings":
                found += missing(each, values[name], f"{prefix}{name}.")
        return found

    assert missing(chart.chart().schema or {}, chart.values_of("default"), "") == ["global"]


@pytest.mark.parametrize("page", ["README.md", "helm/sensorium/README.md"])
def test_commands_that_are_written_down_render(page: str) -> None:
    """Each `helm install` of a page names files that exist and values that Helm accepts."""
    text = (chart.ROOT / "deploy" / page).read_text().replace("\\\n", " ")
    commands = [
        shlex.split(each) for each in re.findall(r"^ +(helm install .*)$", text, re.MULTILINE)
    ]
    for words in commands:
        pairs = list(itertools.pairwise(words))
        given = ",".join(value for flag, value in pairs if flag == "--set")
        files = [value for flag, value in pairs if flag == "--values" and "/" in value]

        assert (chart.ROOT / words[3]).samefile(chart.CHART)
        assert [name for name in files if not (chart.ROOT / name).is_file()] == []
        assert chart.render(helm.parse_set_string(given) if given else {})
    assert commands


def test_the_chart_has_the_projects_version() -> None:
    """Chart, image and distribution carry one version."""
    project = tomllib.loads((chart.ROOT / "pyproject.toml").read_text())["project"]["version"]

    assert chart.chart().version == project
    assert chart.chart().metadata["appVersion"] == project
