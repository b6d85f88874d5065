"""KEDA's queries, asked of Prometheus's own tools."""

import subprocess
from pathlib import Path

import pytest
import yaml
from tests.deploy import chart
from tests.deploy.monitoring.stack import promtool


def triggers() -> list[dict[str, str]]:
    """Return the metadata of every trigger."""
    (scaled,) = chart.of_kind(chart.rendered("all-keda"), "ScaledObject")
    return [trigger["metadata"] for trigger in scaled["spec"]["triggers"]]


def test_missing_metrics_are_not_an_idle_server() -> None:
    """A query without an answer is an error, for which the fallback stands."""
    (scaled,) = chart.of_kind(chart.rendered("all-keda"), "ScaledObject")

    assert [each["ignoreNullValues"] for each in triggers()] == ["false", "false"]
    assert scaled["spec"]["fallback"]["replicas"] >= scaled["spec"]["minReplicaCount"]


def test_queries_mean_this_releases_pods() -> None:
    """Each series of each query is of this namespace and of the Service that is scraped."""
    service = chart.of_kind(chart.rendered("all-keda"), "Service")[-1]["metadata"]["name"]
    pods = f'namespace="{chart.NAMESPACE}", service="{service}"'
    for trigger in triggers():
        assert trigger["query"].count("rate(") == trigger["query"].count(pods) > 0


# Two pods: in a minute 90 s were waited for the encoder in each, and 24 s for the decoder's slots.
SERIES = """
nv_inference_queue_duration_us{POD, model="image_encoder"}: 0+22500000x20
nv_inference_queue_duration_us{POD, model="text_decoder"}: 0+1000x20
sensorium_stage_queue_seconds_sum{POD, stage="text_decoder"}: 0+6x20
nv_inference_request_failure{POD, model="image_encoder", reason="REJECTED"}: 0+30x20
"""


@pytest.mark.parametrize(("index", "value"), [(0, 3.0), (1, 4.0)])
def test_queries_count_what_waits_and_what_is_refused(
    index: int, value: float, tmp_path: Path
) -> None:
    """First the mean number that waits for the busiest stage, then refusals per second."""
    service = chart.of_kind(chart.rendered("all-keda"), "Service")[-1]["metadata"]["name"]
    pods = [f'namespace="models", service="{service}", pod="{name}"' for name in "ab"]
    case = {
        "evaluation_interval": "15s",
        "tests": [
            {
                "interval": "15s",
                "input_series": [
                    {"series": line.partition(": ")[0], "values": line.partition(": ")[2]}
                    for pod in pods
                    for line in SERIES.replace("POD", pod).strip().splitlines()
                ],
                "promql_expr_test": [
                    {
                        "expr": triggers()[index]["query"],
                        "eval_time": "5m",
                        "exp_samples": [{"labels": "{}", "value": value}],
                    }
                ],
            }
        ],
    }
    (tmp_path / "case.yml").write_text(yaml.safe_dump(case))
    done = subprocess.run(
        [promtool(), "test", "rules", str(tmp_path / "case.yml")],
        capture_output=True, check=False, text=True,
    )  # fmt: skip

    assert done.returncode == 0, done.stdout + done.stderr
