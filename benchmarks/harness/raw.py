"""The graphs of a task by plain ONNX Runtime: what serving is compared with.

The wiring is read from the ensemble's `config.pbtxt`, the graphs are the files that Triton serves
with the same session options, and the preprocessing is the server's own function. With a batch
of one and from file bytes, this is the served chain without Triton.
"""

import importlib.util
import itertools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from harness import window
from harness.inputs import Inputs
from harness.job import RawJob, serve
from harness.repository import config_of
from sensorium import contract
from sensorium_server.decoder_backend import decoder_from, outputs_from
from sensorium_server.decoding import Decoder
from sensorium_server.diffusion_backend import sampler_from
from sensorium_server.onnx_session import OnnxGraph
from sensorium_server.settings import load
from sensorium_server.stages import StageConfig, StageFactory
from sensorium_server.stages.text import load_tokenizer

Tensors = Mapping[str, NDArray[Any]]
Run = Callable[[Tensors, Sequence[str]], Tensors]
"""Inputs and the names of the wanted outputs, to outputs."""

_PREPROCESSING = "_preprocess"
"""How the stages end that come before the graphs."""


class RawTask:
    """A task's stages in one process, on whole batches, one after the other."""

    def __init__(self, repository: Path, task: str, threads: int, batch: int) -> None:
        self._config = config_of(repository, task)
        self._steps = self._config.ensemble_scheduling.step
        self._runs = {
            step.model_name: _opened(repository, step.model_name, threads, batch)
            for step in self._steps
        }
        self.spent_s = dict.fromkeys(self._runs, 0.0)
        """The time spent in each stage until now."""

    def preprocess(self, inputs: Tensors) -> Tensors:
        """Return what the graphs start from."""
        return self._walk(inputs, preprocessing=True)

    def infer(self, prepared: Tensors) -> Tensors:
        """Return the task's outputs."""
        tensors = self._walk(prepared, preprocessing=False)
        return {output.name: tensors[output.name] for output in self._config.output}

    def _walk(self, tensors: Tensors, *, preprocessing: bool) -> Tensors:
        for step in self._steps:
            if step.model_name.endswith(_PREPROCESSING) is preprocessing:
                # An input that only orders the steps of the ensemble may not be there yet.
                given = {name: tensors[of] for name, of in step.input_map.items() if of in tensors}
                begin = time.perf_counter()
                made = self._runs[step.model_name](given, list(step.output_map))
                self.spent_s[step.model_name] += time.perf_counter() - begin
                tensors = {**tensors, **{of: made[name] for name, of in step.output_map.items()}}
        return tensors


def _opened(repository: Path, model: str, threads: int, batch: int) -> Run:
    config = config_of(repository, model)
    parameters = {key: value.string_value for key, value in config.parameters.items()}
    parameters |= {"slots": str(batch), "intra_op_thread_count": str(threads)}
    stage = StageConfig(model, repository / model / "1", parameters)
    return _OPENERS[config.backend](stage)


def _python(stage: StageConfig) -> Run:
    run = _factory(stage.directory / "model.py")(stage, load())
    return lambda tensors, _: run(tensors)


def _factory(path: Path) -> StageFactory:
    """Return the stage that Triton runs: what the repository's `model.py` names."""
    spec = importlib.util.spec_from_file_location(path.parents[1].name, path)
    if spec is None or spec.loader is None:
        raise FileNotFoundError(path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    factory: StageFactory = module.TritonPythonModel.factory
    return factory


def _graph(stage: StageConfig) -> Run:
    threads = stage.integer("intra_op_thread_count", 1)
    graph = OnnxGraph(stage.directory / "model.onnx", threads=threads)
    return lambda tensors, wanted: graph.run(list(wanted), dict(tensors))


def _decoder(stage: StageConfig) -> Run:
    decoder: Decoder[Any] = decoder_from(stage)
    tokenizer = load_tokenizer(stage.directory / stage.text("tokenizer", "tokenizer.json"))

    def run(tensors: Tensors, wanted: Sequence[str]) -> Tensors:
        memory = tensors[contract.DECODER_MEMORY.name]
        mask = tensors[contract.DECODER_MEMORY_MASK.name]
        decoder.join(range(len(memory)), list(memory), list(mask))
        ended = []
        while decoder.running:
            ended += decoder.step()
        outputs = outputs_from(sorted(ended, key=lambda one: one.key), tokenizer)
        return {name: outputs[name] for name in wanted}

    return run


def _diffusion(stage: StageConfig) -> Run:
    sampler = sampler_from(stage)
    return lambda tensors, _: sampler(tensors)


_OPENERS: Mapping[str, Callable[[StageConfig], Run]] = {
    "python": _python,
    "onnxruntime": _graph,
    "decoder": _decoder,
    "diffusion": _diffusion,
}
"""By the backend that a model's config names."""


def measure(values: dict[str, Any], ready: Callable[[], None]) -> dict[str, Any]:
    """Run batches for a while; return items per second and the time of each batch."""
    job = RawJob(**values)
    task = RawTask(Path(job.repository), job.task, job.threads, job.batch)
    batches = Inputs.load(job.task, Path(job.inputs)).batches(job.batch)
    if job.with_preprocessing:
        rounds: Iterator[Tensors] = itertools.cycle(batches)
        call: Callable[[Tensors], Tensors] = lambda one: task.infer(task.preprocess(one))  # noqa: E731
    else:
        rounds = itertools.cycle([task.preprocess(one) for one in batches])
        call = task.infer
    _repeat(call, rounds, job.warm_s, 1)
    ready()
    before = dict(task.spent_s)
    begins, ends = _repeat(call, rounds, job.seconds, job.least_calls)
    limits = (begins[0], ends[-1])
    return {
        "rate": job.batch * window.rate(begins, ends, limits),
        "latencies_ms": window.latencies_ms(begins, ends, limits),
        "stages_ms": {
            name: 1e3 * (spent - before[name]) / len(ends) for name, spent in task.spent_s.items()
        },
    }


def _repeat(
    call: Callable[[Tensors], Tensors], rounds: Iterator[Tensors], seconds: float, least_calls: int
) -> tuple[list[float], list[float]]:
    begins: list[float] = []
    ends: list[float] = []
    while not ends or ends[-1] - begins[0] < seconds or len(ends) < least_calls:
        inputs = next(rounds)
        begins.append(time.perf_counter())
        call(inputs)
        ends.append(time.perf_counter())
    return begins, ends


if __name__ == "__main__":
    serve(measure)
