"""The backend `onnxruntime`: ONNX graphs in the packaged Triton, which has no native backend.

It reads the same `config.pbtxt` as the native backend of NVIDIA's container and uses these
parameters (the native one ignores those that it does not know):

| key | meaning | default |
|---|---|---|
| `intra_op_thread_count` | threads of one run | `1` |
| `precision` | `fp32`, `int8` (the file says how), `bf16` by `openvino_graph.py` | `fp32` |
| `engine` | `onnxruntime`, or `openvino` for any precision | `onnxruntime` |
| `optimized.<graph>` | `true`: that file, `model`, was saved optimised | `false` |
| `check_finite` | `true`: an answer that is no number fails, and is told in the log | `false` |
| `buckets.<axis>` | ascending sizes to which that axis may be padded, `8,16,32,64` | |
| `pad_value.<input>` | what the padding of that input holds | `0` |
| `mask.<axis>` | the output that says how much of that axis, which outputs alone have, is valid | |

An axis is named as in the graph: `sequence`. Requests of unequal length share one run only along
axes with buckets, and only if Triton lets them meet: give such inputs `allow_ragged_batch: true`.
The model file is `default_model_filename`, else `model.onnx`.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from sensorium_server.batched_model import BatchedModel, Parts
from sensorium_server.batching import Axes, Batcher
from sensorium_server.onnx_session import Graph, OnGpu, OnnxGraph
from sensorium_server.openvino_graph import OpenVinoGraph
from sensorium_server.recorder import items_of
from sensorium_server.settings import load
from sensorium_server.stages import StageConfig
from sensorium_server.triton import (
    BackendModel,
    Instance,
    Request,
    Response,
    failure,
    response,
    tensors_of,
)

Value = TypeVar("Value")

PRECISIONS = ("fp32", "bf16", "int8")
ENGINES = ("onnxruntime", "openvino")
TENSORRT_ACCELERATOR = "tensorrt"
_BUCKETS = "buckets."
_PAD_VALUE = "pad_value."
_MASK = "mask."


def graph_from(config: StageConfig, file: str = "model.onnx", *, gpu: OnGpu | None = None) -> Graph:
    """Load a model's graph, by the engine that its precision needs, or on a GPU."""
    threads = config.integer("intra_op_thread_count", 1)
    precision = config.choice("precision", PRECISIONS, "fp32")
    path = config.directory / file
    by_openvino = config.choice("engine", ENGINES, "onnxruntime") == "openvino"
    if gpu is None and (precision == "bf16" or by_openvino):
        return OpenVinoGraph(path, threads=threads, precision=precision)
    optimized = config.flag(f"optimized.{path.stem}")
    return OnnxGraph(path, threads=threads, gpu=gpu, optimized=optimized)


def gpu_of(instance: Instance) -> OnGpu | None:
    """Return where on a GPU an instance's graphs run; None for the processor.

    ONNX Runtime's TensorRT provider builds engines that nobody has proven, for minutes: it is used
    where the config asks for it, as it would ask the native backend.
    """
    if instance.gpu is None:
        return None
    if TENSORRT_ACCELERATOR not in instance.accelerators:
        return OnGpu(instance.gpu)
    largest = max(instance.max_batch_size, 1)
    sizes = {"batch": (1, largest, largest)}
    for axis, buckets in _named(instance.config, _BUCKETS, instance.config.integers).items():
        sizes[axis] = (1, buckets[len(buckets) // 2], buckets[-1])
    cache = load().cache_dir.expanduser() / "onnxruntime-tensorrt"
    cache.mkdir(parents=True, exist_ok=True)
    return OnGpu(instance.gpu, sizes, cache)


class OnnxModel(BatchedModel):
    """A graph of ONNX Runtime or OpenVINO that answers many requests by one run."""

    def __init__(self, graph: Graph, config: StageConfig) -> None:
        super().__init__(batcher_from(config, graph.inputs, graph.outputs), config)
        self._graph = graph

    def warm_up(self) -> None:
        """Run once on the shortest batch.

        Raises:
            ServerError: It put out NaN, and that is checked.
        """
        self._check(self._graph.warm_up(self._batcher.padded_sizes([])))

    def _computed(
        self, requests: Sequence[Parts], sizes: Sequence[Mapping[str, int]], names: list[str]
    ) -> Sequence[Parts]:
        results = self._graph.run(names, self._batcher.join(requests, sizes))
        self._check(results)
        rows = [len(next(iter(request.values()))) for request in requests]
        return self._batcher.split(results, rows, sizes)


def batcher_from(
    config: StageConfig, inputs: Mapping[str, Axes], outputs: Mapping[str, Axes]
) -> Batcher:
    """Return what joins and splits a model's batches, by its parameters."""
    return Batcher(
        inputs,
        outputs,
        buckets=_named(config, _BUCKETS, config.integers),
        pad_values=_named(config, _PAD_VALUE, config.number),
        masks=_named(config, _MASK, config.text),
    )


def _named(config: StageConfig, prefix: str, read: Callable[[str], Value]) -> dict[str, Value]:
    """Return the parameters with a prefix, by the rest of their names."""
    return {
        key.removeprefix(prefix): read(key) for key in config.parameters if key.startswith(prefix)
    }


class TritonPythonModel(BackendModel):
    """What Triton calls for every model with `backend: "onnxruntime"`."""

    _model: OnnxModel

    def initialize(self, args: Mapping[str, str]) -> None:
        """Load the graph and run it once."""
        instance = self._begin(args)
        file = instance.default_filename or "model.onnx"
        graph = graph_from(instance.config, file, gpu=gpu_of(instance))
        self._inputs = tuple(graph.inputs)
        self._model = OnnxModel(graph, instance.config)
        self._model.warm_up()

    def execute(self, requests: Sequence[Request]) -> list[Response]:
        """Answer the batch by one run, each request on its own."""
        begin = time.monotonic()
        tensors = [tensors_of(request, self._inputs) for request in requests]
        wanted = [request.requested_output_names() for request in requests]
        with self._recorder.run(sum(map(items_of, tensors))):
            answers = self._model.answer(tensors, wanted)
        return [
            failure(answer, request, self._recorder, begin)
            if isinstance(answer, Exception)
            else response(answer, request)
            for request, answer in zip(requests, answers, strict=True)
        ]
