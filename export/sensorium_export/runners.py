"""Run a graph or a module on named arrays. Runners only run; `compare` judges."""

import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from torch import nn

from sensorium.contract import Signature
from sensorium_export.seeded_inputs import Array


def session_from_files(files: Mapping[str, bytes]) -> onnxruntime.InferenceSession:
    """Open a graph that `files_from_onnx` made: the first of the files."""
    paths = list(files)
    if len(paths) == 1:
        return session_from_onnx(files[paths[0]])
    with tempfile.TemporaryDirectory() as directory:
        for path, data in files.items():
            Path(directory, Path(path).name).write_bytes(data)
        return session_from_onnx(Path(directory, Path(paths[0]).name))


def session_from_onnx(graph: bytes | Path) -> onnxruntime.InferenceSession:
    """Open an ONNX graph on the CPU with one thread, as the CPU profile serves it."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    source = str(graph) if isinstance(graph, Path) else graph
    return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])


def run_onnx(
    session: onnxruntime.InferenceSession, inputs: Mapping[str, Array]
) -> dict[str, Array]:
    """Run a session and return every output by its name."""
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, dict(inputs)), strict=True))


def run_module(
    module: nn.Module, method: str, signature: Signature, inputs: Mapping[str, Array]
) -> dict[str, Array]:
    """Run a PyTorch module on arrays and return every output by its name in the contract."""
    arguments = [torch.from_numpy(np.asarray(inputs[spec.name])) for spec in signature.inputs]
    with torch.no_grad():
        result = getattr(module, method)(*arguments)
    outputs = result if isinstance(result, tuple) else (result,)
    names = [spec.name for spec in signature.outputs]
    return {name: tensor.numpy() for name, tensor in zip(names, outputs, strict=True)}
