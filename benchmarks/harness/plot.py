"""Results as a picture: throughput beside its baselines, and latency by concurrency."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, StrMethodFormatter

from harness.rounds import ALL_CORES, RAW, RAW_WITH_PREPROCESSING

_COLUMNS = 5
_BLUE, _GREY = "#1f6feb", "#57606a"
_LINES = {RAW: "-", RAW_WITH_PREPROCESSING: "--", ALL_CORES: ":"}
_WORDS = {
    RAW: "raw graphs, same threads",
    RAW_WITH_PREPROCESSING: "raw + preprocessing, same threads",
    ALL_CORES: "raw + preprocessing, all cores",
}


def plot(results: Mapping[str, Any], path: Path) -> None:
    """Draw a run as a PNG: throughput over latency for each task, a few tasks side by side."""
    tasks = [
        (f"{bundle['name']}\n{name}", task)
        for bundle in results["bundles"]
        for name, task in bundle["tasks"].items()
    ]
    columns = min(_COLUMNS, len(tasks))
    bands = math.ceil(len(tasks) / columns)
    figure = Figure(figsize=(3.4 * columns + 0.6, 6.0 * bands + 0.4), layout="constrained")
    axes = figure.subplots(2 * bands, columns, squeeze=False)
    for number, (title, task) in enumerate(tasks):
        band, column = divmod(number, columns)
        above, below = axes[2 * band : 2 * band + 2, column]
        above.set_title(title, fontsize=10)
        _throughput(above, task)
        _latency(below, task)
        if column == 0:
            above.set_ylabel("requests per second")
            below.set_ylabel("latency, ms")
    for unused in axes[-2:, (len(tasks) - 1) % columns + 1 :].ravel():
        unused.set_visible(False)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    more, names = axes[1, 0].get_legend_handles_labels()
    figure.legend(
        handles + more,
        labels + names,
        loc="outside lower center",
        ncols=min(4, columns + 1),
        frameon=False,
        fontsize=9,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)


def _throughput(axes: Axes, task: Mapping[str, Any]) -> None:
    places = range(len(task["served"]))
    rates = [served["rate"] for served in task["served"].values()]
    middle = [rate["median"] for rate in rates]
    errors = [
        [rate["median"] - rate["min"] for rate in rates],
        [rate["max"] - rate["median"] for rate in rates],
    ]
    axes.bar(places, middle, yerr=errors, color=_BLUE, width=0.65, label="served from bytes")
    for name, style in _LINES.items():
        axes.axhline(task[name]["median"], color=_GREY, linestyle=style, label=_WORDS[name])
    _by_concurrency(axes, task)


def _latency(axes: Axes, task: Mapping[str, Any]) -> None:
    for name, alpha in (("p50", 1.0), ("p95", 0.6), ("p99", 0.3)):
        values = [served["latency_ms"][name] for served in task["served"].values()]
        axes.plot(range(len(values)), values, "o-", color=_BLUE, alpha=alpha, label=name)
    axes.axhline(task["in_process_ms"]["p50"], color=_GREY, linestyle="-.", label="in process, p50")
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.minorticks_off()
    axes.set_ylim(bottom=task["in_process_ms"]["p50"] / 2)
    axes.set_xlabel("requests under way")
    _by_concurrency(axes, task)


def _by_concurrency(axes: Axes, task: Mapping[str, Any]) -> None:
    axes.set_xticks(range(len(task["served"])), list(task["served"]))
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", alpha=0.25)
