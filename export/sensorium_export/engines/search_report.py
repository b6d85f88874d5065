"""What a search of engines found: as a table, and as bars."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sensorium.errors import ConfigurationError
from sensorium.plot import figure_for, saved
from sensorium_export.engines.search import BATCHES, LEAST_GAIN, Candidate, StageSearch

if TYPE_CHECKING:
    from rich.table import Table

HEADER = (
    "stage",
    "engine",
    *(f"speed, batch {size}" for size in BATCHES),
    "start",
    "cosine",
    "alike",
    "",
)
_COLORS = {"chosen": "#2a7f3f", "right": "#9cc3e6", "wrong": "#d9a0a0"}
_BAR, _WIDTH_IN, _LINE_IN, _TITLE_IN = 0.7, 7.0, 0.24, 0.9
_PERCENT = 100


def rows(found: Sequence[StageSearch]) -> list[tuple[str, ...]]:
    """Return a row for each candidate, under `HEADER`; factors are of the exported graph's."""
    return [_row(search.stage, one) for search in found for one in search.candidates]


def table_from(found: Sequence[StageSearch]) -> "Table":
    """Return the rows as a table for the terminal."""
    from rich.table import Table  # noqa: PLC0415 - only who prints pays for it

    table = Table(title="Speed and start as a factor of the exported graph's")
    for name in HEADER:
        table.add_column(name)
    for row in rows(found):
        table.add_row(*row)
    return table


def plot_search(found: Sequence[StageSearch], path: str | os.PathLike[str]) -> Path:
    """Draw the speed of every candidate, stage by stage.

    Raises:
        ConfigurationError: matplotlib is not installed, or nothing was measured.
        InvalidInputError: The file cannot be written or its format is unknown.
    """
    measured = [(s.stage, one) for s in found for one in s.candidates if not one.problem]
    if not measured:
        raise ConfigurationError("no engine was measured: there is nothing to draw.")
    figure = figure_for("the search", _WIDTH_IN, _TITLE_IN + _LINE_IN * len(measured))
    axes = figure.subplots()
    places = range(len(measured))
    axes.barh(
        list(places),
        [one.gain for _, one in measured],
        _BAR,
        color=[_COLORS[_outcome(one)] for _, one in measured],
    )
    axes.axvline(1.0, color="0.25", linewidth=0.8)
    axes.set_yticks(list(places), [f"{stage}: {one.name}" for stage, one in measured], fontsize=7)
    axes.invert_yaxis()
    axes.set_xlabel("times as fast as exported; green is served, red answers otherwise")
    return saved(figure, path, bbox_inches="tight")


def markdown(found: Sequence[StageSearch]) -> str:
    """Return the rows as a table in Markdown."""
    lines = [HEADER, ("---",) * len(HEADER), *rows(found)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def verdict(candidate: Candidate) -> str:
    """Return what became of a candidate, in words."""
    if candidate.problem:
        return candidate.problem
    if candidate.is_chosen:
        return "served"
    if candidate.parity is None:
        return "slower than another, or too little faster"
    if not candidate.parity.passed:
        return "its outputs differ too much"
    task, share = min(candidate.shares.items(), key=lambda one: one[1])
    return f"{task}: only {share * _PERCENT:.0f} % answered alike"


def _row(stage: str, one: Candidate) -> tuple[str, ...]:
    if one.problem:
        return (stage, one.name, *[""] * (len(HEADER) - 3), verdict(one))
    return (
        stage,
        one.name,
        *(f"{one.speed[size]:.2f} ×" for size in BATCHES),
        f"{one.start:.2f} ×",
        "" if one.parity is None else f"{one.parity.cosine:.6f}",
        f"{min(one.shares.values()) * _PERCENT:.0f} %" if one.shares else "",
        verdict(one),
    )


def _outcome(candidate: Candidate) -> str:
    if candidate.is_chosen:
        return "chosen"
    failed = candidate.parity is not None and candidate.gain >= 1 / LEAST_GAIN
    return "wrong" if failed else "right"
