"""A dashboard as a picture, laid out as Grafana lays it out."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch
from matplotlib.ticker import Formatter, FuncFormatter, PercentFormatter
from numpy.typing import NDArray

from sensorium.plot import saved
from series import Series, Shown, Window

_COLUMN_IN, _LINE_IN, _GAP_IN, _ROW_IN = 0.56, 0.36, 0.1, 0.32
_GRID_COLUMNS = 24
_LEFT_IN, _RIGHT_IN, _TITLE_IN, _BOTTOM_IN, _LEGEND_IN = 0.62, 0.14, 0.4, 0.3, 0.17
_COLORS = (
    *("#3274d9", "#e0752d", "#2f9e6e", "#b877d9", "#c4162a", "#0a9fb5", "#8f6a2a", "#eab839"),
    *("#6e6e6e", "#f2789f", "#7eb26d", "#1f3a93", "#ff9f7a", "#5b2a86", "#00695c", "#9ac8ff"),
    *("#7a1f3d", "#c0ca33", "#a1887f", "#455a64"),
)
_GOOD, _BAD, _INK, _GREY, _FRAME = "#2f9e6e", "#c4162a", "#24292f", "#6b7280", "#dfe3e8"
_LETTER_IN, _HANDLE_IN, _MAX_LEGEND = 0.066, 0.42, 8
_PREFIXES = ("", "k", "M", "G", "T")
_HIDDEN = {"__name__", "job", "namespace"}
_MAX_TABLE_ROWS = 9


def draw(title: str, shown: Sequence[Shown], window: Window, path: Path) -> Path:
    """Draw a dashboard.

    Args:
        title: Written above it.
        shown: Its panels, rows' headings among them, in Grafana's JSON with their series.
        window: The time that was looked at.
        path: Where to write; its suffix chooses the format.

    Raises:
        InvalidInputError: The file cannot be written or its format is unknown.
    """
    places = [panel["gridPos"] for panel, _ in shown]
    lines = max(place["y"] + place["h"] for place in places)
    width, height = _GRID_COLUMNS * _COLUMN_IN + _GAP_IN, lines * _LINE_IN + _ROW_IN + 0.2
    figure = Figure(figsize=(width, height), facecolor="#f6f7f9")
    figure.text(
        *_at(figure, _GAP_IN + 0.02, height - 0.3), title, fontsize=14, weight="bold", color=_INK
    )
    for panel, series in shown:
        place = panel["gridPos"]
        left = place["x"] * _COLUMN_IN + _GAP_IN
        bottom = height - _ROW_IN - 0.1 - (place["y"] + place["h"]) * _LINE_IN
        if panel["type"] == "row":
            at = _at(figure, left + 0.02, bottom + 0.06)
            figure.text(*at, panel["title"], fontsize=11, color=_GREY, weight="bold")
            continue
        box = (
            left,
            bottom,
            place["w"] * _COLUMN_IN - _GAP_IN,
            place["h"] * _LINE_IN - _GAP_IN,
        )
        _draw_panel(figure, panel, series, box, window)
    return saved(figure, path, dpi=110)


Box = tuple[float, float, float, float]
"""Left, bottom, width and height, in inches."""


def _at(figure: Figure, left: float, bottom: float) -> tuple[float, float]:
    width, height = figure.get_size_inches()
    return left / width, bottom / height


def _draw_panel(
    figure: Figure,
    panel: Mapping[str, Any],
    series: Sequence[Series],
    box: Box,
    window: Window,
) -> None:
    left, bottom, width, height = box
    x, y = _at(figure, left, bottom)
    w, h = _at(figure, width, height)
    figure.add_artist(
        FancyBboxPatch(
            (x, y),
            w,
            h,
            boxstyle="round,pad=0,rounding_size=0.003",
            facecolor="white",
            edgecolor=_FRAME,
            linewidth=0.8,
            zorder=-1,
        )
    )
    at = _at(figure, left + 0.12, bottom + height - 0.25)
    figure.text(*at, panel["title"], fontsize=9.5, weight="bold", color=_INK)
    if panel["type"] == "table":
        series = _still_there(series, window)
    if not series:
        at = _at(figure, left + width / 2, bottom + height / 2)
        figure.text(*at, "no data", ha="center", color=_GREY, fontsize=10)
    elif panel["type"] == "stat":
        _draw_stat(figure, panel, series, box)
    elif panel["type"] == "table":
        _draw_table(figure, series, box)
    else:
        _draw_lines(figure, panel, series, box, window)


def _limit(panel: Mapping[str, Any]) -> tuple[float | None, bool]:
    """Return a panel's limit, and whether what lies below it is wrong."""
    steps = panel["fieldConfig"]["defaults"].get("thresholds", {}).get("steps", [])
    limit = next((step["value"] for step in steps if step["value"] is not None), None)
    return limit, bool(steps) and steps[0]["color"] == "red"


