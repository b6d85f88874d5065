"""What an engine is judged and timed on, from raw bytes: inputs of its stage, and task answers.

The reference is the repository as it was exported and proven, run in this process; or PyTorch, when
the checkpoint is there.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sensorium.contract import TASKS
from sensorium_export.judgement import Judge, judged
from sensorium_export.probes import Probe, probes, questions_of
from sensorium_export.reference import Reference, ReferenceRun, StageRun
from sensorium_export.serving_chain import ServingChain
from sensorium_export.source import Source
from sensorium_export.tolerance import FP32, PRECISIONS, Tolerance, tolerance_of
from sensorium_export.verify import request_of
from sensorium_server.settings import Settings
from sensorium_server.stages import Tensors


@dataclass(frozen=True, slots=True)
class Evidence:
    """Inputs, what the reference made of them, and what an engine of each precision may differ.

    `reference` is `pytorch` or `onnx`.
    """

    reference: str
    inputs: Sequence[Probe]
    runs: Sequence[ReferenceRun]
    tolerances: Mapping[str, Tolerance]

    def of_stage(self, stage: str) -> tuple[StageRun, ...]:
        """Return what a stage was given and gave, each once."""
        return tuple(one for run in self.runs for one in run.stages if one.stage == stage)

    def tasks_with(self, chain: ServingChain, stage: str) -> tuple[str, ...]:
        """Return the tasks that a stage is part of."""
        return tuple(task for task in self.runs[0].tasks if stage in chain.stages_of(task))

    def share_alike(self, chain: ServingChain, task: str, precision: str) -> float:
        """Return the share of inputs that a task answers like the reference."""
        expected = [run.tasks[task] for run in self.runs]
        found: list[Tensors | Exception | None] = []
        for probe in self.inputs:
            try:
                found.append(chain.task(task, request_of(task, [probe])))
            except Exception as error:  # noqa: BLE001 - an engine may fail in any way
                found.append(error)
        names = [probe.name for probe in self.inputs]
        figures = judged(Judge(task, "engine", self.tolerances[precision]), names, expected, found)
        return figures.equal / max(figures.inputs, 1)


class _Recorder(ServingChain):
    """A chain that remembers what its stages were given."""

    seen: list[StageRun]

    def stage(self, name: str, requests: Sequence[Tensors]) -> list[Tensors]:
        """Run one stage, and remember it."""
        made = super().stage(name, requests)
        self.seen += [
            StageRun(name, given, found) for given, found in zip(requests, made, strict=True)
        ]
        return made


def evidence_from(
    repository: Path, bundle: str, settings: Settings, count: int, source: Source | None = None
) -> Evidence:
    """Run probes through the reference.

    Args:
        repository: The published models.
        bundle: The name that its models share; empty for plain names.
        settings: The server's, for limits.
        count: How many inputs to draw.
        source: The checkpoint; without it what was exported is the reference.
    """
    with _Recorder(repository, settings, bundle) as chain:
        media = {spec.name for task in chain.tasks for spec in TASKS[task].inputs}
        questions = _questions(chain, settings, count)
        inputs = probes(count, questions, None, 0, media)
        if source is not None:
            reference = Reference(source)
            runs = [reference.run(probe) for probe in inputs]
            tolerances = {FP32: source.recipe.tolerance, **source.recipe.drift}
            return Evidence("pytorch", inputs, runs, tolerances)
        return Evidence(
            "onnx",
            inputs,
            [_run_of(chain, probe) for probe in inputs],
            {precision: tolerance_of(precision, {}, "") for precision in PRECISIONS},
        )


def _run_of(chain: _Recorder, probe: Probe) -> ReferenceRun:
    chain.seen = []
    tasks = {task: chain.task(task, request_of(task, [probe])) for task in chain.tasks}
    distinct: dict[tuple[Any, ...], StageRun] = {}
    for run in chain.seen:
        print_of = tuple((name, array.tobytes()) for name, array in run.inputs.items())
        distinct.setdefault((run.stage, hash(print_of)), run)
    return ReferenceRun(tuple(distinct.values()), tasks)


def _questions(chain: ServingChain, settings: Settings, count: int) -> list[str]:
    """Return texts for the bundle's tokenizer; one empty one when it reads none."""
    if "text_preprocess" not in chain.stages:
        return [""]
    config = chain.stage_config("text_preprocess")
    most = config.integer("max_tokens")
    return questions_of(config.directory, count, most, settings.max_text_chars)
