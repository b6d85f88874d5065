"""What no schema sees: that the chart's objects fit each other, and the server that they start."""

import tomllib
from pathlib import Path

import pytest
import yaml
from tests.deploy import chart
from tests.deploy.chart import Manifest, deployment, of_kind, pod_of, quantity, rendered, server_of

from sensorium_server.launch import _KILL_AFTER_S
from sensorium_server.settings import PROFILES, Settings, load

every_case = pytest.mark.parametrize("case", chart.CASES)
WRITABLE = {"/cache", "/tmp", "/dev/shm"}


def pod_labels(case: str) -> dict[str, str]:
    """Return the labels of the pods."""
    return dict(deployment(rendered(case))["spec"]["template"]["metadata"]["labels"])


def port_names(case: str) -> dict[str, int]:
    """Return the named ports of the server's container."""
    ports = server_of(deployment(rendered(case)))["ports"]
    return {port["name"]: port["containerPort"] for port in ports}


def server_environment(case: str) -> dict[str, str]:
    """Return the environment of the server's container."""
    return {each["name"]: each["value"] for each in server_of(deployment(rendered(case)))["env"]}


def profile(case: str, path: Path) -> Path:
    """Write the profile of the ConfigMap to a file, as the pod sees it."""
    (config,) = [
        each for each in of_kind(rendered(case), "ConfigMap") if "profile.toml" in each["data"]
    ]
    file = path / "profile.toml"
    file.write_text(config["data"]["profile.toml"])
    return file


@every_case
def test_selectors_select_the_pods(case: str) -> None:
    """Deployment, Services, budget, policy and spreading all mean the pods of this release."""
    labels = pod_labels(case)
    kinds = ("Deployment", "PodDisruptionBudget", "NetworkPolicy")
    found = [s for k in kinds for m in of_kind(rendered(case), k) for s in own_selectors(m)]
    services = [service["spec"]["selector"] for service in of_kind(rendered(case), "Service")]

    assert len(services) == 2
    assert [each for each in (*found, *services) if not chart.fits(each, labels)] == []


def own_selectors(manifest: Manifest) -> list[dict[str, str]]:
    """Return the selectors in an object that mean its own pods, not other namespaces'."""
    spec = {key: value for key, value in manifest["spec"].items() if key != "ingress"}
    spec.pop("egress", None)
    return [dict(each) for each in chart.selectors(spec)]


@every_case
def test_two_releases_do_not_select_each_others_pods(case: str) -> None:
    """The release's name is in every selector, and every object is named for it."""
    other = chart.render(chart.values_of(case), release="other")
    selector = deployment(other)["spec"]["selector"]["matchLabels"]

    assert not chart.fits(selector, pod_labels(case))


@every_case
def test_ports_exist(case: str) -> None:
    """Services, probes, policies, monitors and routes name ports that the container has."""
    names, manifests = port_names(case), rendered(case)
    server = server_of(deployment(manifests))
    services = {m["metadata"]["name"]: m["spec"]["ports"] for m in of_kind(manifests, "Service")}
    used = {port["targetPort"] for ports in services.values() for port in ports}
    used |= {server[probe]["httpGet"]["port"] for probe in server if probe.endswith("Probe")}
    for policy in of_kind(manifests, "NetworkPolicy"):
        used |= {port["port"] for rule in policy["spec"]["ingress"] for port in rule["ports"]}

    assert used == set(names)
    for ports in services.values():
        assert [p for p in ports if p["port"] != names[p["targetPort"]]] == []
    for route in (*of_kind(manifests, "GRPCRoute"), *of_kind(manifests, "HTTPRoute")):
        (backend,) = route["spec"]["rules"][0]["backendRefs"]
        wanted = "grpc" if route["kind"] == "GRPCRoute" else "http"
        assert (wanted, backend["port"]) in {
            (port["name"], port["port"]) for port in services[backend["name"]]
        }


def test_ports_are_the_servers() -> None:
    """The container's ports are the defaults of the settings, which the chart does not change."""
    names = {"http": "http_port", "grpc": "grpc_port", "metrics": "metrics_port"}
    if "service_metrics_port" in Settings.model_fields:
        names["service-metrics"] = "service_metrics_port"
    ports = port_names("default")

    assert {name: Settings.model_fields[names[name]].default for name in names} == {
        name: ports[name] for name in names
    }


def test_prometheus_scrapes_each_pod_once_at_both_ports() -> None:
    """The ServiceMonitor selects the headless Service alone, and names its metrics ports."""
    manifests = rendered("all-hpa")
    (monitor,) = of_kind(manifests, "ServiceMonitor")
    selector = monitor["spec"]["selector"]["matchLabels"]
    (service,) = [
        each
        for each in of_kind(manifests, "Service")
        if chart.fits(selector, each["metadata"]["labels"])
    ]
    endpoints = monitor["spec"]["endpoints"]
    jobs = {(r["targetLabel"], r["replacement"]) for e in endpoints for r in e["relabelings"]}

    assert service["spec"]["clusterIP"] == "None"
    assert [each["port"] for each in endpoints] == ["metrics", "service-metrics"]
    assert {each["port"] for each in endpoints} <= {p["name"] for p in service["spec"]["ports"]}
    assert jobs == {("job", "sensorium")}


