"""ONNX Runtime sessions, configured for many small models that share a machine's cores."""

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from sensorium.errors import ConfigurationError
from sensorium_server.batching import Axes

_DTYPES = {"tensor(float)": np.float32, "tensor(int64)": np.int64, "tensor(float16)": np.float16}
_WARM_SIZE = 8
_SEVERITY_ERROR = 3


class OnnxGraph:
    """One loaded graph: what it takes, what it gives, and `run`."""

    def __init__(self, path: Path, *, threads: int = 1, on_gpu: bool = False) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = _SEVERITY_ERROR
        # Spinning threads cost half again of the CPU time when sessions share cores.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
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
        self.inputs: dict[str, Axes] = {each.name: tuple(each.shape) for each in inputs}
        self.outputs: dict[str, Axes] = {
            each.name: tuple(each.shape) for each in self._session.get_outputs()
        }
        self._dtypes = {each.name: _DTYPES.get(each.type, np.float32) for each in inputs}

    def run(self, outputs: list[str], inputs: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Compute the named outputs, and no others."""
        return dict(zip(outputs, self._session.run(outputs, inputs), strict=True))

    def warm_up(self) -> None:
        """Run once on ones, so that the first request does not pay for first allocations."""
        self.run(
            list(self.outputs),
            {
                name: np.ones(
                    [1, *(axis if isinstance(axis, int) else _WARM_SIZE for axis in axes[1:])],
                    self._dtypes[name],
                )
                for name, axes in self.inputs.items()
            },
        )
