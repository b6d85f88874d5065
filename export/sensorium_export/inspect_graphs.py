"""Whether a stage's ONNX files take and give what its config, or the contract, says."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnxruntime
from tritonclient.grpc.model_config_pb2 import DataType, ModelConfig

from sensorium.contract import DYNAMIC_AXES, TensorSpec, bare_name
from sensorium_export.ensemble_check import type_text, types_of
from sensorium_export.graphs import GRAPHS, LATENT, Graph
from sensorium_export.model_config import TRITON_TYPE

Axes = tuple[int | str, ...]

_MODEL = "model"
_SEVERITY_FATAL = 4
_GRAPH_TYPE = {
    "tensor(float)": "TYPE_FP32",
    "tensor(float16)": "TYPE_FP16",
    "tensor(int64)": "TYPE_INT64",
    "tensor(int32)": "TYPE_INT32",
    "tensor(bool)": "TYPE_BOOL",
}


@dataclass(frozen=True, slots=True)
class _Signature:
    """A graph's tensors: dtype as Triton calls it, and all axes, the batch first."""

    inputs: Mapping[str, tuple[str, Axes]]
    outputs: Mapping[str, tuple[str, Axes]]


def stage_graph_problems(repository: Path, model: str, config: ModelConfig) -> Iterator[str]:
    """Return what is wrong with a stage's graphs; files that are missing are somebody else's."""
    sizes: dict[str, int] = {}
    for graph in (*GRAPHS, *LATENT):
        if graph.module != bare_name(model):
            continue
        path = repository / model / "1" / Path(graph.path).name
        where = f"{model}/1/{path.name}"
        if not path.is_file():
            continue
        try:
            found = _signature(path)
        except Exception as error:  # noqa: BLE001 - onnxruntime's classes share no public base
            yield f"{where} cannot be loaded: {str(error).strip().splitlines()[0]}"
            continue
        if path.stem == _MODEL:
            yield from _config_problems(where, found, config)
        else:
            yield from _contract_problems(where, found, graph, sizes)


def _signature(path: Path) -> _Signature:
    options = onnxruntime.SessionOptions()
    # Nothing is run: an unoptimised graph loads fastest.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = _SEVERITY_FATAL
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return _Signature(_described(session.get_inputs()), _described(session.get_outputs()))


def _described(values: Sequence[Any]) -> dict[str, tuple[str, Axes]]:
    return {one.name: (_GRAPH_TYPE.get(one.type, one.type), tuple(one.shape)) for one in values}


def _config_problems(where: str, found: _Signature, config: ModelConfig) -> Iterator[str]:
    """Hold a stage's only graph against its config, whose dims leave out the batch."""
    optional = {one.name for one in config.input if one.optional}
    for side, graph, tensors in (
        ("input", found.inputs, config.input),
        ("output", found.outputs, config.output),
    ):
        wanted = types_of(tensors)
        for name in sorted(wanted.keys() - graph.keys() - optional):
            yield f"{where}: the graph has no {side} {name}, which the config has"
        for name in sorted(graph.keys() - wanted.keys()):
            yield f"{where}: the config has no {side} {name}, which the graph has"
        for name in sorted(graph.keys() & wanted.keys()):
            dtype, axes = graph[name]
            plain = (dtype, tuple(axis if isinstance(axis, int) else -1 for axis in axes[1:]))
            if not axes or isinstance(axes[0], int):
                yield f"{where}: {side} {name} {list(axes)} does not leave its batch open"
            elif plain != wanted[name]:
                yield (
                    f"{where}: {side} {name} is {type_text(plain)} in the graph, "
                    f"{type_text(wanted[name])} in the config"
                )


def _contract_problems(
    where: str, found: _Signature, graph: Graph, sizes: dict[str, int]
) -> Iterator[str]:
    """Hold one of several graphs against the contract; `sizes` has those of the graphs before."""
    for side, values, specs in (
        ("input", found.inputs, graph.signature.inputs),
        ("output", found.outputs, graph.signature.outputs),
    ):
        names = {spec.name for spec in specs}
        for name in sorted(names - values.keys()):
            yield f"{where}: the graph has no {side} {name}, which the contract has"
        for name in sorted(values.keys() - names):
            yield f"{where}: the contract has no {side} {name}, which the graph has"
        for spec in specs:
            if spec.name in values:
                yield from _spec_problems(f"{where}: {side}", spec, values[spec.name], sizes)


def _spec_problems(
    where: str, spec: TensorSpec, found: tuple[str, Axes], sizes: dict[str, int]
) -> Iterator[str]:
    dtype, axes = found
    if dtype != DataType.Name(TRITON_TYPE[spec.dtype]):
        yield f"{where} {spec.name} is {dtype.removeprefix('TYPE_')}, expected {spec.dtype}"
    if len(axes) != len(spec.shape) + 1:
        yield f"{where} {spec.name} has the axes {list(axes)}, expected {['batch', *spec.shape]}"
        return
    for axis, size in zip(spec.shape, axes[1:], strict=True):
        expected = sizes.get(axis) if isinstance(axis, str) else axis
        if isinstance(size, str):
            if axis not in DYNAMIC_AXES:
                yield f"{where} {spec.name}: the axis {axis} is open, the contract fixes it"
        elif expected is None:
            sizes[str(axis)] = size
        elif size != expected:
            yield f"{where} {spec.name}: {axis} is {size}, elsewhere {expected}"
