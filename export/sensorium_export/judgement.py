"""Judge the outputs of stages and tasks against PyTorch's, each output by what it means.

Texts must be equal. A score or a time may differ by an absolute tolerance, an embedding by one in
every element and in its direction, a picture by some levels in every channel, any other array by
one relative to its scale. Labels are compared with the scores and times that belong to them: two
that are equally probable may stand in either order.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sensorium.contract import (
    EMBEDDING,
    END_S,
    EVENT_LABELS,
    EVENT_SCORES,
    IMAGE,
    SCORE,
    START_S,
)
from sensorium_export.agreement import Outputs, agreement_of
from sensorium_export.compare import Difference, difference, least_cosine
from sensorium_export.tolerance import Tolerance

SCORES = frozenset({SCORE.name, EVENT_SCORES.name})
TIMES = frozenset({START_S.name, END_S.name})


@dataclass(frozen=True, slots=True)
class Failure:
    """One output that is not PyTorch's: where, on which way, for which input, and how far off."""

    where: str
    way: str
    probe: str
    found: str

    def __str__(self) -> str:
        return f"{self.where} ({self.way}) for the input {self.probe!r}: {self.found}"


@dataclass(slots=True)
class Figures:
    """What was measured for one task or one stage, on one way.

    `different` counts PyTorch's different outputs: equality of one and the same proves little.
    `needed` is the share of inputs that must be equal, `agreement` what `agreement_of` says.
    """

    inputs: int = 0
    different: int = 0
    equal: int = 0
    max_score: float | None = None
    max_embedding: float | None = None
    min_cosine: float | None = None
    min_stage_cosine: float | None = None
    max_time: float | None = None
    max_level: float | None = None
    max_abs: float | None = None
    max_rel: float | None = None
    needed: float = 1.0
    agreement: dict[str, float] = field(default_factory=dict)
    failures: list[Failure] = field(default_factory=list)

    @property
    def has_passed(self) -> bool:
        """Whether enough inputs gave PyTorch's output."""
        return self.equal >= self.needed * self.inputs > 0


@dataclass(frozen=True, slots=True)
class Judge:
    """Compares outputs on one way and sums up; `where` and `way` name them in messages."""

    where: str
    way: str
    tolerance: Tolerance
    figures: Figures = field(default_factory=Figures)

    def judge(self, probe: str, expected: Outputs, actual: Outputs | Exception | None) -> None:
        """Compare all outputs for one input."""
        self.figures.inputs += 1
        if isinstance(actual, Exception) or actual is None:
            found = f"no output: {actual}"
            self.figures.failures.append(Failure(self.where, self.way, probe, found))
            return
        wanted, given = _by_label(expected), _by_label(actual)
        problems = {
            name: problem
            for name, array in wanted.items()
            if (problem := self._problem(name, array, given.get(name)) or _disorder(name, actual))
        }
        self.figures.equal += not problems
        self.figures.failures += [
            Failure(_place(self.where, name), self.way, probe, problem)
            for name, problem in problems.items()
        ]

    def _problem(self, name: str, expected: NDArray[Any], actual: NDArray[Any] | None) -> str:
        if actual is None:
            return "missing"
        if name == IMAGE.name:
            return self._picture_problem(expected, actual)
        if expected.dtype == object:
            return _text_problem(expected, actual)
        found = difference(name, expected, np.asarray(actual), self.tolerance.stage)
        if found.reason:
            return found.reason
        if name == EMBEDDING.name:
            return self._embedding_problem(expected, actual, found.max_abs)
        return self._number_problem(name, expected, actual, found)

    def _number_problem(
        self, name: str, expected: NDArray[Any], actual: NDArray[Any], found: Difference
    ) -> str:
        if expected.dtype.kind == "i":
            return (
                "" if found.is_within else f"|Δ| {found.max_abs:.0f}, whole numbers must be equal"
            )
        if name in SCORES:
            self._note_most("max_score", found.max_abs)
            return _over("|Δ|", found.max_abs, self.tolerance.score)
        if name in TIMES:
            self._note_most("max_time", found.max_abs)
            return _over("|Δ| in seconds", found.max_abs, self.tolerance.time_s)
        self._note_most("max_abs", found.max_abs)
        self._note_most("max_rel", found.max_rel)
        if self.tolerance.stage_cosine is not None:
            cosine = least_cosine(expected, actual)
            self._note_least("min_stage_cosine", cosine)
            return _under("cosine", cosine, self.tolerance.stage_cosine)
        return _over("|Δ| relative to the largest value", found.max_rel, found.tolerance)

    def _embedding_problem(
        self, expected: NDArray[Any], actual: NDArray[Any], max_abs: float
    ) -> str:
        self._note_most("max_embedding", max_abs)
        cosine = least_cosine(expected, actual)
        self._note_least("min_cosine", cosine)
        too_far = _over("|Δ|", max_abs, self.tolerance.embedding)
        return _under("cosine", cosine, self.tolerance.cosine) or too_far

    def _picture_problem(self, expected: NDArray[Any], actual: NDArray[Any]) -> str:
        wanted, found = _pixels(expected), _pixels(actual)
        if wanted.shape != found.shape:
            return f"shape {list(found.shape)}, expected {list(wanted.shape)}"
        levels = float(np.abs(wanted - found).max())
        self._note_most("max_level", levels)
        return _over("|Δ| in levels", levels, self.tolerance.level)

    def _note_most(self, figure: str, value: float) -> None:
        known = getattr(self.figures, figure)
        setattr(self.figures, figure, value if known is None else max(known, value))

    def _note_least(self, figure: str, value: float) -> None:
        known = getattr(self.figures, figure)
        setattr(self.figures, figure, value if known is None else min(known, value))


