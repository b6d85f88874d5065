"""The stages of tasks as boxes, their tensors as arrows; needs the extra `plot` (matplotlib)."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sensorium.contract import bare_name
from sensorium.errors import ConfigurationError
from sensorium.plot import figure_for, saved
from sensorium_export.inspect_repository import Bundle, Stage, Task, Tensor

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLUMNS = 3
_BOX_WIDTH, _BOX_HEIGHT, _LINE, _LANE, _TITLE, _ARROW = 2.7, 0.42, 0.19, 0.3, 0.5, 0.25
_SIZE, _INK = 7.5, "0.25"
_COLORS: Mapping[str, str] = {
    "python": "#e8f1d9",
    "onnxruntime": "#d7e8f7",
    "decoder": "#f7e0d7",
    "diffusion": "#efdcf5",
}
_ENDS, _WAITING = "#eeeeee", "after"

Edges = dict[tuple[int, int], list[Tensor]]
"""The tensors between two boxes: 0 is the request, the last one the response."""


def plot_tasks(bundles: Sequence[Bundle], path: str | os.PathLike[str]) -> Path:
    """Draw a column of boxes for each task.

    Args:
        bundles: As `inspected` returns them.
        path: Where to write; its suffix chooses the format: .png, .svg, .pdf and others.

    Raises:
        ConfigurationError: matplotlib is not installed, or there is no task to draw.
        InvalidInputError: The file cannot be written or its format is unknown.
    """
    tasks = [(task, bundle.stages) for bundle in bundles for task in bundle.tasks]
    if not tasks:
        raise ConfigurationError("there is no task to draw.")
    columns = min(_COLUMNS, len(tasks))
    sizes = [_extent(edges_of(*one), len(one[0].steps) + 2) for one in tasks]
    width = max(size[0] for size in sizes)
    heights = [
        max(size[1] for size in sizes[first : first + columns])
        for first in range(0, len(sizes), columns)
    ]
    figure = figure_for("a pipeline", columns * width, sum(heights) + _TITLE * len(heights))
    grid = figure.add_gridspec(len(heights), columns, height_ratios=heights)
    for number, (task, stages) in enumerate(tasks):
        row, column = divmod(number, columns)
        axes = figure.add_subplot(grid[row, column])
        _draw(axes, task, stages)
        axes.set_xlim(-0.1, width)
        axes.set_ylim(-heights[row], 0.1)
        axes.set_aspect("equal", anchor="NW")
        axes.axis("off")
        axes.set_title(task.model, fontsize=10, fontweight="bold", loc="left")
    figure.tight_layout()
    return saved(figure, path, dpi=120)


def edges_of(task: Task, stages: Mapping[str, Stage]) -> Edges:
    """Return which tensors go from which box to which, by the names of the task."""
    edges: Edges = {}
    made = {tensor.name: (0, tensor) for tensor in task.inputs}

    def use(name: str, at: int) -> None:
        if name in made:
            source, tensor = made[name]
            edges.setdefault((source, at), []).append(tensor)

    for at, step in enumerate(task.steps, 1):
        for own, name in step.inputs.items():
            if own != _WAITING:
                use(name, at)
        stage = stages.get(step.model)
        for tensor in stage.outputs if stage else ():
            there = step.outputs.get(tensor.name)
            if there is not None:
                made[there] = (at, Tensor(there, tensor.dtype, tensor.dims))
    for tensor in task.outputs:
        use(tensor.name, len(task.steps) + 1)
    return edges


def _lanes(edges: Edges) -> list[int]:
    """Return the boxes whose tensors pass others by, in lanes on the right: the last innermost."""
    return sorted({start for start, end in edges if end > start + 1}, reverse=True)


def _arriving(edges: Edges, at: int) -> list[tuple[int, Tensor]]:
    """Return what is written above a box: each tensor and its origin, the nearest first."""
    sources = sorted((start for start, end in edges if end == at), reverse=True)
    return [(start, tensor) for start in sources for tensor in edges[start, at]]


def _tops(edges: Edges, boxes: int) -> list[float]:
    """Return where each box begins: above it is room for what arrives."""
    tops = [0.0]
    for at in range(1, boxes):
        gap = _LINE * max(2, len(_arriving(edges, at)) + 1)
        tops.append(tops[-1] - _BOX_HEIGHT - gap)
    return tops


def _extent(edges: Edges, boxes: int) -> tuple[float, float]:
    width = _BOX_WIDTH + _LANE * (len(_lanes(edges)) + 1)
    return width, -_tops(edges, boxes)[-1] + _BOX_HEIGHT + 0.1


def _draw(axes: "Axes", task: Task, stages: Mapping[str, Stage]) -> None:
    edges = edges_of(task, stages)
    names = ["request", *(bare_name(step.model) for step in task.steps), "response"]
    backends = ["", *(_backend(stages.get(step.model)) for step in task.steps), ""]
    tops = _tops(edges, len(names))
    lanes = {start: lane for lane, start in enumerate(_lanes(edges), 1)}
    for at, top in enumerate(tops):
        _draw_box(axes, names[at], backends[at], top)
        if at:
            _draw_arrow(axes, tops[at - 1] - _BOX_HEIGHT, top, is_waiting=(at - 1, at) not in edges)
        for line, (start, tensor) in enumerate(reversed(_arriving(edges, at)), 1):
            color = _INK if start == at - 1 else _color(lanes[start])
            y = top + _LINE * line - 0.03
            axes.text(_ARROW + 0.1, y, str(tensor), va="center", fontsize=_SIZE, color=color)
    for start, lane in lanes.items():
        ends = [tops[end] for one, end in edges if one == start < end - 1]
        _draw_lane(axes, lane, tops[start], ends)


def _backend(stage: Stage | None) -> str:
    return stage.backend if stage else "missing"


def _draw_box(axes: "Axes", name: str, backend: str, top: float) -> None:
    from matplotlib.patches import FancyBboxPatch  # noqa: PLC0415

    axes.add_patch(
        FancyBboxPatch(
            (0.04, top - _BOX_HEIGHT + 0.04),
            _BOX_WIDTH - 0.08,
            _BOX_HEIGHT - 0.08,
            boxstyle="round,pad=0.04",
            facecolor=_COLORS.get(backend, _ENDS),
            edgecolor="0.35",
            linewidth=0.8,
        )
    )
    label = f"{name} · {backend}" if backend else name
    axes.text(_BOX_WIDTH / 2, top - _BOX_HEIGHT / 2, label, ha="center", va="center", fontsize=8)


def _draw_arrow(axes: "Axes", start: float, end: float, *, is_waiting: bool) -> None:
    """Draw the way to the next box; dotted where that takes nothing from it and only waits."""
    style = ":" if is_waiting else "-"
    arrow = {"arrowstyle": "->", "color": _INK, "shrinkA": 0, "shrinkB": 0, "linestyle": style}
    axes.annotate("", xy=(_ARROW, end), xytext=(_ARROW, start), arrowprops=arrow)


def _draw_lane(axes: "Axes", lane: int, start: float, ends: Sequence[float]) -> None:
    """Draw the way of a box's tensors past others, with an arrow into each that takes some."""
    x, color = _BOX_WIDTH + _LANE * lane, _color(lane)
    leave, shift = start - _BOX_HEIGHT * 0.75, _BOX_HEIGHT * min(0.12 * lane, 0.6)
    last = min(ends) - shift
    axes.plot([_BOX_WIDTH, x, x], [leave, leave, last], color=color, linewidth=0.9)
    arrow = {"arrowstyle": "->", "color": color, "shrinkA": 0, "shrinkB": 0}
    for end in ends:
        y = end - shift
        axes.annotate("", xy=(_BOX_WIDTH, y), xytext=(x, y), arrowprops=arrow)


def _color(lane: int) -> str:
    return f"C{lane - 1}"
