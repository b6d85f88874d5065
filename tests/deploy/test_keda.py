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
        series = trigger["query"].count("nv_") + trigger["query"].count("sensorium_")
        assert trigger["query"].count(pods) == series > 0


# What one pod of two counts in 15 s. The task holds its stages and must not count, nor what another
# release does; the decoder's own work is 0.5 requests and 1 that waits.
SERIES = """
nv_inference_request_duration_us{POD, model="image_captioning"}: 0+99000000x20
nv_inference_request_duration_us{POD, model="image_encoder"}: 0+RATEx20
nv_inference_request_duration_us{POD, model="text_decoder"}: 0+0x20
sensorium_stage_seconds_sum{POD, stage="text_decoder"}: 0+7.5x20
sensorium_stage_queue_seconds_sum{POD, stage="text_decoder"}: 0+15x20
sensorium_stage_queue_seconds_sum{POD, stage="image_encoder"}: 0+99x20
sensorium_rejected_total{POD, stage="image_encoder", reason="invalid_input"}: 0+99x20
sensorium_rejected_total{POD, stage="image_encoder", reason="overloaded"}: 0+30x20
sensorium_rejected_total{POD, stage="text_decoder", reason="overloaded"}: 0+0x20
"""


@pytest.mark.parametrize(
    ("encoder", "index", "value"), [(60e6, 0, 8.0), (1e6, 0, 3.0), (1e6, 1, 4.0)]
)
def test_queries_count_what_is_in_a_stage_and_what_is_refused(
    encoder: float, index: int, value: float, tmp_path: Path
) -> None:
    """First the mean number in the fullest stage of all pods together, then refusals per second."""
    service = chart.of_kind(chart.rendered("all-keda"), "Service")[-1]["metadata"]["name"]
    pods = [f'namespace="models", service="{service}", pod="{name}"' for name in "ab"]
    pods.append('namespace="models", service="another", pod="c"')
    rates = SERIES.strip().replace("RATE", f"{encoder:.0f}")
    case = {
        "evaluation_interval": "15s",
        "tests": [
            {
                "interval": "15s",
                "input_series": [
                    {"series": line.partition(": ")[0], "values": line.partition(": ")[2]}
                    for pod in pods
                    for line in rates.replace("POD", pod).splitlines()
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
