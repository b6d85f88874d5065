"""ONNX Runtime sessions: on cores that many small models share, or on a GPU."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from sensorium.errors import ConfigurationError
from sensorium_server.batching import Axes
from sensorium_server.onnx_provider import (
    CPU,
    Sizes,
    gpu_providers,
    installed_providers,
    preload_cuda,
)

_DTYPES = {"tensor(float)": np.float32, "tensor(int64)": np.int64, "tensor(float16)": np.float16}
_WARM_SIZE = 8
_NO_SIZES: Mapping[str, int] = MappingProxyType({})
_SEVERITY_ERROR = 3


@dataclass(frozen=True, slots=True)
class OnGpu:
    """Where on a GPU a graph runs: its number, what open axes can be, and where engines are kept.

    `sizes` and `cache` are for ONNX Runtime's TensorRT provider; see `onnx_provider`.
    """

    device: int = 0
    sizes: Sizes = field(default_factory=dict)
    cache: Path | None = None


class Graph(ABC):
    """One loaded graph: what it takes, what it gives, and `run`."""

    def __init__(
        self, inputs: Mapping[str, Axes], outputs: Mapping[str, Axes], dtypes: Mapping[str, Any]
    ) -> None:
        self.inputs, self.outputs, self.dtypes = inputs, outputs, dtypes

    @abstractmethod
    def run(self, outputs: list[str], inputs: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Compute the named outputs."""

    def warm_up(self, sizes: Mapping[str, int] = _NO_SIZES) -> dict[str, NDArray[Any]]:
        """Run once on ones, so that the first request does not pay for first allocations.

        Args:
            sizes: How long to make an open axis, by its name; 8 if not given.
        """
        return self.run(
            list(self.outputs),
            {
                name: np.ones([1, *(_number(axis, sizes) for axis in axes[1:])], self.dtypes[name])
                for name, axes in self.inputs.items()
            },
        )


class OnnxGraph(Graph):
    """A graph by ONNX Runtime."""

    def __init__(
        self, path: Path, *, threads: int = 1, gpu: OnGpu | None = None, optimized: bool = False
    ) -> None:
        self._session = _session(path, threads, gpu, optimized=optimized)
        inputs = self._session.get_inputs()
        super().__init__(
            {each.name: tuple(each.shape) for each in inputs},
            {each.name: tuple(each.shape) for each in self._session.get_outputs()},
            {each.name: _DTYPES.get(each.type, np.float32) for each in inputs},
        )

    @property
    def provider(self) -> str:
        """The provider that most of the graph runs on."""
        return str(self._session.get_providers()[0])

    @property
    def session(self) -> Any:  # noqa: ANN401 - onnxruntime has no types
        """ONNX Runtime's own session, for who binds its inputs and outputs to memory."""
        return self._session

    def run(self, outputs: list[str], inputs: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Compute the named outputs, and no others."""
        return dict(zip(outputs, self._session.run(outputs, inputs), strict=True))


def _session(path: Path, threads: int, gpu: OnGpu | None, *, optimized: bool) -> Any:  # noqa: ANN401 - untyped
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = _SEVERITY_ERROR
    # Spinning threads cost half again of the CPU time when sessions share cores.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if optimized:  # the file was saved so; doing it again only takes time
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        providers: list[Any] = [CPU]
        if gpu is not None:
            preload_cuda()
            inputs = _inputs_of(path)
            providers = gpu_providers(
                installed_providers(), inputs, gpu.sizes, device=gpu.device, cache=gpu.cache
            )
        return onnxruntime.InferenceSession(str(path), options, providers=providers)
    except Exception as error:  # onnxruntime's classes share no public base
        raise ConfigurationError(
            f"{path.parent.parent.name}/{path.parent.name}/{path.name} cannot be loaded: "
            f"{error}. Export the bundle again."
        ) from error


def _inputs_of(path: Path) -> dict[str, Axes]:
    """Return a graph's inputs; nothing is optimised, so that it loads fast."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = _SEVERITY_ERROR
    session = onnxruntime.InferenceSession(str(path), options, providers=[CPU])
    return {each.name: tuple(each.shape) for each in session.get_inputs()}


def _number(axis: int | str | None, sizes: Mapping[str, int]) -> int:
    return axis if isinstance(axis, int) else sizes.get(str(axis), _WARM_SIZE)
