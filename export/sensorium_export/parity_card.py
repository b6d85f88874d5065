"""The parity card: the measured proof that the served answer equals PyTorch's."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.table import Table

from sensorium_export.judgement import Failure, Figures
from sensorium_export.tolerance import Tolerance, Tolerances

TASK_WAYS = ("ONNX", "ONNX by 8", "gRPC", "HTTP")
"""The ways to an answer that are held against PyTorch's; `by 8` has eight inputs a request."""

STAGE_WAYS = ("alone", "in a ragged batch")
"""How each stage is run: every input by itself, and together with others of other lengths."""

Cells = tuple[str, ...]

_SHOWN_FAILURES = 12
_QUANTITIES = (
    ("max_abs", "stage", ""),
    ("max_score", "score", ""),
    ("max_embedding", "embedding", ""),
    ("max_time", "time_s", " s"),
    ("max_level", "level", " levels"),
)
"""Figures that are the larger the worse, what limits each, and its unit."""

_COSINES = (("min_cosine", "cosine"), ("min_stage_cosine", "stage_cosine"))
NONE = "·"
"""What a cell shows that has no figure."""


@dataclass(frozen=True, slots=True)
class Card:
    """What a verification found; `tasks` and `stages` map a name to the figures of each way."""

    bundle: str
    tolerances: Tolerances
    tasks: Mapping[str, Mapping[str, Figures]]
    stages: Mapping[str, Mapping[str, Figures]]

    @property
    def has_passed(self) -> bool:
        """Whether everything was equal to PyTorch's, or enough of it where precision is lower."""
        return all(figures.has_passed for figures in self._all())

    @property
    def failures(self) -> list[Failure]:
        """What was not, stages first: they name the cause, tasks the consequence."""
        failed = (figures for figures in self._all() if not figures.has_passed)
        return [failure for figures in failed for failure in figures.failures]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {
            "bundle": self.bundle,
            "passed": self.has_passed,
            "tolerance": dataclasses.asdict(self.tolerances.of_tasks),
            "lowered": {
                stage: dataclasses.asdict(one) for stage, one in self.tolerances.lowered.items()
            },
            "tasks": _plain(self.tasks),
            "stages": _plain(self.stages),
        }

    def _all(self) -> Iterator[Figures]:
        for rows in (self.stages, self.tasks):
            for ways in rows.values():
                yield from ways.values()


def task_rows(card: Card) -> tuple[Cells, list[Cells]]:
    """Return the header and the cells of the table of tasks."""
    header = (
        *("task", "PyTorch", "different", *(f"= {way}" for way in TASK_WAYS)),
        *("|Δ|", "cosine", *_agreement_header(card), "tolerance", "verdict"),
    )
    rows = []
    for task, ways in card.tasks.items():
        figures = list(ways.values())
        rows.append(
            (
                task,
                str(max(one.inputs for one in figures)),
                str(max(one.different for one in figures)),
                *(str(ways[way].equal) if way in ways else NONE for way in TASK_WAYS),
                _differences(figures),
                _least_cosine(figures),
                *([_agreement(figures)] if _agreement_header(card) else []),
                _limits(figures, card.tolerances.of_tasks),
                _verdict(figures),
            )
        )
    return header, rows


def stage_rows(card: Card) -> tuple[Cells, list[Cells]]:
    """Return the header and the cells of the table of stages."""
    header = (
        *("stage", "PyTorch", "different", *(f"= {way}" for way in STAGE_WAYS)),
        *("|Δ|", "relative", "tolerance", "verdict"),
    )
    rows = []
    for stage, ways in card.stages.items():
        figures = list(ways.values())
        rows.append(
            (
                stage,
                str(max(one.inputs for one in figures)),
                str(max(one.different for one in figures)),
                *(str(ways[way].equal) for way in STAGE_WAYS),
                _differences(figures),
                _relative(figures),
                _limits(figures, card.tolerances.of_stage(stage)),
                _verdict(figures),
            )
        )
    return header, rows


