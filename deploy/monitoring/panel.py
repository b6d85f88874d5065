"""What a panel shows, and the same as Grafana's JSON."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from grafana_foundation_sdk.builders import common, dashboard, prometheus, stat, table, timeseries
from grafana_foundation_sdk.models import common as option
from grafana_foundation_sdk.models import dashboard as model
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

from query import Query

DATASOURCE = model.DataSourceRef(type_val="prometheus", uid="${datasource}")
_HEIGHT = {"stat": 4, "leader": 8, "table": 8, "lines": 8, "stack": 8}
_DIMENSIONLESS = "short"

Kind = Literal["lines", "stack", "stat", "leader", "table"]
"""Lines, stacked areas, the newest number of each series, of those that are there now, a table."""


@dataclass(frozen=True, slots=True)
class Panel:
    """One picture of a dashboard.

    `unit` is Grafana's word for it, `width` counts columns of a grid of 24, `height` its lines.
    From `limit` on (or, if `is_floor`, below it) something is wrong: it is drawn as a line, or
    colours the number. `words` are shown in place of numbers.
    """

    title: str
    description: str
    queries: Sequence[Query]
    unit: str = _DIMENSIONLESS
    kind: Kind = "lines"
    width: int = 12
    limit: float | None = None
    is_floor: bool = False
    height: int | None = None
    words: Mapping[int, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Row:
    """Panels under one heading."""

    title: str
    panels: Sequence[Panel]


AnyPanel = timeseries.Panel | stat.Panel | table.Panel


def grafana_panel(panel: Panel) -> AnyPanel:
    """Return Grafana's builder of a panel."""
    built = _BUILDERS[panel.kind](panel)
    built.title(panel.title).description(panel.description).unit(panel.unit)
    built.datasource(DATASOURCE).span(panel.width).height(panel.height or _HEIGHT[panel.kind])
    for number, query in enumerate(panel.queries):
        target = prometheus.Dataquery().expr(query.expression).legend_format(query.legend)
        target.ref_id(chr(ord("A") + number)).datasource(DATASOURCE)
        if panel.kind in {"table", "leader"}:
            target.instant()
        else:
            target.range()
        if panel.kind == "table":
            target.format(PromQueryFormat.TABLE)
        built.with_target(target)
    return built


def _lines(panel: Panel) -> timeseries.Panel:
    made = (
        timeseries.Panel()
        .line_width(1.5)
        .fill_opacity(8)
        .show_points(option.VisibilityMode.NEVER)
        .axis_soft_min(0)
        .legend(
            common.VizLegendOptions()
            .show_legend(True)
            .display_mode(option.LegendDisplayMode.TABLE)
            .placement(option.LegendPlacement.RIGHT)
            .calcs(["mean", "max"])
        )
        .tooltip(
            common.VizTooltipOptions()
            .mode(option.TooltipDisplayMode.MULTI)
            .sort(option.SortOrder.DESCENDING)
        )
    )
    if panel.limit is not None:
        made = made.thresholds(_thresholds(panel)).thresholds_style(
            common.GraphThresholdsStyleConfig().mode(option.GraphThresholdsStyleMode.DASHED)
        )
    return made


def _stack(panel: Panel) -> timeseries.Panel:
    stacking = common.StackingConfig().mode(option.StackingMode.NORMAL)
    return _lines(panel).stacking(stacking).fill_opacity(40)


def _stat(panel: Panel) -> stat.Panel:
    made = (
        stat.Panel()
        .graph_mode(option.BigValueGraphMode.AREA)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
    )
    if panel.limit is not None:
        made = made.thresholds(_thresholds(panel)).color_mode(option.BigValueColorMode.VALUE)
    if panel.words:
        results = {
            str(value): model.ValueMappingResult(text=word) for value, word in panel.words.items()
        }
        made = made.mappings([model.ValueMap(options=results)])
    return made


def _leader(panel: Panel) -> stat.Panel:
    return _stat(panel).text_mode(option.BigValueTextMode.VALUE_AND_NAME)


def _table(panel: Panel) -> table.Panel:
    hidden = [model.DynamicConfigValue(id_val="custom.hidden", value=True)]
    made = table.Panel()
    for column in ("Time", "__name__", "job", "namespace"):
        made = made.override_by_name(column, hidden)
    if panel.limit is not None:
        made = made.thresholds(_thresholds(panel))
    return made


_BUILDERS: Mapping[Kind, Callable[[Panel], AnyPanel]] = {
    "lines": _lines,
    "stack": _stack,
    "stat": _stat,
    "leader": _leader,
    "table": _table,
}


def _thresholds(panel: Panel) -> dashboard.ThresholdsConfig:
    below, above = ("red", "green") if panel.is_floor else ("green", "red")
    return (
        dashboard.ThresholdsConfig()
        .mode(model.ThresholdsMode.ABSOLUTE)
        .steps(
            [
                model.Threshold(color=below, value=None),
                model.Threshold(color=above, value=panel.limit),
            ]
        )
    )
