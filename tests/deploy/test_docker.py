"""The container's files: the Dockerfile linted, the compose file held against what it names."""

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from compose_spec import PyCompose
from tests.deploy.chart import CHART, ROOT
from tests.deploy.monitoring.stack import promtool

from sensorium_server.launch import _KILL_AFTER_S
from sensorium_server.settings import Settings

DOCKER = ROOT / "deploy/docker"
DOCKERFILE = (DOCKER / "Dockerfile").read_text()
COMPOSE_TEXT = (DOCKER / "compose.yaml").read_text()
SERVICES: dict[str, Any] = yaml.safe_load(COMPOSE_TEXT)["services"]
IGNORED = {line for line in (ROOT / ".dockerignore").read_text().splitlines() if line[0] != "#"}


def hadolint(path: Path) -> subprocess.CompletedProcess[str]:
    """Run the linter of Dockerfiles."""
    command = [str(Path(sys.executable).with_name("hadolint")), str(path)]
    return subprocess.run(command, capture_output=True, check=False, text=True)


def test_hadolint_finds_nothing() -> None:
    """The Dockerfile follows the linter's rules, or says beside a line why not."""
    done = hadolint(DOCKER / "Dockerfile")

    assert done.returncode == 0, done.stdout


def test_hadolint_would_find_something(tmp_path: Path) -> None:
    """The linter that is installed does lint."""
    (tmp_path / "Dockerfile").write_text("FROM debian\nRUN cd /tmp && apt-get install curl\n")

    assert hadolint(tmp_path / "Dockerfile").returncode == 1


def test_what_is_copied_is_sent_to_the_builder() -> None:
    """Each source of COPY exists, and .dockerignore keeps out all the rest."""
    copies = re.findall(r"^COPY (?!--from)(.+) \S+$", DOCKERFILE, re.MULTILINE)
    sources = {source for line in copies for source in line.split()}

    assert {f"!{source}" for source in sources} == {line for line in IGNORED if line[0] == "!"}
    assert [source for source in sources if not (ROOT / source).exists()] == []
    assert "*" in IGNORED


def test_the_image_runs_as_a_user_by_number() -> None:
    """Kubernetes can only tell that a user is not root by its number, which the chart uses too."""
    (user,) = re.findall(r"^USER (\d+):(\d+)$", DOCKERFILE, re.MULTILINE)
    template = (CHART / "templates/deployment.yaml").read_text()

    assert int(user[0]) > 0
    assert f"runAsUser: {user[0]}" in template
    assert f"runAsGroup: {user[1]}" in template


def test_the_image_sets_settings() -> None:
    """Each SENSORIUM_… variable of the image is a setting, and each port a default."""
    names = set(re.findall(r"SENSORIUM_(\w+)=", DOCKERFILE))
    ports = re.findall(r"^EXPOSE (.+)$", DOCKERFILE, re.MULTILINE)[0].split()
    ports_of_one = [name for name in Settings.model_fields if name.endswith("_port")]
    ports_of_one.remove("balancer_metrics_port")  # the image holds no balancer
    known = {str(Settings.model_fields[name].default) for name in ports_of_one}

    assert {name.lower() for name in names} <= set(Settings.model_fields)
    assert known <= set(ports)


def test_signals_reach_the_server() -> None:
    """PID 1 is an init without a shell before it, so that SIGTERM is not lost."""
    assert 'ENTRYPOINT ["tini", "--", "sensorium"]' in DOCKERFILE
    assert 'CMD ["serve"]' in DOCKERFILE


def test_compose_file_is_of_its_specification() -> None:
    """The strict reader of the compose specification accepts the file, and would not a typo."""
    assert set(PyCompose.from_yaml(COMPOSE_TEXT).service_names()) == set(SERVICES)
    with pytest.raises(ValueError, match="prots"):
        PyCompose.from_yaml(COMPOSE_TEXT.replace("ports:", "prots:", 1))


def test_compose_mounts_what_exists() -> None:
    """Each file that is mounted is in the repository, read-only, and each volume is declared."""
    volumes = yaml.safe_load(COMPOSE_TEXT)["volumes"]
    mounts = [mount for each in SERVICES.values() for mount in each.get("volumes", [])]
    files = [mount for mount in mounts if mount.startswith(".")]

    assert [m for m in files if not (DOCKER / m.split(":")[0]).exists()] == []
    assert [mount for mount in files if not mount.endswith(":ro")] == []
    assert {m.split(":")[0] for m in mounts if m not in files} == set(volumes)


def test_compose_builds_the_image() -> None:
    """The Dockerfile is found from the context, which is the repository."""
    build = SERVICES["sensorium"]["build"]

    assert (DOCKER / build["context"]).resolve() == ROOT
    assert (ROOT / build["dockerfile"]).is_file()


def test_compose_waits_until_the_server_has_drained() -> None:
    """The grace period is longer than draining and Triton's own exit take."""
    server = SERVICES["sensorium"]
    drain_s = int(server["environment"]["SENSORIUM_DRAIN_TIMEOUT_S"])

    assert int(server["stop_grace_period"].removesuffix("s")) > 2 * drain_s + _KILL_AFTER_S
    assert {f"SENSORIUM_{name.upper()}" for name in Settings.model_fields} >= set(
        server["environment"]
    )


def test_compose_opens_ports_to_this_machine_alone() -> None:
    """Nobody else reaches what asks no one for a name."""
    ports = [port for each in SERVICES.values() for port in each["ports"]]

    assert [port for port in ports if not port.startswith("127.0.0.1:")] == []


def test_prometheus_watches_the_services(tmp_path: Path) -> None:
    """With the two lists of targets in their place, Prometheus's configuration names services."""
    layout = tmp_path / "prometheus"
    shutil.copytree(ROOT / "deploy/monitoring", layout)
    for path in (DOCKER / "targets").iterdir():
        shutil.copy(path, layout / "targets" / path.name)
    targets = {
        target
        for path in (layout / "targets").iterdir()
        for group in yaml.safe_load(path.read_text())
        for target in group["targets"]
    }
    done = subprocess.run(
        [promtool(), "check", "config", str(layout / "prometheus.yml")],
        capture_output=True, check=False, text=True,
    )  # fmt: skip

    assert done.returncode == 0, done.stdout + done.stderr
    assert targets == {"sensorium:8002", "sensorium:8003", "alertmanager:9093"}
    assert {target.partition(":")[0] for target in targets} <= set(SERVICES)
