"""Run an engine on this machine's GPU: PyTorch holds the tensors, on its own stream."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from sensorium.contract import BATCH
from sensorium.errors import ConfigurationError
from sensorium_export.engines import BuildPlan, GraphFile, Runner
from sensorium_export.engines.profile import profile_of
from sensorium_export.engines.tensorrt_log import BuildLog
from sensorium_export.seeded_inputs import Array


@contextmanager
def loaded(
    api: Any,  # noqa: ANN401 - a module that is there or not
    graph: GraphFile,
    engine: bytes,
    plan: BuildPlan,
) -> Iterator[Runner]:
    """Load an engine; give what runs it; free it.

    Raises:
        ConfigurationError: The engine is not for this GPU or this version.
    """
    log = BuildLog(api)
    runtime = api.Runtime(log.logger)
    cuda = runtime.deserialize_cuda_engine(engine)
    if cuda is None:
        said = "; ".join(log.errors) or "it did not say why"
        raise ConfigurationError(f"the engine of {graph.name} cannot be loaded: {said}")
    if plan.strip_weights:
        _refit(api, cuda, graph, log)
    yield _EngineRun(cuda, graph, plan)


def _refit(api: Any, cuda: Any, graph: GraphFile, log: BuildLog) -> None:  # noqa: ANN401
    """Put the weights of the ONNX file into a stripped engine."""
    refitter = api.Refitter(cuda, log.logger)
    parser = api.OnnxParserRefitter(refitter, log.logger)
    if not parser.refit_from_bytes(graph.files[graph.path]) or not refitter.refit_cuda_engine():
        said = "; ".join(log.errors) or "it did not say why"
        raise ConfigurationError(f"the engine of {graph.name} cannot be refitted: {said}")


class _EngineRun:
    """One execution context for every profile, made when the first inputs of its shapes come."""

    def __init__(self, cuda: Any, graph: GraphFile, plan: BuildPlan) -> None:  # noqa: ANN401
        self._cuda, self._graph, self._profiles = cuda, graph, plan.profiles
        self._contexts: dict[int, Any] = {}
        self._stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]

    def __call__(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Compute every output."""
        context = self._context(inputs)
        held = {}
        with torch.cuda.stream(self._stream):
            for spec in self._graph.signature.inputs:
                tensor = torch.from_numpy(np.ascontiguousarray(inputs[spec.name])).cuda()
                # An address of nothing is refused, also for a tensor without elements.
                held[spec.name] = tensor if tensor.numel() else tensor.new_empty(1)
                context.set_input_shape(spec.name, tuple(tensor.shape))
                context.set_tensor_address(spec.name, held[spec.name].data_ptr())
            outputs = {}
            for spec in self._graph.signature.outputs:
                shape = tuple(context.get_tensor_shape(spec.name))
                dtype = torch.int64 if spec.dtype == "INT64" else torch.float32
                outputs[spec.name] = torch.empty(shape, dtype=dtype, device="cuda")
                context.set_tensor_address(spec.name, outputs[spec.name].data_ptr())
            if not context.execute_async_v3(self._stream.cuda_stream):
                raise ConfigurationError(f"the engine of {self._graph.name} failed on the GPU")
        self._stream.synchronize()
        return {name: tensor.cpu().numpy() for name, tensor in outputs.items()}

    def _context(self, inputs: Mapping[str, Array]) -> Any:  # noqa: ANN401
        sizes = {
            axis: number
            for spec in self._graph.signature.inputs
            for axis, number in zip((BATCH, *spec.shape), inputs[spec.name].shape, strict=True)
            if isinstance(axis, str)
        }
        number = profile_of(sizes, self._profiles)
        if number is None:
            raise ConfigurationError(f"no profile of {self._graph.name} holds the shapes {sizes}")
        if number not in self._contexts:
            context = self._cuda.create_execution_context()
            context.set_optimization_profile_async(number, self._stream.cuda_stream)
            self._contexts[number] = context
        return self._contexts[number]
