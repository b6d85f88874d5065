"""The backend `tensorrt` of the packaged Triton: proven plans, from GPU stage to GPU stage.

It reads `configs/gpu_wheel.pbtxt`: the parameters of `onnxruntime_backend.py`, and

| key | meaning | default |
|---|---|---|
| `cuda_graphs` | how many sets of shapes are recorded as CUDA graphs; 0: none | `64` |
| `engine` | a product: the plan beside the ONNX file; `onnxruntime`: none | what is proven |
| `stripped` | `true`: that plan takes the ONNX file's weights | `false` |
| `FORCE_CPU_ONLY_INPUT_TENSORS` | Triton's own; `no`: what is on the GPU stays there | `yes` |

A plan that is missing, unproven, or of another GPU or TensorRT is not loaded: the stage then serves
its ONNX file, on CUDA where `onnxruntime-gpu` is installed, and the log says why.
"""

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sensorium.contract import STAGES, TensorSpec, bare_name
from sensorium.errors import ConfigurationError
from sensorium_server.batched_model import BatchedModel, Parts
from sensorium_server.cuda import CudaDevice
from sensorium_server.device import Device, DeviceArray, on_host
from sensorium_server.dlpack import described
from sensorium_server.engine_layout import EngineTensor
from sensorium_server.engine_runner import EngineRunner, axes_of
from sensorium_server.engine_runs import GRAPHS, Engine
from sensorium_server.onnx_session import OnGpu
from sensorium_server.onnxruntime_backend import OnnxModel, batcher_from, gpu_of, graph_from
from sensorium_server.recorder import items_of
from sensorium_server.stages import StageConfig
from sensorium_server.tensorrt_engine import planned
from sensorium_server.triton import BackendModel, Instance, Request, Response, failure, warn


class EngineModel(BatchedModel):
    """A compiled engine that answers many requests by one run, and leaves results on its device."""

    def __init__(self, engine: Engine, device: Device, config: StageConfig) -> None:
        """Hold the engine against the contract, and allocate.

        Raises:
            ConfigurationError: it does not take and give what the stage does.
        """
        stage = STAGES[bare_name(config.name)]
        specs = {spec.name: spec for spec in (*stage.inputs, *stage.optional, *stage.outputs)}
        layout = engine.layout
        if strangers := [one.name for one in layout.tensors if one.name not in specs]:
            raise ConfigurationError(
                f"{config.name}: the plan has tensors that the contract has not: "
                f"{', '.join(strangers)}. Compile it again."
            )
        super().__init__(
            batcher_from(config, _axes(layout.inputs, specs), _axes(layout.outputs, specs)), config
        )
        self._device = device
        self._runner = EngineRunner(engine, device, graphs=config.integer("cuda_graphs", GRAPHS))
        self._given: list[dict[str, Any]] = []

    def answer(self, requests: Sequence[Parts], wanted: Sequence[Any]) -> list[Parts | Exception]:
        """Return each request's outputs, valid until the next call; see `BatchedModel`."""
        self._given = []
        return super().answer(requests, wanted)

    def _computed(
        self, requests: Sequence[Parts], sizes: Sequence[Mapping[str, int]], names: list[str]
    ) -> Sequence[Parts]:
        self._take_off()
        batcher = self._batcher
        padded = batcher.padded_sizes(sizes)
        largest = {**sizes[0], **padded}
        tails = {
            name: tuple(one if isinstance(one, int) else largest[str(one)] for one in axes[1:])
            for name, axes in batcher.inputs.items()
        }
        results = self._runner.run(requests, tails, batcher.pad_values)
        kept = {name: array for name, array in results.items() if name in self._needed(names)}
        if self._checks_finite:
            self._check({name: on_host(self._device, array) for name, array in kept.items()})
        rows = [len(next(iter(request.values()))) for request in requests]
        parts = self._runner.split(batcher, kept, rows, sizes)
        self._given += parts
        return parts

    def _needed(self, names: Sequence[str]) -> set[str]:
        return {*names, *self._batcher.masks.values()}

    def _take_off(self) -> None:
        """Bring to the host what an earlier run of this call gave: the next one overwrites it."""
        for part in self._given:
            for name, array in part.items():
                if isinstance(array, DeviceArray):
                    part[name] = on_host(self._device, array)
        self._given = []