def _unit(panel: Mapping[str, Any]) -> str:
    return str(panel["fieldConfig"]["defaults"].get("unit", "short"))


def _words(panel: Mapping[str, Any]) -> dict[str, str]:
    """Return what is shown in place of numbers."""
    return {
        value: result["text"]
        for mapping in panel["fieldConfig"]["defaults"].get("mappings", [])
        for value, result in mapping["options"].items()
    }


def written(value: float, unit: str) -> str:
    """Write a value with its unit, as short as it can be read."""
    if unit == "percentunit":
        return f"{value * 100:.3g} %"
    if unit == "s":
        return f"{value:.3g} s" if value >= 1 else f"{value * 1000:.3g} ms"
    if unit in {"bytes", "Bps"}:
        power = min(int(math.log(max(value, 1), 1000)), len(_PREFIXES) - 1)
        suffix = "B/s" if unit == "Bps" else "B"
        return f"{value / 1000**power:.3g} {_PREFIXES[power]}{suffix}"
    suffix = {"reqps": " /s", "ops": " /s"}.get(unit, "")
    return f"{value:,.0f}{suffix}" if value >= 1000 else f"{value:.3g}{suffix}"  # noqa: PLR2004


def _formatter(unit: str) -> Formatter:
    if unit == "percentunit":
        return PercentFormatter(1.0)
    return FuncFormatter(lambda value, _: written(value, unit))


def _draw_stat(
    figure: Figure,
    panel: Mapping[str, Any],
    series: Sequence[Series],
    box: Box,
) -> None:
    left, bottom, width, height = box
    limit, is_floor = _limit(panel)
    names = len({one.name for one in series}) > 1 or "{{" in panel["targets"][0]["legendFormat"]
    newest = max(one.times_s[-1] for one in series)
    shown = [one for one in series if one.times_s[-1] == newest][:2]
    words = _words(panel)
    for number, one in enumerate(shown):
        middle = left + width * (number + 0.5) / len(shown)
        color = _INK
        if limit is not None:
            color = _BAD if (one.last < limit) == is_floor else _GOOD
        text = words.get(str(int(one.last))) or written(one.last, _unit(panel))
        at = _at(figure, middle, bottom + height * 0.42)
        figure.text(*at, text, ha="center", va="center", fontsize=19, color=color, weight="bold")
        if names:
            at = _at(figure, middle, bottom + 0.13)
            figure.text(*at, one.name, ha="center", fontsize=8.5, color=_GREY)


def _still_there(series: Sequence[Series], window: Window) -> list[Series]:
    """Return those that have not ended before the window has: Grafana's tables show no others."""
    return [one for one in series if one.times_s[-1] > window.end_s - 2 * window.step_s]


def _draw_table(figure: Figure, series: Sequence[Series], box: Box) -> None:
    left, bottom, width, height = box
    columns = sorted({name for one in series for name in one.labels} - _HIDDEN)
    rows = sorted({tuple(one.labels.get(name, "") for name in columns) for one in series})
    shown = [tuple(columns), *rows[:_MAX_TABLE_ROWS]]
    top = bottom + height - _TITLE_IN - 0.05
    for line, row in enumerate(shown):
        for column, text in enumerate(row):
            at = _at(figure, left + 0.14 + column * (width - 0.2) / len(columns), top - line * 0.21)
            weight = "bold" if line == 0 else "normal"
            color = _GREY if line == 0 else _BAD if text in {"critical", "firing"} else _INK
            figure.text(*at, text, va="top", fontsize=8.5, color=color, weight=weight)


