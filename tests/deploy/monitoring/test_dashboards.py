import json
import re
from pathlib import Path

import pytest
import yaml
from tests.deploy.monitoring.stack import MONITORING, ROOT

from dashboards import DASHBOARDS, FOLDER, grafana_dashboard
from sensorium_server.settings import Settings

RECORDED = {
    rule["record"]
    for group in yaml.safe_load((MONITORING / "rules/sensorium.yml").read_text())["groups"]
    for rule in group["rules"]
    if "record" in rule
}


@pytest.mark.parametrize("name", DASHBOARDS)
def test_committed_dashboard_is_what_the_code_writes(name: str) -> None:
    """The JSON is generated, not edited; else run python deploy/monitoring/dashboards.py."""
    assert (FOLDER / f"{name}.json").read_text() == grafana_dashboard(name)


def test_no_dashboard_is_left_over() -> None:
    """Each JSON file belongs to a dashboard that the code knows."""
    assert {path.stem for path in FOLDER.glob("*.json")} == set(DASHBOARDS)


@pytest.mark.parametrize("name", DASHBOARDS)
def test_panels_fit_the_grid_and_do_not_overlap(name: str) -> None:
    """Each line of panels fills the 24 columns of Grafana's grid, and no place is taken twice."""
    taken: set[tuple[int, int]] = set()
    for panel in json.loads(grafana_dashboard(name))["panels"]:
        place = panel["gridPos"]
        cells = {
            (place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])
        }
        assert max(x for x, _ in cells) < 24, panel["title"]
        assert not cells & taken, panel["title"]
        taken |= cells


@pytest.mark.parametrize("name", DASHBOARDS)
def test_recorded_series_exist(name: str) -> None:
    """A panel that reads a recorded series names one that the rules record."""
    named = set(re.findall(r"\b(?:job|task|stage):\w+:\w+", grafana_dashboard(name)))

    assert named <= RECORDED


def test_targets_are_the_default_ports() -> None:
    """Prometheus looks where `sensorium serve` exports both kinds of metrics by default."""
    (group,) = yaml.safe_load((MONITORING / "targets/sensorium.yml").read_text())
    fields = Settings.model_fields
    ports = [fields[name].default for name in ("metrics_port", "service_metrics_port")]

    assert group["targets"] == [f"localhost:{port}" for port in ports]


def test_pictures_of_all_dashboards_are_shown() -> None:
    """docs/operations.md shows a picture of each dashboard."""
    text = (ROOT / "docs/operations.md").read_text()
    shown = {Path(name).stem for name in re.findall(r"\(media/dashboards/([\w.]+)\)", text)}

    assert shown == set(DASHBOARDS)