@every_case
def test_probes_ask_what_they_mean(case: str) -> None:
    """Start and readiness ask whether models answer, liveness only whether the server does."""
    server = server_of(deployment(rendered(case)))
    paths = {name: server[name]["httpGet"]["path"] for name in server if name.endswith("Probe")}

    assert paths == {
        "startupProbe": "/v2/health/ready",
        "readinessProbe": "/v2/health/ready",
        "livenessProbe": "/v2/health/live",
    }


@every_case
def test_the_server_gives_up_a_start_before_the_kubelet(case: str, tmp_path: Path) -> None:
    """Start and liveness wait longer than the server's own timeout, whose message says why."""
    server = server_of(deployment(rendered(case)))
    settings = load({"profile": str(profile(case, tmp_path))})
    for name in ("startupProbe", "livenessProbe"):
        patience = server[name]["periodSeconds"] * server[name]["failureThreshold"]

        assert patience >= settings.startup_timeout_s + 30


@pytest.mark.parametrize("drain_s", [0, 30, 300])
@pytest.mark.parametrize("pre_stop_s", [0, 20, 90])
def test_the_grace_period_is_longer_than_the_end_takes(drain_s: int, pre_stop_s: int) -> None:
    """The preStop sleep, draining, Triton's own exit and its kill fit into the grace period."""
    values = {"preStopSeconds": pre_stop_s, "settings": {"drain_timeout_s": drain_s}}
    manifests = chart.render(values)
    pod = pod_of(deployment(manifests))
    sleep = server_of(deployment(manifests)).get("lifecycle", {}).get("preStop", {}).get("sleep")

    assert (sleep or {"seconds": 0})["seconds"] == pre_stop_s
    assert pod["terminationGracePeriodSeconds"] > pre_stop_s + 2 * drain_s + _KILL_AFTER_S


@every_case
def test_limits_are_at_least_the_requests(case: str) -> None:
    """No container asks for more than it may have."""
    pod = pod_of(deployment(rendered(case)))
    for container in (*pod.get("initContainers", []), *pod["containers"]):
        limits = container["resources"]["limits"]
        for name, wanted in container["resources"]["requests"].items():
            assert quantity(wanted) <= quantity(limits.get(name, wanted)), container["name"]
        assert "memory" in limits


@every_case
def test_shared_memory_is_memory_that_the_limit_allows(case: str) -> None:
    """/dev/shm is a memory-backed volume with a size, well below the container's limit."""
    pod = pod_of(deployment(rendered(case)))
    (volume,) = [each["emptyDir"] for each in pod["volumes"] if each["name"] == "shared-memory"]
    limit = server_of(deployment(rendered(case)))["resources"]["limits"]["memory"]

    assert volume["medium"] == "Memory"
    assert quantity(volume["sizeLimit"]) <= quantity(limit) / 2


@every_case
def test_every_volume_is_mounted_and_every_mount_has_its_volume(case: str) -> None:
    """No volume is forgotten, and nothing is mounted over something else."""
    pod = pod_of(deployment(rendered(case)))
    containers = (*pod.get("initContainers", []), *pod["containers"])
    mounted = {mount["name"] for each in containers for mount in each["volumeMounts"]}
    for container in containers:
        paths = [mount["mountPath"] for mount in container["volumeMounts"]]
        assert len(paths) == len(set(paths))

    assert mounted == {volume["name"] for volume in pod["volumes"]}


@every_case
def test_every_key_of_the_profile_is_mounted_and_read(case: str) -> None:
    """The ConfigMap's one key becomes the file that the server is told to read."""
    pod, server = pod_of(deployment(rendered(case))), server_of(deployment(rendered(case)))
    (volume,) = [each for each in pod["volumes"] if each["name"] == "profile"]
    (config,) = [
        each
        for each in of_kind(rendered(case), "ConfigMap")
        if each["metadata"]["name"] == volume["configMap"]["name"]
    ]
    (mount,) = [each for each in server["volumeMounts"] if each["name"] == "profile"]
    read = Path(server_environment(case)["SENSORIUM_PROFILE"])

    assert set(config["data"]) == {read.name}
    assert mount["mountPath"] == str(read.parent)
    assert "subPath" not in mount


@every_case
def test_the_server_accepts_the_profile(case: str, tmp_path: Path) -> None:
    """`sensorium serve` reads the rendered profile, and has the values that were given."""
    settings = load({"profile": str(profile(case, tmp_path))})
    given = {**chart.values_of("default")["settings"], **chart.values_of(case).get("settings", {})}

    assert {name: getattr(settings, name) for name in given} == given