def _draw_lines(
    figure: Figure,
    panel: Mapping[str, Any],
    series: Sequence[Series],
    box: Box,
    window: Window,
) -> None:
    left, bottom, width, height = box
    ranked = sorted(series, key=lambda one: -max(one.values))
    named = {_label(one, _unit(panel)): one.name for one in ranked[:_MAX_LEGEND]}
    widest = max(len(label) for label in named) * _LETTER_IN + _HANDLE_IN
    columns = max(1, int((width - _RIGHT_IN) / widest))
    legend_in = _LEGEND_IN * math.ceil(len(named) / columns) + 0.08
    x, y = _at(figure, left + _LEFT_IN, bottom + _BOTTOM_IN + legend_in)
    w, h = _at(
        figure,
        width - _LEFT_IN - _RIGHT_IN,
        height - _TITLE_IN - _BOTTOM_IN - legend_in,
    )
    axes = figure.add_axes((x, y, w, h))
    colors = {
        one.name: _COLORS[number % len(_COLORS)]
        for number, one in enumerate(sorted(series, key=lambda one: one.name))
    }
    if _is_stacked(panel):
        _stack(axes, ranked, colors)
    else:
        for one in series:
            axes.plot(_dates(one.times_s), list(one.values), color=colors[one.name], linewidth=1.4)
    start, end = _dates([window.start_s, window.end_s])
    axes.set_xlim(start, end)
    _frame(axes, panel, max(max(one.values) for one in series))
    handles = [
        axes.plot([], [], color=colors[name], linewidth=3, label=label)[0]
        for label, name in named.items()
    ]
    figure.legend(
        handles=handles,
        loc="lower left",
        bbox_to_anchor=_at(figure, left + 0.08, bottom + 0.02),
        ncols=columns,
        fontsize=7.5,
        frameon=False,
        handlelength=1.0,
        columnspacing=1.2,
        labelspacing=0.25,
        borderaxespad=0.1,
    )


def _label(one: Series, unit: str) -> str:
    return f"{one.name}  {written(one.last, unit)}"


def _is_stacked(panel: Mapping[str, Any]) -> bool:
    custom = panel["fieldConfig"]["defaults"].get("custom", {})
    return bool(custom.get("stacking", {}).get("mode") == "normal")


def _stack(axes: Axes, series: Sequence[Series], colors: Mapping[str, str]) -> None:
    times = sorted({time for one in series for time in one.times_s})
    values = []
    for one in series:
        known = dict(zip(one.times_s, one.values, strict=True))
        values.append([known.get(time, 0.0) for time in times])
    dates = _dates(times)
    axes.stackplot(dates, values, colors=[colors[one.name] for one in series], alpha=0.75)


def _dates(times_s: Sequence[float]) -> NDArray[np.datetime64]:
    return (np.asarray(times_s) * 1000).astype("datetime64[ms]")


def _frame(axes: Axes, panel: Mapping[str, Any], highest: float) -> None:
    limit, _ = _limit(panel)
    if limit is not None and highest > limit / 20:
        axes.axhline(limit, color=_BAD, linewidth=1, linestyle=(0, (4, 3)))
    axes.set_ylim(bottom=0, top=axes.get_ylim()[1] * 1.03 if highest else 1)
    axes.yaxis.set_major_formatter(_formatter(_unit(panel)))
    locator = AutoDateLocator(minticks=3, maxticks=7)  # type: ignore[no-untyped-call]
    axes.xaxis.set_major_locator(locator)
    formatter = ConciseDateFormatter(locator, show_offset=False)  # type: ignore[no-untyped-call]
    axes.xaxis.set_major_formatter(formatter)
    axes.tick_params(labelsize=7.5, colors=_GREY, length=2)
    axes.grid(visible=True, color="#eceff2", linewidth=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(_FRAME)
