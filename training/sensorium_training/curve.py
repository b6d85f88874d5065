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
    "hearing": ("activity_loss", "onset_loss", "duration_s"),
    "watching": ("action_loss", "span_s", "ends_px"),
    "everything": ("image_loss", "audio_loss", "video_loss", "joint_loss", "retrieval_loss"),
    "drawing": ("picture_loss",),
}
_COLUMNS = 3


def draw(reports: Sequence[Report], path: Path) -> None:
    """Draw one panel a stage: accuracies of vision's labels, the losses of all others."""
    rows = -(-len(_STAGES) // _COLUMNS)
    figure, panels = plt.subplots(rows, _COLUMNS, figsize=(12, 3.4 * rows), layout="constrained")
    for axes, (stage, names) in zip(panels.flat, _STAGES.items(), strict=True):
        of_stage = [report for report in reports if report["stage"] == stage]
        for name in names:
            _line(axes, of_stage, name)
        axes.set(
            title=stage, xlabel="core-minutes", ylabel="accuracy" if stage == "vision" else "loss"
        )
        axes.grid(alpha=0.3)
        if axes.has_data():
            axes.legend()
        if stage != "vision":
            axes.set_yscale("log")
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _line(axes: Axes, reports: Sequence[Report], name: str) -> None:
    points = [(float(r["core_minutes"]), float(r[name])) for r in reports if name in r]
    if points:
        axes.plot(*zip(*points, strict=True), label=name.replace("_", " "))
