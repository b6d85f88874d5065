"""ONNX Runtime sessions, configured for many small models that share a machine's cores."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from sensorium.errors import ConfigurationError
from sensorium_server.batching import Axes

_DTYPES = {"tensor(float)": np.float32, "tensor(int64)": np.int64, "tensor(float16)": np.float16}
_WARM_SIZE = 8
_NO_SIZES: Mapping[str, int] = MappingProxyType({})
_SEVERITY_ERROR = 3


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
        self, path: Path, *, threads: int = 1, on_gpu: bool = False, optimized: bool = False
    ) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = _SEVERITY_ERROR
        # Spinning threads cost half again of the CPU time when sessions share cores.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        if optimized:  # the file was saved so; doing it again only takes time
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        providers = ["CUDAExecutionProvider"] if on_gpu else []
        try:
            self._session = onnxruntime.InferenceSession(
                str(path), options, providers=[*providers, "CPUExecutionProvider"]
            )
        except Exception as error:  # onnxruntime's classes share no public base
            raise ConfigurationError(
                f"{path.parent.parent.name}/{path.parent.name}/{path.name} cannot be loaded: "
                f"{error}. Export the bundle again."
            ) from error
        inputs = self._session.get_inputs()
        super().__init__(
            {each.name: tuple(each.shape) for each in inputs},
            {each.name: tuple(each.shape) for each in self._session.get_outputs()},
            {each.name: _DTYPES.get(each.type, np.float32) for each in inputs},
        )

    def run(self, outputs: list[str], inputs: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Compute the named outputs, and no others."""
        return dict(zip(outputs, self._session.run(outputs, inputs), strict=True))


def _number(axis: int | str | None, sizes: Mapping[str, int]) -> int:
    return axis if isinstance(axis, int) else sizes.get(str(axis), _WARM_SIZE)