def table_from(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """Draw a table for the terminal."""
    table = Table(title=title, title_justify="left")
    for number, name in enumerate(header):
        first = number == 0
        table.add_column(name, justify="left" if first else "right", no_wrap=first)
    for row in rows:
        style = "bold red" if row[-1] == "FAIL" else None
        table.add_row(*row, style=style)
    return table


def markdown_from(card: Card) -> str:
    """Write the card as Markdown, the same for the same figures."""
    tasks, stages = task_rows(card), stage_rows(card)
    verdict = "Every answer is PyTorch's." if card.has_passed else "Not every answer is PyTorch's."
    return "\n".join(
        (
            f"**{verdict}** Bundle `{card.bundle}`, from raw bytes to the served answer: how many",
            "inputs PyTorch answered, how many different answers it gave, for how many inputs the",
            "other ways answered alike, and how far apart the numbers are at most. `by 8`: eight",
            "inputs in each request; gRPC is asked sixteen at a time, HTTP one by one.",
            "",
            *_markdown_table(*tasks),
            "",
            "Each stage on PyTorch's own inputs, alone and in a batch of unequal lengths:",
            "",
            *_markdown_table(*stages),
            "",
        )
    )


def failure_lines(card: Card) -> list[str]:
    """Return the first failures as text, and how many more there are."""
    shown = [str(failure) for failure in card.failures[:_SHOWN_FAILURES]]
    more = len(card.failures) - len(shown)
    return [*shown, f"… and {more} more"] if more else shown


def _markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    yield _markdown_row(header)
    yield "|---" + "|---:" * (len(header) - 1) + "|"
    yield from (_markdown_row(row) for row in rows)


def _markdown_row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _plain(rows: Mapping[str, Mapping[str, Figures]]) -> dict[str, Any]:
    return {
        name: {way: dataclasses.asdict(figures) for way, figures in ways.items()}
        for name, ways in rows.items()
    }


def _differences(figures: Sequence[Figures]) -> str:
    """Return the largest difference of each quantity that was measured."""
    cells = [_most(figures, figure) + unit for figure, _, unit in _QUANTITIES]
    shown = [cell for cell in cells if not cell.startswith(NONE)]
    return ", ".join(shown) or NONE


def _limits(figures: Sequence[Figures], tolerance: Tolerance) -> str:
    """Return what was allowed of each quantity that was measured."""

    def is_measured(figure: str) -> bool:
        return any(getattr(one, figure) is not None for one in figures)

    quantities = _QUANTITIES if tolerance.stage_cosine is None else _QUANTITIES[1:]
    shown = [
        f"{getattr(tolerance, limit):g}{unit}"
        for figure, limit, unit in quantities
        if is_measured(figure)
    ]
    shown += [f"{getattr(tolerance, limit):g}" for figure, limit in _COSINES if is_measured(figure)]
    shown += [f"{tolerance.agreement:.0%} of inputs"] if tolerance.agreement < 1 else []
    return ", ".join(shown) or "equal"


def _most(figures: Sequence[Figures], name: str) -> str:
    values = [value for one in figures if (value := getattr(one, name)) is not None]
    return f"{max(values):.1e}" if values else NONE


def _relative(figures: Sequence[Figures]) -> str:
    """Return how far a stage is off relative to its largest value, and by the cosine if judged."""
    cosines = [one.min_stage_cosine for one in figures if one.min_stage_cosine is not None]
    cosine = f", cosine {min(cosines):.6f}" if cosines else ""
    return _most(figures, "max_rel") + cosine


def _least_cosine(figures: Sequence[Figures]) -> str:
    values = [one.min_cosine for one in figures if one.min_cosine is not None]
    return f"{min(values):.6f}" if values else NONE


def _agreement_header(card: Card) -> list[str]:
    """Return the column that a bundle has whose stages are not all in fp32."""
    return ["agreement"] if card.tolerances.lowered else []


def _agreement(figures: Sequence[Figures]) -> str:
    kinds = {kind for one in figures for kind in one.agreement}
    least = {kind: min(one.agreement.get(kind, 1.0) for one in figures) for kind in kinds}
    return ", ".join(f"{kind} {share:.1%}" for kind, share in sorted(least.items())) or NONE


def _verdict(figures: Sequence[Figures]) -> str:
    return "pass" if all(one.has_passed for one in figures) else "FAIL"