def _axes(
    tensors: Sequence[EngineTensor], specs: Mapping[str, TensorSpec]
) -> dict[str, tuple[int | str | None, ...]]:
    return {one.name: axes_of(one.shape, specs[one.name].shape) for one in tensors}


class TritonPythonModel(BackendModel):
    """What Triton calls for every model with `backend: "tensorrt"` that it has no library for."""

    _model: BatchedModel
    _device: Device | None
    _keeps: bool

    def initialize(self, args: Mapping[str, str]) -> None:
        """Load the plan, or the ONNX file in its place."""
        instance = self._begin(args)
        config, found = instance.config, None

        def by_plan(device: Device, engines: Mapping[str, Engine]) -> tuple[Device, EngineModel]:
            (engine,) = engines.values()
            engine.layout.check(instance.inputs, instance.outputs)
            return device, EngineModel(engine, device, config)

        if instance.gpu is None:
            warn(f"{config.name} serves its ONNX file: the instance is not on a GPU")
        else:
            found = planned(config, instance.gpu, warn, by_plan)
        if found is None:
            model = onnx_model(instance)
            model.warm_up()
            self._device = None if instance.gpu is None else CudaDevice(instance.gpu)
            self._model, self._keeps = model, False
        else:
            self._device, self._model = found
            self._keeps = True

    def execute(self, requests: Sequence[Request]) -> list[Response]:
        """Answer the batch by one run, each request on its own."""
        begin = time.monotonic()
        parts = [self._parts(request) for request in requests]
        wanted = [request.requested_output_names() for request in requests]
        with self._recorder.run(sum(map(items_of, parts))):
            answers = self._model.answer(parts, wanted)
        return [
            failure(answer, request, self._recorder, begin)
            if isinstance(answer, Exception)
            else device_response(answer, request)
            for request, answer in zip(requests, answers, strict=True)
        ]

    def _parts(self, request: Request) -> Parts:
        """Return a request's inputs where they are, or on the host for ONNX Runtime."""
        parts = parts_of(request, self._inputs)
        if self._keeps or self._device is None:
            return parts
        device = self._device
        return {
            name: on_host(device, part) if isinstance(part, DeviceArray) else part
            for name, part in parts.items()
        }


def onnx_model(instance: Instance) -> OnnxModel:
    """Load a model's ONNX file, on its GPU where ONNX Runtime can."""
    gpu: OnGpu | None = gpu_of(instance)
    return OnnxModel(graph_from(instance.config, gpu=gpu), instance.config)


def parts_of(request: Request, names: Sequence[str]) -> Parts:
    """Return a request's inputs, each where it is, gone when `execute` returns."""
    import triton_python_backend_utils as pb  # noqa: PLC0415

    parts: dict[str, Any] = {}
    for name in names:
        tensor = pb.get_input_tensor_by_name(request, name)
        if tensor is None:
            continue
        if tensor.is_cpu():
            parts[name] = tensor.as_numpy()
        else:
            capsule = tensor.to_dlpack()
            parts[name] = DeviceArray(*described(capsule), owner=(tensor, capsule))
    return parts


def device_response(outputs: Parts, request: Request) -> Response:
    """Return the answer with those outputs that somebody wants, each where it is."""
    import triton_python_backend_utils as pb  # noqa: PLC0415

    wanted = request.requested_output_names()
    return pb.InferenceResponse(
        [
            pb.Tensor(name, array)
            if isinstance(array, np.ndarray)
            else pb.Tensor.from_dlpack(name, array)
            for name, array in outputs.items()
            if name in wanted
        ]
    )
