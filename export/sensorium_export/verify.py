"""Hold the served answers against PyTorch's, from raw bytes, and each stage on its own as well."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from sensorium import Client
from sensorium.contract import TASKS, DType
from sensorium.errors import SensoriumError
from sensorium_export.agreement import Outputs
from sensorium_export.engines.serving import engine_precisions
from sensorium_export.judgement import Figures, Judge, judged
from sensorium_export.manifest import check_origin, precision_in
from sensorium_export.parity_card import STAGE_WAYS, TASK_WAYS, Card, failure_lines
from sensorium_export.probes import Probe, probes, questions_of
from sensorium_export.recipe import Recipe
from sensorium_export.reference import Reference, ReferenceRun, StageRun
from sensorium_export.repository_check import check_repository
from sensorium_export.served import answers_from
from sensorium_export.serving_chain import ServingChain
from sensorium_export.source import open_source
from sensorium_export.tolerance import Tolerances
from sensorium_server import settings as server_settings
from sensorium_server.gate import Verdict, write_verdict
from sensorium_server.launch import Server
from sensorium_server.manifest import check as check_digests
from sensorium_server.settings import Settings
from sensorium_server.stages import Tensors

ITEMS_A_REQUEST = 8
RAGGED_BATCH = 7
_DTYPES = {DType.BYTES: np.object_, DType.FP32: np.float32, DType.INT64: np.int64}
CONCURRENCY = 16

Advance = Callable[[str], None]
Found = list[Outputs | Exception]


@dataclass(frozen=True, slots=True)
class Options:
    """What to verify and with how much.

    `grpc` and `http` are addresses of a running server; without them one is started on the
    repository. `pictures` is a folder of real pictures to use as well. `bundle` is the name that
    the checkpoint was exported by, if it got one. With `engines` the server that is asked serves
    the bundle's compiled engines, the tolerances are those of their precisions, and the card that
    the gate of bundles reads stays as it is.
    """

    checkpoint: Path
    repository: Path
    count: int = 200
    seed: int = 0
    pictures: Path | None = None
    grpc: str | None = None
    http: str | None = None
    bundle: str = ""
    engines: bool = False


@dataclass(frozen=True, slots=True)
class _Trial:
    """The inputs, what PyTorch made of them, and what differences are allowed."""

    inputs: Sequence[Probe]
    runs: Sequence[ReferenceRun]
    tolerances: Tolerances

    def stage_figures(self, chain: ServingChain, stage: str) -> dict[str, Figures]:
        """Run a stage on PyTorch's inputs, alone and together with those of other probes."""
        named = [
            (probe.name, run)
            for probe, reference in zip(self.inputs, self.runs, strict=True)
            for run in reference.stages
            if run.stage == stage
        ]
        names, runs = [name for name, _ in named], [run for _, run in named]
        expected = [run.outputs for run in runs]
        figures = {}
        for way, size in zip(STAGE_WAYS, (1, RAGGED_BATCH), strict=True):
            judge = Judge(stage, way, self.tolerances.of_stage(stage))
            figures[way] = judged(judge, names, expected, _stage_outputs(chain, runs, size))
        return figures

    def task_figures(self, task: str, way: str, found: Found) -> Figures:
        """Hold a task's answers against PyTorch's."""
        expected = [run.tasks[task] for run in self.runs]
        names = [probe.name for probe in self.inputs]
        return judged(Judge(task, way, self.tolerances.of_tasks), names, expected, found)


