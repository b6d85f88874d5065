"""A plan of TensorRT or TensorRT-RTX, loaded on a GPU: the only calls of either in the server.

The two have the same interface as far as it is used here; the record of an engine says which.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np

from sensorium.errors import ConfigurationError, ServerError
from sensorium_server.cuda import CudaDevice
from sensorium_server.engine_layout import EngineTensor, Layout, Profile, Shape
from sensorium_server.placement import PRODUCTS, api_of, graphs_in, hardware, usable_plans
from sensorium_server.settings import load
from sensorium_server.stages import StageConfig
from sensorium_server.triton import Warn

Made = TypeVar("Made")

ENGINE, STRIPPED = "engine", "stripped"
"""Parameters of a model that is served by plans; see `planned`."""

ONNXRUNTIME = "onnxruntime"
PLAN_SUFFIXES = (".plan", ".rtx")


def planned(
    config: StageConfig,
    gpu: int,
    warn: Warn,
    make: "Callable[[CudaDevice, Mapping[str, TensorRtEngine]], Made]",
) -> Made | None:
    """Load a model's plans onto a GPU, and make of both what runs the model.

    The parameter `engine` says which: a product's name means the plans beside the ONNX files, which
    whoever wrote the config has judged; `onnxruntime` means none; without it, those of the
    repository that are proven for what is here.

    Args:
        config: The model's.
        gpu: The number of the GPU.
        warn: Told why the ONNX files serve, where they do.
        make: From the GPU and the plans by graph; it refuses them by a `ConfigurationError`.

    Returns:
        None where the ONNX files serve.

    Raises:
        ConfigurationError: A plan that the config names does not load, or is refused.
    """
    engine = config.choice(ENGINE, ("", ONNXRUNTIME, *PRODUCTS), "")
    if engine == ONNXRUNTIME:
        return None
    if engine:
        return make(*_loaded(_plans_beside(config, engine), gpu))
    try:
        records = usable_plans(config.directory, hardware(load()).runtime)
        root = config.directory.parents[1]
        plans = {
            graph: _Plan(root / record.file, record.product, record.stripped)
            for graph, record in records.items()
        }
        return make(*_loaded(plans, gpu))
    except ConfigurationError as error:
        warn(f"{config.name} serves its ONNX files: {error}")
        return None


class _Plan(NamedTuple):
    path: Path
    product: str
    is_stripped: bool


def _plans_beside(config: StageConfig, product: str) -> dict[str, _Plan]:
    found = {path.stem: path for path in config.directory.iterdir() if path.suffix in PLAN_SUFFIXES}
    wanted = graphs_in(config.directory)
    if missing := [graph for graph in wanted if graph not in found]:
        raise ConfigurationError(f"{config.name} has no plan of {', '.join(missing)}")
    is_stripped = config.flag(STRIPPED)
    return {graph: _Plan(found[graph], product, is_stripped) for graph in wanted}


def _loaded(plans: Mapping[str, _Plan], gpu: int) -> "tuple[CudaDevice, dict[str, TensorRtEngine]]":
    device, engines = CudaDevice(gpu), {}
    for graph, plan in plans.items():
        weights = plan.path.with_suffix(".onnx") if plan.is_stripped else None
        engines[graph] = TensorRtEngine(plan.path, plan.product, device, weights)
    return device, engines


class TensorRtEngine:
    """A loaded plan with its layout."""

    def __init__(
        self, path: Path, product: str, device: CudaDevice, weights: Path | None = None
    ) -> None:
        """Load a plan.

        Args:
            path: Its file.
            product: What made it: `tensorrt` or `tensorrt_rtx`.
            device: Where it shall run.
            weights: The ONNX file whose weights a plan without any takes.

        Raises:
            ConfigurationError: the product is not installed, or does not load it.
        """
        self._api = api_of(product)
        self._device = device
        # The runtime must outlive what it made.
        self._logger = self._api.Logger(self._api.Logger.ERROR)
        self._runtime = self._api.Runtime(self._logger)
        self._engine = self._runtime.deserialize_cuda_engine(path.read_bytes())
        if self._engine is None:
            raise ConfigurationError(
                f"{product} does not load {path.name}. Compile it again on this machine."
            )
        if weights is not None:
            self._refit(weights)
        self.layout = self._layout()

    def _refit(self, weights: Path) -> None:
        refitter = self._api.Refitter(self._engine, self._logger)
        parser = self._api.OnnxParserRefitter(refitter, self._logger)
        if not parser.refit_from_file(str(weights)) or not refitter.refit_cuda_engine():
            raise ConfigurationError(
                f"the plan does not take the weights of {weights.name}. Compile it again."
            )

    def context(self, profile: int) -> "TensorRtContext":
        """Make an execution context for a profile."""
        made = self._engine.create_execution_context()
        if made is None or not made.set_optimization_profile_async(profile, self._device.stream):
            raise ServerError(f"no execution context for profile {profile}: is the GPU full?")
        self._device.synchronize()
        return TensorRtContext(made, self._device.stream)

    def _layout(self) -> Layout:
        engine = self._engine
        names = [engine.get_tensor_name(number) for number in range(engine.num_io_tensors)]
        tensors = tuple(
            EngineTensor(
                name,
                engine.get_tensor_mode(name) == self._api.TensorIOMode.INPUT,
                np.dtype(self._api.nptype(engine.get_tensor_dtype(name))),
                tuple(engine.get_tensor_shape(name)),
            )
            for name in names
        )
        inputs = [tensor.name for tensor in tensors if tensor.is_input]
        profiles = []
        for number in range(engine.num_optimization_profiles):
            corners = {name: engine.get_tensor_profile_shape(name, number) for name in inputs}
            profiles.append(
                Profile(
                    {name: tuple(least) for name, (least, _, _) in corners.items()},
                    {name: tuple(greatest) for name, (_, _, greatest) in corners.items()},
                )
            )
        return Layout(tensors, tuple(profiles))


class TensorRtContext:
    """An execution context: one profile of an engine, ready to run."""

    def __init__(self, context: Any, stream: int) -> None:  # noqa: ANN401 - TensorRT's own
        self._context, self._stream = context, stream

    def bind(self, name: str, pointer: int) -> None:
        """Say where a tensor lies."""
        self._context.set_tensor_address(name, pointer)

    def resize(self, name: str, shape: Shape) -> None:
        """Say an input's shape."""
        if not self._context.set_input_shape(name, shape):
            raise ServerError(f"the engine refuses {name} {list(shape)}")

    def shape(self, name: str) -> Shape:
        """Return an output's shape, by the inputs' shapes."""
        found = tuple(self._context.get_tensor_shape(name))
        if any(size < 0 for size in found):
            raise ServerError(f"the shape of {name} depends on its values: {list(found)}")
        return found

    def enqueue(self) -> None:
        """Queue a run on the device's stream."""
        if not self._context.execute_async_v3(self._stream):
            raise ServerError("the engine refuses to run; see Triton's log")
