"""A model repository run in this process: its configs, its ONNX files and the serving code.

It is what Triton runs, without Triton. Each stage can be run on inputs of one's own, several
requests together, which is how a verification finds the stage that is wrong.
"""

import importlib
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from numpy.typing import NDArray
from tritonclient.grpc.model_config_pb2 import ModelConfig

from sensorium.contract import (
    DECODER_MEMORY,
    DECODER_MEMORY_MASK,
    STAGES,
    TASKS,
    bare_name,
    model_name,
)
from sensorium_export.model_config import config_from_pbtxt
from sensorium_export.repository import CONFIG_FILE, STAGE_MODULES
from sensorium_server.decoder_backend import decoder_from, outputs_from
from sensorium_server.decoding_loop import DecodingLoop, Job, Text
from sensorium_server.diffusion_backend import sampler_from
from sensorium_server.onnxruntime_backend import OnnxModel, graph_from
from sensorium_server.settings import Settings
from sensorium_server.stages import StageConfig, Tensors
from sensorium_server.stages.text import load_tokenizer

Run = Callable[[Sequence[Tensors]], list[Tensors]]
"""Answers several requests together."""

MAX_WAITING_ROWS = 1024

Answer = TypeVar("Answer")


class ServingChain:
    """A bundle's stages and tasks; a context manager, because generation has threads."""

    def __init__(self, repository: Path, settings: Settings, bundle: str = "") -> None:
        self._configs = {
            name: config_from_pbtxt(path.read_text(encoding="utf-8"), f"{name}/{CONFIG_FILE}")
            for name in (*STAGES, *TASKS)
            if (path := repository / model_name(name, bundle) / CONFIG_FILE).is_file()
        }
        self._repository, self._bundle, self._settings = repository, bundle, settings
        self._decoding: DecodingLoop | None = None
        self._runs: dict[str, Run] = {}
        for name in STAGES.keys() & self._configs.keys():
            self._runs[name] = self._opened(self._configs[name], self.stage_config(name), settings)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._decoding is not None:
            self._decoding.stop()

    def stage(self, name: str, requests: Sequence[Tensors]) -> list[Tensors]:
        """Run one stage on several requests, batched together as the server would."""
        return self._runs[name](requests)

    def task(self, name: str, inputs: Tensors) -> dict[str, NDArray[Any]]:
        """Run a task as its ensemble is wired, on one request."""
        config = self._configs[name]
        tensors = dict(inputs)
        for step in config.ensemble_scheduling.step:
            given = {tensor: tensors[name] for tensor, name in step.input_map.items()}
            (made,) = self.stage(bare_name(step.model_name), [given])
            tensors |= {name: made[tensor] for tensor, name in step.output_map.items()}
        return {output.name: tensors[output.name] for output in config.output}

    @property
    def tasks(self) -> list[str]:
        """The bundle's tasks."""
        return [name for name in TASKS if name in self._configs]

    def stages_of(self, task: str) -> list[str]:
        """Return the stages that a task's ensemble runs."""
        steps = self._configs[task].ensemble_scheduling.step
        return [bare_name(step.model_name) for step in steps]

    @property
    def stages(self) -> list[str]:
        """The bundle's stages."""
        return list(self._runs)

    def stage_config(self, name: str) -> StageConfig:
        """Return what a stage is told when it is loaded."""
        config = self._configs[name]
        parameters = {key: value.string_value for key, value in config.parameters.items()}
        folder = self._repository / model_name(name, self._bundle) / "1"
        return StageConfig(name, folder, parameters)

    def opened(self, name: str, stage: StageConfig) -> Run:
        """Load a stage as another config says, without putting it into the chain."""
        return self._opened(self._configs[name], stage, self._settings)

    def substitute(self, name: str, stage: StageConfig | None = None) -> None:
        """Load a stage as another config says, and run it so from now on; None for its own."""
        self._runs[name] = self.opened(name, stage or self.stage_config(name))

    def _opened(self, config: ModelConfig, stage: StageConfig, settings: Settings) -> Run:
        if config.backend == "python":
            module = importlib.import_module(f"sensorium_server.stages.{STAGE_MODULES[stage.name]}")
            run = module.stage(stage, settings)
            return lambda requests: [run(request) for request in requests]
        if config.backend == "onnxruntime":
            return _graph_run(stage, [output.name for output in config.output])
        if config.backend == "diffusion":
            sampler = sampler_from(stage)
            return lambda requests: [sampler(request) for request in requests]
        self._decoding = DecodingLoop(decoder_from(stage), MAX_WAITING_ROWS)
        return _decoder_run(self._decoding, stage)


def _graph_run(stage: StageConfig, outputs: Sequence[str]) -> Run:
    model = OnnxModel(graph_from(stage), stage)

    def run(requests: Sequence[Tensors]) -> list[Tensors]:
        return [_or_raise(one) for one in model.answer(requests, [outputs] * len(requests))]

    return run


def _decoder_run(loop: DecodingLoop, stage: StageConfig) -> Run:
    tokenizer = load_tokenizer(stage.directory / stage.text("tokenizer", "tokenizer.json"))

    def begun(request: Tensors) -> Future[list[Text] | Exception]:
        future: Future[list[Text] | Exception] = Future()
        loop.submit(
            Job(
                request[DECODER_MEMORY.name],
                request[DECODER_MEMORY_MASK.name],
                future.set_result,
            )
        )
        return future

    def run(requests: Sequence[Tensors]) -> list[Tensors]:
        futures = [begun(request) for request in requests]
        return [outputs_from(_or_raise(future.result()), tokenizer) for future in futures]

    return run


def _or_raise(answer: Answer | Exception) -> Answer:
    if isinstance(answer, Exception):
        raise answer
    return answer
