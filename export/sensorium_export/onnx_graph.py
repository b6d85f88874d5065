"""A PyTorch module as an ONNX graph whose names, dtypes and axes are those of the contract."""

import logging
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import Tensor, nn

from sensorium.contract import BATCH, DYNAMIC_AXES, DType, Signature, TensorSpec
from sensorium.errors import ConfigurationError
from sensorium_export import seeded_inputs

OPSET = 20
LARGEST_FILE = 2**31 - 2**24
"""Bytes of weights in one file: protobuf cannot hold 2 GiB."""

WEIGHTS_SUFFIX = ".data"
_LEAST_MOVED = 1024
_ALIGNMENT = 64
_FLOATS = {onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16}
_ELEMENT_TYPE = {
    DType.FP32: onnx.TensorProto.FLOAT,
    DType.INT64: onnx.TensorProto.INT64,
}


class _Call(nn.Module):
    """One method of a module as a module of its own, because the exporter takes modules only."""

    def __init__(self, module: nn.Module, method: str) -> None:
        super().__init__()
        self.module = module
        self._call: Callable[..., Any] = getattr(module, method)

    def forward(self, *inputs: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Call the method."""
        result: Tensor | tuple[Tensor, ...] = self._call(*inputs)
        return result


def onnx_from_module(
    module: nn.Module,
    signature: Signature,
    sizes: Mapping[str, int],
    *,
    name: str,
    method: str = "forward",
) -> onnx.ModelProto:
    """Export one module and check the graph against the contract.

    The same module gives the same bytes again: nothing of this machine (paths, stack traces, times)
    is left in the graph.

    Args:
        module: Takes the signature's inputs in order and returns its outputs in order.
        signature: Names, dtypes and axes of the graph.
        sizes: The number for every fixed axis.
        name: The graph's name, for messages and viewers.
        method: The method to export, for a module that holds several graphs.

    Raises:
        ConfigurationError: The graph is not what the contract says; all differences are listed.
    """
    case = seeded_inputs.example(signature, sizes)
    inputs = tuple(torch.from_numpy(case.inputs[spec.name]) for spec in signature.inputs)
    dims = {axis: torch.export.Dim(axis) for axis in DYNAMIC_AXES}
    axes = tuple(
        {
            index: dims[axis]
            for index, axis in enumerate((BATCH, *spec.shape))
            if isinstance(axis, str) and axis in dims and axis not in sizes
        }
        for spec in signature.inputs
    )
    model = _exported(_Call(module, method).eval(), inputs, axes, signature, name)
    _strip(model, name)
    _name_axes(model, signature)
    problems = _problems(model, signature, sizes)
    if problems:
        raise ConfigurationError(
            f"the ONNX graph of {name} differs from the contract: " + "; ".join(problems)
        )
    if _weight(model) < LARGEST_FILE:
        # The checker takes no more at once; ONNX Runtime judges a larger graph when it opens it.
        onnx.checker.check_model(model, full_check=True)
    return model


def files_from_onnx(model: onnx.ModelProto, path: str) -> dict[str, bytes]:
    """Return a graph's file, and one of its weights beside it where a single file is too small.

    Args:
        model: The graph; weights that are moved out of it are missing from it afterwards.
        path: What to call the file.
    """
    if _weight(model) < LARGEST_FILE:
        return {path: bytes_from_onnx(model)}
    weights_path = path + WEIGHTS_SUFFIX
    weights = bytearray()
    for tensor in model.graph.initializer:
        # Whole numbers are shapes and axes, which must be in the graph.
        if tensor.data_type not in _FLOATS or len(tensor.raw_data) < _LEAST_MOVED:
            continue
        place = {"location": Path(weights_path).name, "offset": len(weights)}
        for key, value in (place | {"length": len(tensor.raw_data)}).items():
            tensor.external_data.add(key=key, value=str(value))
        weights += tensor.raw_data
        weights += bytes(-len(weights) % _ALIGNMENT)
        tensor.ClearField("raw_data")
        tensor.data_location = onnx.TensorProto.EXTERNAL
    return {path: bytes_from_onnx(model), weights_path: bytes(weights)}


def onnx_from_files(files: Mapping[str, bytes]) -> onnx.ModelProto:
    """Return the graph that `files_from_onnx` wrote, with all of its weights inside."""
    graph, *weights = files.values()
    model: onnx.ModelProto = onnx.load_from_string(graph)
    for tensor in model.graph.initializer:
        if tensor.data_location != onnx.TensorProto.EXTERNAL:
            continue
        place = {entry.key: entry.value for entry in tensor.external_data}
        start, length = int(place["offset"]), int(place["length"])
        tensor.raw_data = weights[0][start : start + length]
        del tensor.external_data[:]
        tensor.ClearField("data_location")
    return model


def _weight(model: onnx.ModelProto) -> int:
    """Return the bytes of all weights."""
    return sum(len(tensor.raw_data) for tensor in model.graph.initializer)


def bytes_from_onnx(model: onnx.ModelProto) -> bytes:
    """Serialise a graph, weights included, always to the same bytes."""
    return bytes(model.SerializeToString(deterministic=True))


def shape_of(value: onnx.ValueInfoProto) -> tuple[int | str, ...]:
    """Return the axes of a graph's input or output: a number, or the name of a dynamic axis."""
    return tuple(dim.dim_param or int(dim.dim_value) for dim in value.type.tensor_type.shape.dim)


def _exported(
    module: nn.Module,
    inputs: tuple[Tensor, ...],
    axes: tuple[dict[int, Any], ...],
    signature: Signature,
    name: str,
) -> onnx.ModelProto:
    # The exporter says which optional operator libraries are absent and that axes share a name.
    logging.getLogger("torch.onnx._internal.exporter._registration").setLevel(logging.ERROR)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        try:
            program = torch.onnx.export(
                module,
                inputs,
                dynamic_shapes=(axes,),
                input_names=[spec.name for spec in signature.inputs],
                output_names=[spec.name for spec in signature.outputs],
                opset_version=OPSET,
                dynamo=True,
                verbose=False,
            )
        except torch.onnx.errors.OnnxExporterError as error:
            cause = error.__cause__ or error
            raise ConfigurationError(
                f"{name} cannot be exported: {str(cause).strip().splitlines()[0]}"
            ) from error
    if program is None:
        raise ConfigurationError(f"{name} cannot be exported: the exporter returned nothing")
    return program.model_proto


def _strip(model: onnx.ModelProto, name: str) -> None:
    """Remove what does not compute: stack traces, source names and intermediate shapes."""
    model.doc_string = ""
    model.graph.doc_string = ""
    model.graph.name = name
    model.producer_name = "sensorium"
    model.producer_version = ""
    del model.metadata_props[:]
    del model.graph.metadata_props[:]
    del model.graph.value_info[:]
    parts = [*model.graph.node, *model.graph.input, *model.graph.output, *model.graph.initializer]
    for part in parts:
        part.doc_string = ""
        del part.metadata_props[:]


def _name_axes(model: onnx.ModelProto, signature: Signature) -> None:
    """Name an output's open axis by the contract where no input has it: it is a formula then."""
    given = {axis for spec in signature.inputs for axis in spec.shape}
    for value, spec in zip(model.graph.output, signature.outputs, strict=False):
        for dim, axis in zip(value.type.tensor_type.shape.dim[1:], spec.shape, strict=False):
            if dim.dim_param and axis in DYNAMIC_AXES and axis not in given:
                dim.dim_param = str(axis)


def _problems(model: onnx.ModelProto, signature: Signature, sizes: Mapping[str, int]) -> list[str]:
    problems = []
    pairs = (
        ("input", model.graph.input, signature.inputs),
        ("output", model.graph.output, signature.outputs),
    )
    for kind, values, specs in pairs:
        found, expected = [value.name for value in values], [spec.name for spec in specs]
        if found != expected:
            problems.append(f"{kind}s are {found}, expected {expected}")
            continue
        for value, spec in zip(values, specs, strict=True):
            problems += _tensor_problems(kind, value, spec, sizes)
    if model.functions:
        problems.append(f"{len(model.functions)} local functions were left in the graph")
    return problems


def _tensor_problems(
    kind: str, value: onnx.ValueInfoProto, spec: TensorSpec, sizes: Mapping[str, int]
) -> list[str]:
    problems = []
    expected = tuple(
        axis if isinstance(axis, int) else sizes.get(axis, axis) for axis in (BATCH, *spec.shape)
    )
    if shape_of(value) != expected:
        problems.append(f"{kind} {spec.name} has shape {shape_of(value)}, expected {expected}")
    if value.type.tensor_type.elem_type != _ELEMENT_TYPE[spec.dtype]:
        element = onnx.TensorProto.DataType.Name(value.type.tensor_type.elem_type)
        problems.append(f"{kind} {spec.name} has dtype {element}, expected {spec.dtype}")
    return problems
