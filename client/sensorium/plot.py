"""Timelines of events as pictures; needs the extra `plot`, which brings matplotlib."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sensorium.errors import ConfigurationError, InvalidInputError
from sensorium.results import Event

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure

_WIDTH_IN, _ROW_IN, _FRAME_IN = 8.0, 0.32, 1.1
_COLORS = "YlGnBu"


def plot_events(
    events: Iterable[Event], path: str | os.PathLike[str], *, title: str | None = None
) -> Path:
    """Draw one row for each label and a bar for each event, darker the larger its score.

    Args:
        events: As `Client.detect_events` returns them.
        path: Where to write; its suffix chooses the format: .png, .svg, .pdf and others.
        title: Stands above the picture.

    Returns:
        The path that was written.

    Raises:
        ConfigurationError: matplotlib is not installed.
        InvalidInputError: the file cannot be written or its format is unknown.
    """
    rows = _rows(events)
    figure = figure_for("a timeline", _WIDTH_IN, _FRAME_IN + _ROW_IN * max(1, len(rows)))
    from matplotlib import colormaps  # noqa: PLC0415 - heavy and optional
    from matplotlib.cm import ScalarMappable  # noqa: PLC0415

    axes = figure.subplots()
    colors = colormaps[_COLORS]
    _draw_rows(axes, rows, colors)
    axes.set_title(title or "")
    figure.colorbar(ScalarMappable(cmap=colors), ax=axes, label="score", pad=0.02)
    return saved(figure, path, dpi=150, bbox_inches="tight")


def figure_for(what: str, width_in: float, height_in: float) -> "Figure":
    """Return an empty figure of a size in inches for `what`, which an error then names.

    Raises:
        ConfigurationError: matplotlib is not installed.
    """
    try:
        from matplotlib import figure  # noqa: PLC0415 - heavy and optional
    except ImportError as error:
        raise ConfigurationError(
            f"drawing {what} needs matplotlib, which is not installed. "
            "Install it with: pip install 'sensorium[plot]'"
        ) from error
    return figure.Figure(figsize=(width_in, height_in))


def saved(figure: "Figure", path: str | os.PathLike[str], **options: Any) -> Path:  # noqa: ANN401 - matplotlib's
    """Write a figure, with options of `Figure.savefig`, and return where.

    Raises:
        InvalidInputError: The file cannot be written or its format is unknown.
    """
    target = Path(path)
    try:
        figure.savefig(target, **options)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InvalidInputError(f"cannot write {str(target)!r}: {reason}.") from error
    return target


def _rows(events: Iterable[Event]) -> dict[str, list[Event]]:
    """Group the events by label, in the order of each label's first start."""
    rows: dict[str, list[Event]] = {}
    for event in sorted(events, key=lambda event: (event.start_s, event.label)):
        rows.setdefault(event.label, []).append(event)
    return rows


def _draw_rows(axes: "Axes", rows: dict[str, list[Event]], colors: "Colormap") -> None:
    for row, events in enumerate(rows.values()):
        axes.broken_barh(
            [(event.start_s, event.end_s - event.start_s) for event in events],
            (row - 0.4, 0.8),
            facecolors=[colors(event.score) for event in events],
            edgecolors="0.3",
            linewidth=0.5,
        )
    if not rows:
        axes.text(0.5, 0.5, "no events", transform=axes.transAxes, ha="center", va="center")
    axes.set_yticks(range(len(rows)), list(rows))
    axes.set_ylim(max(1, len(rows)) - 0.5, -0.5)
    axes.set_xlim(left=0)
    axes.set_xlabel("time in s")
    axes.grid(axis="x", color="0.9")
    axes.set_axisbelow(True)
