"""Cost against missed requests for each way, and its replicas over time."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

_COLOURS = {
    "queue seconds": "#cf222e",
    "queue seconds, slow down": "#f2994a",
    "request seconds": "#1f6feb",
    "request seconds, slow down": "#0a3069",
    "pending count": "#8250df",
    "CPU": "#1a7f37",
    "fixed": "#57606a",
}
_LEAST_PERCENT = 0.01
_HOUR_S = 3600.0


def draw(results: Mapping[str, Any], path: Path) -> None:
    """Draw a run as a PNG: a column for each shape of traffic."""
    shapes = results["shapes"]
    figure = Figure(figsize=(4.6 * len(shapes), 7.4), layout="constrained")
    axes = figure.subplots(2, len(shapes), squeeze=False)
    for column, (name, shape) in enumerate(shapes.items()):
        title = f"{name}, {shape['requests']:,} requests\n{shape['service']['name']}"
        axes[0, column].set_title(title, fontsize=9)
        _cost(axes[0, column], shape["runs"])
        _replicas(axes[1, column], shape)
    axes[0, 0].set_ylabel(f"missed, % (least {_LEAST_PERCENT})")
    axes[1, 0].set_ylabel("replicas")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    more, names = axes[1, 0].get_legend_handles_labels()
    figure.legend(
        [*handles, *more[:1]],
        [*labels, *names[:1]],
        loc="outside lower center",
        ncols=4,
        frameon=False,
        fontsize=9,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def _cost(axes: Axes, runs: list[dict[str, Any]]) -> None:
    for way, colour in _COLOURS.items():
        mine = [run for run in runs if run["way"] == way]
        hours = [run["replica_hours"] for run in mine]
        missed = [max(100 * run["missed"], _LEAST_PERCENT) for run in mine]
        axes.plot(hours, missed, "o-", color=colour, label=way, markersize=4, linewidth=1.2)
        for run, x, y in zip(mine, hours, missed, strict=True):
            axes.annotate(
                f"{run['target']:g}", (x, y), fontsize=6.5, color=colour,
                xytext=(3, 3), textcoords="offset points",
            )  # fmt: skip
    axes.set_yscale("log")
    axes.set_xlabel("replica-hours")
    _quiet(axes)


def _replicas(axes: Axes, shape: Mapping[str, Any]) -> None:
    hours = [at_s / _HOUR_S for at_s in shape["demand"]["at_s"]]
    axes.fill_between(
        hours, shape["demand"]["replicas"], color="#d0d7de", label="demand, in replicas"
    )
    for run in shape["runs"]:
        if "trace" in run:
            at = [at_s / _HOUR_S for at_s in run["trace"]["at_s"]]
            colour = _COLOURS[run["way"]]
            axes.step(at, run["trace"]["replicas"], color=colour, where="post", linewidth=1.1)
    axes.set_xlabel("hours")
    axes.set_ylim(bottom=0)
    _quiet(axes)


def _quiet(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