@every_case
def test_the_server_accepts_its_environment(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every SENSORIUM_… variable of the container is a setting, and wins over the profile."""
    given = {k: v for k, v in server_environment(case).items() if k.startswith("SENSORIUM_")}
    known = {f"SENSORIUM_{name.upper()}" for name in Settings.model_fields}
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    settings = load({"profile": str(profile(case, tmp_path))})

    assert set(given) <= known
    assert (str(settings.repository), str(settings.cache_dir)) == ("/models", "/cache")
    assert settings.host == "0.0.0.0"


@pytest.mark.parametrize("name", [path.stem for path in PROFILES.glob("*.toml")])
def test_values_hold_the_built_in_profile(name: str) -> None:
    """values-NAME.yaml says what the server's own profile NAME says, unless it knows better."""
    own = tomllib.loads((PROFILES / f"{name}.toml").read_text())

    assert own.items() <= chart.values_of(name)["settings"].items()


@every_case
def test_the_pod_can_do_little(case: str) -> None:
    """Not root, no capabilities, no token, nothing to write but what the server needs."""
    pod = pod_of(deployment(rendered(case)))
    writable = {
        mount["mountPath"]
        for mount in server_of(deployment(rendered(case)))["volumeMounts"]
        if not mount.get("readOnly")
    }
    for container in (*pod.get("initContainers", []), *pod["containers"]):
        security = container["securityContext"]
        assert security["readOnlyRootFilesystem"] is True
        assert security["allowPrivilegeEscalation"] is False
        assert security["capabilities"] == {"drop": ["ALL"]}

    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is False
    assert pod["enableServiceLinks"] is False
    assert writable == WRITABLE


@every_case
def test_one_hand_sets_the_number_of_pods(case: str) -> None:
    """An autoscaler aims at the Deployment, which then has no number of its own; never two."""
    manifests = rendered(case)
    scalers = [*of_kind(manifests, "HorizontalPodAutoscaler"), *of_kind(manifests, "ScaledObject")]
    target = deployment(manifests)

    assert ("replicas" in target["spec"]) == (not scalers)
    assert len(scalers) <= 1
    for scaler in scalers:
        assert scaler["spec"]["scaleTargetRef"]["name"] == target["metadata"]["name"]


def test_a_gpu_is_a_limit() -> None:
    """GPUs are asked for as limits, and nodes that have them are tolerated."""
    server = server_of(deployment(rendered("gpu")))
    tolerations = pod_of(deployment(rendered("gpu")))["tolerations"]
    slices = server_of(deployment(rendered("all-keda")))["resources"]["limits"]

    assert server["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert [each["key"] for each in tolerations] == ["nvidia.com/gpu"]
    assert slices["nvidia.com/mig-1g.10gb"] == 1
    assert "memory" in slices


def test_models_are_copied_to_where_the_server_reads_them() -> None:
    """The init container fills the volume that the server then mounts read-only."""
    pod = pod_of(deployment(rendered("all-keda")))
    (fetch,) = pod["initContainers"]
    mounts = {
        m["mountPath"]: m for m in server_of(deployment(rendered("all-keda")))["volumeMounts"]
    }

    assert fetch["args"][-1] == server_environment("all-keda")["SENSORIUM_REPOSITORY"]
    assert {m["name"] for m in fetch["volumeMounts"] if m["mountPath"] == "/models"} == {"models"}
    assert mounts["/models"]["name"] == "models"
    assert mounts["/models"]["readOnly"] is True


def test_tls_files_are_those_of_the_secret() -> None:
    """The server reads certificate, key and authority where the Secret is mounted."""
    environment = server_environment("all-hpa")
    mounts = {m["name"]: m for m in server_of(deployment(rendered("all-hpa")))["volumeMounts"]}
    files = {environment[name] for name in environment if "_TLS_" in name}

    assert files == {
        f"{mounts['tls']['mountPath']}/{name}" for name in ("tls.crt", "tls.key", "ca.crt")
    }


def test_a_changed_setting_is_a_rollout() -> None:
    """The pod's template changes with the profile, since nothing reads it again."""
    before, after = (
        deployment(chart.render({"settings": {"http_threads": n}}))["spec"]["template"]
        for n in (2, 3)
    )

    assert before != after


def test_long_names_stay_valid() -> None:
    """Names of a long release are cut to what Kubernetes takes."""
    names = [each["metadata"]["name"] for each in chart.render({}, release="r" * 53)]

    assert max(map(len, names)) <= 63


def test_a_gateway_needs_no_client_to_change() -> None:
    """Routes carry the hostnames and belong to the gateways that were given."""
    values = yaml.safe_load(chart.CASES["all-hpa"].read_text())["gateway"]
    for kind in ("GRPCRoute", "HTTPRoute"):
        (route,) = of_kind(rendered("all-hpa"), kind)

        assert route["spec"]["parentRefs"] == values["parentRefs"]
        assert route["spec"]["hostnames"] == values["hostnames"]
