"""Grafana's dashboards as code: python deploy/monitoring/dashboards.py writes dashboards/*.json.

A query that an alert needs too is a recorded rule (rules/sensorium.yml), so that both see the same.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from grafana_foundation_sdk.builders import dashboard
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import dashboard as model

import bundles
import overview
import pipeline
from panel import DATASOURCE, Row, grafana_panel

FOLDER = Path(__file__).parent / "dashboards"
DASHBOARDS: Mapping[str, tuple[str, Sequence[Row]]] = {
    "overview": ("Sensorium: overview", overview.ROWS),
    "pipeline": ("Sensorium: pipeline", pipeline.ROWS),
    "bundles": ("Sensorium: bundles and parity", bundles.ROWS),
}


def _chosen(name: str, query: str) -> dashboard.QueryVariable:
    return (
        dashboard.QueryVariable(name)
        .datasource(DATASOURCE)
        .query(query)
        .refresh(model.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(model.VariableSort.ALPHABETICAL_ASC)
        .multi(True)
        .include_all(True)
        .all_value(".*")
        .current(model.VariableOption(selected=True, text=["All"], value=["$__all"]))
    )


def grafana_dashboard(name: str) -> str:
    """Return a dashboard's JSON as it is committed."""
    title, rows = DASHBOARDS[name]
    built = (
        dashboard.Dashboard(title)
        .uid(f"sensorium-{name}")
        .tags(["sensorium"])
        .readonly()
        .refresh("30s")
        .time("now-1h", "now")
        .tooltip(model.DashboardCursorSync.CROSSHAIR)
        .link(
            dashboard.DashboardLink("Sensorium")
            .type(model.DashboardLinkType.DASHBOARDS)
            .tags(["sensorium"])
            .as_dropdown(True)
            .keep_time(True)
        )
        .with_variable(dashboard.DatasourceVariable("datasource").type("prometheus"))
        .with_variable(_chosen("namespace", 'label_values(up{job="sensorium"}, namespace)'))
    )
    used = " ".join(query.expression for row in rows for one in row.panels for query in one.queries)
    for variable, metric in (
        ("task", "task:sensorium_requests:rate5m"),
        ("stage", "sensorium_rejected_total"),
    ):
        if f"${variable}" in used:
            query = f'label_values({metric}{{job="sensorium"}}, {variable})'
            built = built.with_variable(_chosen(variable, query))
    for row in rows:
        built = built.with_row(dashboard.Row(row.title))
        for one in row.panels:
            built = built.with_panel(grafana_panel(one))
    plain = json.loads(json.dumps(built.build(), cls=JSONEncoder))
    return json.dumps(plain, indent=2, sort_keys=True) + "\n"


def main() -> None:
    """Write every dashboard."""
    for name in DASHBOARDS:
        (FOLDER / f"{name}.json").write_text(grafana_dashboard(name))


if __name__ == "__main__":
    main()
