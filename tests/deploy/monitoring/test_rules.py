import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.deploy.monitoring.stack import MONITORING, ROOT, amtool, promtool

RULES = MONITORING / "rules/sensorium.yml"
CASES = sorted(Path(__file__).parent.glob("*.yml"))
OPERATIONS = (ROOT / "docs/operations.md").read_text()


def rules(kind: str) -> list[dict[str, Any]]:
    """Return the rules that have a key: `alert` or `record`."""
    groups = yaml.safe_load(RULES.read_text())["groups"]
    return [rule for group in groups for rule in group["rules"] if kind in rule]


def run(*command: object) -> str:
    """Run a program and return what it says; its failure fails the test."""
    done = subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_prometheus_accepts_the_configuration() -> None:
    """Promtool finds nothing wrong with prometheus.yml, its targets and its rules."""
    assert "is valid" in run(promtool(), "check", "config", MONITORING / "prometheus.yml")


def test_alertmanager_accepts_the_configuration() -> None:
    """Amtool finds nothing wrong with alertmanager.yml."""
    assert "SUCCESS" in run(amtool(), "check-config", MONITORING / "alertmanager.yml")


@pytest.mark.parametrize(("severity", "receiver"), [("critical", "pager"), ("warning", "ticket")])
def test_severity_chooses_the_receiver(severity: str, receiver: str) -> None:
    """Amtool routes what is critical to the pager and the rest to the tickets."""
    config = f"--config.file={MONITORING / 'alertmanager.yml'}"

    assert run(amtool(), "config", "routes", "test", config, f"severity={severity}") == (
        f"{receiver}\n"
    )


@pytest.mark.parametrize("cases", CASES, ids=lambda path: path.stem)
def test_alerts_fire_when_they_should(cases: Path) -> None:
    """Promtool's unit tests of the rules pass."""
    assert "SUCCESS" in run(promtool(), "test", "rules", cases)


def test_each_alert_is_tried_both_ways() -> None:
    """Each alert has a case in which it fires and one in which it does not."""
    tried = [
        (check["alertname"], bool(check["exp_alerts"]))
        for path in CASES
        for case in yaml.safe_load(path.read_text())["tests"]
        for check in case["alert_rule_test"]
    ]
    wanted = {(rule["alert"], fires) for rule in rules("alert") for fires in (True, False)}

    assert wanted - set(tried) == set()


def test_each_alert_says_what_to_do() -> None:
    """Each alert has a severity, a summary, and a heading in docs/operations.md that it names."""
    anchors = {
        f"docs/operations.md#{heading.lower()}"
        for heading in re.findall(r"^### (Sensorium\w+)$", OPERATIONS, re.MULTILINE)
    }
    for rule in rules("alert"):
        assert rule["labels"]["severity"] in {"critical", "warning"}, rule["alert"]
        assert rule["annotations"]["summary"].endswith("."), rule["alert"]

    assert {rule["annotations"]["runbook_url"] for rule in rules("alert")} == anchors


def test_inhibition_names_alerts_that_exist() -> None:
    """What alertmanager.yml holds back, and for what, are alerts of the rules."""
    text = (MONITORING / "alertmanager.yml").read_text()

    assert set(re.findall(r'alertname = "(\w+)"', text)) <= {r["alert"] for r in rules("alert")}


def test_each_recorded_rule_is_used() -> None:
    """What is recorded is read by an alert, another rule or a panel."""
    readers = [rule["expr"] for kind in ("alert", "record") for rule in rules(kind)]
    readers += [path.read_text() for path in (MONITORING / "dashboards").glob("*.json")]
    unread = [
        rule["record"]
        for rule in rules("record")
        if not any(rule["record"] in reader for reader in readers)
    ]

    assert unread == []
