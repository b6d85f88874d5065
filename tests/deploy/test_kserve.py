"""KServe's objects: by their schemas, with each other, and with the server that they start."""

from typing import Any

import pytest
import yaml
from tests.deploy.chart import ROOT, quantity
from tests.deploy.schema import problems

from sensorium_server.launch import _KILL_AFTER_S
from sensorium_server.settings import load

FOLDER = ROOT / "deploy/kserve"
RUNTIME: dict[str, Any] = yaml.safe_load((FOLDER / "servingruntime.yaml").read_text())
SERVICE: dict[str, Any] = yaml.safe_load((FOLDER / "inferenceservice.yaml").read_text())
(CONTAINER,) = RUNTIME["spec"]["containers"]
MODEL = SERVICE["spec"]["predictor"]["model"]


@pytest.mark.parametrize("manifest", [RUNTIME, SERVICE], ids=lambda each: str(each["kind"]))
def test_objects_are_what_their_schemas_say(manifest: dict[str, Any]) -> None:
    """Every key is one that KServe knows."""
    assert problems(manifest) == []


def test_the_service_is_served_by_the_runtime() -> None:
    """The InferenceService names the runtime, and asks for a format and protocol that it has."""
    formats = [(f["name"], f["version"]) for f in RUNTIME["spec"]["supportedModelFormats"]]

    assert MODEL["runtime"] == RUNTIME["metadata"]["name"]
    assert (MODEL["modelFormat"]["name"], MODEL["modelFormat"]["version"]) in formats
    assert MODEL["protocolVersion"] in RUNTIME["spec"]["protocolVersions"]


def test_the_server_listens_where_kserve_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Environment, ports and probes agree; the models are where KServe puts them."""
    for each in CONTAINER["env"]:
        monkeypatch.setenv(each["name"], each["value"])
    settings = load()
    probed = {CONTAINER[probe]["httpGet"]["port"] for probe in CONTAINER if probe.endswith("Probe")}

    assert {port["containerPort"] for port in CONTAINER["ports"]} == {settings.http_port} == probed
    assert str(settings.repository) == "/mnt/models"
    assert settings.host == "0.0.0.0"


def test_pods_have_time_to_drain(monkeypatch: pytest.MonkeyPatch) -> None:
    """The service's grace period holds the runtime's preStop sleep and the server's drain."""
    for each in CONTAINER["env"]:
        monkeypatch.setenv(each["name"], each["value"])
    sleep_s = CONTAINER["lifecycle"]["preStop"]["sleep"]["seconds"]
    needed_s = sleep_s + 2 * load().drain_timeout_s + _KILL_AFTER_S

    assert SERVICE["spec"]["predictor"]["terminationGracePeriodSeconds"] > needed_s


def test_the_container_can_do_little_and_writes_where_it_may() -> None:
    """As in the chart: not root, read-only, and three volumes, all of them mounted."""
    mounts = {mount["name"]: mount["mountPath"] for mount in CONTAINER["volumeMounts"]}
    volumes = {volume["name"]: volume["emptyDir"] for volume in RUNTIME["spec"]["volumes"]}
    limit = quantity(CONTAINER["resources"]["limits"]["memory"])

    assert CONTAINER["securityContext"]["readOnlyRootFilesystem"] is True
    assert CONTAINER["securityContext"]["runAsNonRoot"] is True
    assert set(mounts) == set(volumes)
    assert set(mounts.values()) == {"/cache", "/tmp", "/dev/shm"}
    assert quantity(volumes["shared-memory"]["sizeLimit"]) <= limit / 2
    for name, wanted in CONTAINER["resources"]["requests"].items():
        assert quantity(wanted) <= quantity(CONTAINER["resources"]["limits"][name])
