"""Whether an engine computes what its reference does, in every corner of every profile."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import nn

from sensorium_export.compare import FloatOrInt, difference, least_cosine
from sensorium_export.engines import Runner
from sensorium_export.engines.profile import CORNERS, corner_cases
from sensorium_export.graphs import Graph
from sensorium_export.recipe import Recipe
from sensorium_export.runners import run_module
from sensorium_export.seeded_inputs import Array, Case
from sensorium_export.tolerance import Tolerance
from sensorium_server.engine_record import EngineParity, Ranges

_SHOWN = 3
_TIMED_RUNS = 10


@dataclass(frozen=True, slots=True)
class Expectation:
    """Inputs, and what the reference made of them."""

    case: Case
    outputs: Mapping[str, Array]


def expectations(
    graph: Graph, model: nn.Module, recipe: Recipe, profiles: tuple[Ranges, ...]
) -> tuple[Expectation, ...]:
    """Run PyTorch in fp32 on the corners of all profiles."""
    module = graph.module_in(model)
    return tuple(
        Expectation(case, run_module(module, graph.method, graph.signature, case.inputs))
        for case in corner_cases(graph.signature, recipe, profiles)
    )


def engine_parity(
    expected: Sequence[Expectation], run: Runner, tolerance: Tolerance, reference: str = "pytorch"
) -> EngineParity:
    """Run an engine on the same inputs, and judge every output of every case."""
    cosines, differences, failures = [1.0], [0.0], []
    for one in expected:
        found = run(one.case.inputs)
        for name, array in one.outputs.items():
            judged = _judged(name, array, found.get(name), tolerance)
            cosines.append(judged.cosine)
            differences.append(judged.max_rel)
            if judged.failure:
                failures.append(f"{one.case.name}, {judged.failure}")
    return EngineParity(
        passed=not failures,
        reference=reference,
        cases=len(expected),
        cosine=round(min(cosines), 7),
        max_rel=float(f"{min(max(differences), _LARGEST):.2e}"),
        failures=tuple(failures[:_SHOWN]),
    )


def seconds_for(expected: Sequence[Expectation], runs: Sequence[Runner]) -> list[float]:
    """Return how long each of some engines takes for the usual batch: the least of several runs.

    They take turns, so that what else the machine does is the same for all.
    """
    usual = [one.case for one in expected if one.case.name.endswith(CORNERS[1])][-1]
    least = [float("inf")] * len(runs)
    for _ in range(_TIMED_RUNS):
        for index, run in enumerate(runs):
            start = time.perf_counter()
            run(usual.inputs)
            least[index] = min(least[index], time.perf_counter() - start)
    return least


_LARGEST = 1e30
"""What stands for an infinite difference, which JSON does not have."""


@dataclass(frozen=True, slots=True)
class _Judged:
    cosine: float
    max_rel: float
    failure: str


def _judged(
    name: str, expected: FloatOrInt, actual: FloatOrInt | None, tolerance: Tolerance
) -> _Judged:
    found = difference(name, expected, actual, tolerance.stage)
    if found.reason or actual is None:
        return _Judged(0.0, found.max_rel, str(found))
    if expected.dtype.kind == "i" or not expected.size:
        return _Judged(1.0, found.max_rel, "" if found.is_within else str(found))
    cosine = least_cosine(expected, actual)
    if tolerance.stage_cosine is not None and cosine < tolerance.stage_cosine:
        return _Judged(
            cosine,
            found.max_rel,
            f"{name}: cosine {cosine:.6f}, of at least {tolerance.stage_cosine:g}",
        )
    return _Judged(cosine, found.max_rel, "" if found.is_within else str(found))