def judged(
    judge: Judge,
    probes: Sequence[str],
    expected: Sequence[Outputs],
    actual: Sequence[Outputs | Exception | None],
) -> Figures:
    """Compare the outputs for many inputs."""
    for probe, wanted, found in zip(probes, expected, actual, strict=True):
        judge.judge(probe, wanted, found)
    judge.figures.needed = judge.tolerance.agreement
    judge.figures.agreement = agreement_of(expected, actual)
    judge.figures.different = len({_fingerprint(outputs) for outputs in expected})
    return judge.figures


def _fingerprint(outputs: Outputs) -> tuple[bytes, ...]:
    """Return what tells two outputs apart, scores left out."""
    return tuple(
        repr(array.tolist()).encode() if array.dtype == object else array.tobytes()
        for name, array in outputs.items()
        if name not in SCORES
    )


def _by_label(outputs: Outputs) -> Outputs:
    """Return labelled outputs in the order of labels and times, without the empty labels."""
    if EVENT_LABELS.name not in outputs:
        return outputs
    labels = _texts(outputs[EVENT_LABELS.name])
    starts = outputs.get(START_S.name, np.zeros((1, len(labels)))).ravel().tolist()
    order = sorted(
        (column for column, label in enumerate(labels) if label),
        key=lambda column: (labels[column], starts[column]),
    )
    return {name: array[:, order] for name, array in outputs.items()}


def _disorder(name: str, actual: Outputs) -> str:
    """Tell whether scores do not fall, or starts do not rise, as they are sorted."""
    if name == START_S.name and EVENT_LABELS.name in actual:
        named = np.array([bool(label) for label in _texts(actual[EVENT_LABELS.name])], bool)
        return "" if (np.diff(actual[name][:, named]) >= 0).all() else "not sorted"
    if name == EVENT_SCORES.name and START_S.name not in actual:
        return "" if (np.diff(actual[name]) <= 0).all() else "not sorted, best first"
    return ""


def _pixels(pictures: NDArray[Any]) -> NDArray[np.int64]:
    """Return the levels of pictures given as files."""
    opened = [Image.open(io.BytesIO(data)) for data in pictures.ravel()]
    return np.array([np.asarray(picture) for picture in opened], np.int64)


def _place(where: str, output: str) -> str:
    return where if where.endswith(f"/{output}") else f"{where}/{output}"


def _text_problem(expected: NDArray[Any], actual: NDArray[Any]) -> str:
    wanted, found = _texts(expected), _texts(actual)
    return "" if wanted == found else f"{found}, PyTorch says {wanted}"


def _texts(array: NDArray[Any]) -> list[str]:
    return [one.decode() if isinstance(one, bytes) else str(one) for one in array.ravel()]


def _over(figure: str, value: float, limit: float) -> str:
    return "" if value <= limit else f"{figure} {value:.3g}, at most {limit:.3g} allowed"


def _under(figure: str, value: float, limit: float) -> str:
    return "" if value >= limit else f"{figure} {value:.6f}, at least {limit} wanted"
