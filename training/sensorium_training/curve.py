"""The learning curve: what the journal tells, as a picture."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes

mpl.use("Agg")

from matplotlib import pyplot as plt

Report = dict[str, float | str]
_STAGES = {
    "vision": ("shape", "color", "size", "texture"),
    "language": ("answer_loss", "caption_loss", "retrieval_loss"),
}


def draw(reports: Sequence[Report], path: Path) -> None:
    """Draw one panel a stage: accuracies of the dense labels, then the losses of each task."""
    figure, panels = plt.subplots(1, len(_STAGES), figsize=(11, 3.8), layout="constrained")
    for axes, (stage, names) in zip(panels, _STAGES.items(), strict=True):
        of_stage = [report for report in reports if report["stage"] == stage]
        for name in names:
            _line(axes, of_stage, name)
        axes.set(
            title=stage, xlabel="core-minutes", ylabel="loss" if stage == "language" else "accuracy"
        )
        axes.grid(alpha=0.3)
        axes.legend()
    panels[1].set_yscale("log")
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _line(axes: Axes, reports: Sequence[Report], name: str) -> None:
    points = [(float(r["core_minutes"]), float(r[name])) for r in reports if name in r]
    if points:
        axes.plot(*zip(*points, strict=True), label=name.replace("_", " "))