def verify(options: Options, advance: Advance = lambda _done: None) -> Card:
    """Run every input through PyTorch, the stages in this process, gRPC and HTTP; compare all.

    Args:
        options: What to verify.
        advance: Told what comes next, for a progress line.

    Raises:
        ConfigurationError: The checkpoint or the repository is broken, or the server cannot start.
    """
    free = server_settings.FREE_PORTS
    settings = server_settings.load({"repository": options.repository, **free})
    source = open_source(options.checkpoint, options.bundle)
    recipe = source.recipe
    check_repository(options.repository, recipe)
    check_digests(options.repository)
    check_origin(options.repository, recipe.name, source.path)
    precision = precision_in(options.repository, recipe.name)
    if options.engines:
        precision |= engine_precisions(options.repository, recipe.name)
    tolerances = _tolerances(recipe, precision)
    questions = [""]
    if recipe.text is not None and "text_preprocess" in recipe.stages:
        questions = questions_of(
            source.path,
            options.count,
            recipe.text.max_tokens,
            settings.max_text_chars,
            source.tokenizer_path,
        )
    media = {spec.name for task in recipe.tasks for spec in TASKS[task].inputs}
    inputs = probes(options.count, questions, options.pictures, options.seed, media)
    advance(f"PyTorch on {len(inputs)} inputs")
    reference = Reference(source)
    runs = [reference.run(probe) for probe in inputs]
    trial = _Trial(inputs, runs, tolerances)
    tasks: dict[str, dict[str, Figures]] = {task: {} for task in recipe.tasks}
    with ServingChain(options.repository, settings, recipe.bundle) as chain:
        advance("every stage in this process")
        stages = {stage: trial.stage_figures(chain, stage) for stage in recipe.stages}
        advance("every task in this process")
        for task, figures in tasks.items():
            for way, size in zip(TASK_WAYS[:2], (1, ITEMS_A_REQUEST), strict=True):
                figures[way] = trial.task_figures(task, way, _in_process(chain, task, inputs, size))
    with _addresses(options, settings, advance) as addresses:
        for way, address, concurrency in zip(
            TASK_WAYS[2:], addresses, (CONCURRENCY, 1), strict=True
        ):
            with Client(address, bundle=recipe.bundle) as client:
                for task, figures in tasks.items():
                    advance(f"{task} over {way}")
                    found = answers_from(client, task, inputs, concurrency)
                    figures[way] = trial.task_figures(task, way, found)
    card = Card(recipe.name, tolerances, tasks, stages)
    if not options.engines:
        verdict = Verdict(card.has_passed, len(inputs), failure_lines(card))
        write_verdict(options.repository, recipe.name, verdict)
    return card


def _tolerances(recipe: Recipe, precision: Mapping[str, str]) -> Tolerances:
    lowered = {stage: recipe.drift[one] for stage, one in precision.items()}
    return Tolerances(recipe.tolerance, lowered)


@contextmanager
def _addresses(options: Options, settings: Settings, advance: Advance) -> Iterator[tuple[str, str]]:
    """Give the addresses of the server to ask; start one when none is running."""
    if options.grpc and options.http:
        yield options.grpc, options.http
        return
    advance("starting Triton")
    with TemporaryDirectory() as cache:
        if options.engines:
            settings = settings.model_copy(update={"engines": cache})
        with Server(settings, log=lambda _line: None) as server:
            yield server.endpoints.grpc, server.endpoints.http


def _stage_outputs(chain: ServingChain, runs: Sequence[StageRun], size: int) -> Found:
    outputs: Found = []
    for start in range(0, len(runs), size):
        batch = runs[start : start + size]
        try:
            outputs += chain.stage(batch[0].stage, [run.inputs for run in batch])
        except SensoriumError as error:
            outputs += [error] * len(batch)
    return outputs


def _in_process(chain: ServingChain, task: str, inputs: Sequence[Probe], size: int) -> Found:
    """Run a task with so many inputs in each request, and take the answers apart."""
    outputs: Found = []
    for start in range(0, len(inputs), size):
        batch = inputs[start : start + size]
        try:
            answer = chain.task(task, request_of(task, batch))
        except SensoriumError as error:
            outputs += [error] * len(batch)
            continue
        for row in range(len(batch)):
            outputs.append({name: array[row : row + 1] for name, array in answer.items()})
    return outputs


def request_of(task: str, batch: Sequence[Probe]) -> Tensors:
    """Return the request that holds all these probes, one a row."""
    given = [probe.given(task) for probe in batch]
    return {
        spec.name: np.array([[one[spec.name]] for one in given], _DTYPES[spec.dtype])
        for spec in TASKS[task].inputs
    }
