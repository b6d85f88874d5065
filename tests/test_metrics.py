"""Each metric is written down, and somebody looks at it."""

from pathlib import Path

import pytest

from sensorium_server.metrics import METRICS

ROOT = Path(__file__).parents[1]
MONITORING = ROOT / "deploy/monitoring"


def unused(monitoring: Path) -> list[str]:
    """Return the metrics that no dashboard, alert or rule under a directory mentions."""
    texts = [
        path.read_text(encoding="utf-8")
        for path in sorted(monitoring.rglob("*"))
        if path.suffix in {".json", ".yml", ".yaml"}
    ]
    return [metric.name for metric in METRICS if not any(metric.name in text for text in texts)]


def test_every_metric_is_documented() -> None:
    """docs/operations.md names each metric with its labels."""
    text = (ROOT / "docs/operations.md").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line.startswith("| `sensorium_")]
    missing = [
        metric.name
        for metric in METRICS
        if not any(
            f"`{metric.name}`" in line and all(f"`{label}`" in line for label in metric.labels)
            for line in lines
        )
    ]

    assert missing == []


def test_a_metric_that_nobody_uses_is_found(tmp_path: Path) -> None:
    """The check names what no file mentions."""
    first, *others = (metric.name for metric in METRICS)
    (tmp_path / "rules.yml").write_text("\n".join(others))

    assert unused(tmp_path) == [first]


@pytest.mark.skipif(not MONITORING.is_dir(), reason="deploy/monitoring, the dashboards, is missing")
def test_every_metric_is_used() -> None:
    """A panel, an alert or a recording rule uses each metric."""
    assert unused(MONITORING) == []
