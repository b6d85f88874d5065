"""A graph whose linear layers multiply in fp8, as GPUs of compute capability 8.9 and later do.

A layer's input and weights are rounded to E4M3 (4 bits of exponent, 3 of mantissa, at most 448:
Micikevicius et al., "FP8 Formats for Deep Learning", 2022, section 3), each with one scale, which
maps the largest value to 448. Weights are stored so; inputs are scaled by what was seen on real
media. Between the layers the graph computes in bf16. Products of two signals, as in attention,
stay there too.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory

import ml_dtypes
import numpy as np
import onnx
from onnx import helper, numpy_helper

from sensorium_export.engines.typed_graph import typed_graph
from sensorium_export.seeded_inputs import Array
from sensorium_export.tolerance import BF16

_LARGEST = 448.0
"""What E4M3 holds at most."""

_LINEAR = ("MatMul", "Gemm")
_ZERO = "fp8.zero"


def fp8_graph(
    model: onnx.ModelProto, largest: Mapping[str, float], kept: Collection[str] = ()
) -> onnx.ModelProto:
    """Return a graph with linear layers in fp8 and all else in bf16.

    Args:
        model: A graph in fp32, weights inside; it stays as it is.
        largest: The largest absolute value of each layer's input, as `largest_values` finds it; a
            layer whose input is not among them stays in bf16.
        kept: The names of nodes that compute in fp32.

    Raises:
        ConfigurationError: See `typed_graph`.
    """
    layers = {
        node.name: node
        for node in _linear(model)
        if largest.get(node.input[0], 0) > 0 and node.name not in kept
    }
    weights = {one.name: one for one in model.graph.initializer}
    typed = typed_graph(model, BF16, kept)
    graph = typed.graph
    nodes = list(graph.node)
    del graph.node[:]
    written = {_ZERO}
    for node in nodes:
        if node.name in layers:
            source, weight = layers[node.name].input[:2]
            node.input[0] = _rounded(graph, node.input[0], largest[source], written)
            node.input[1] = _stored(graph, weights[weight], written)
        graph.node.append(node)
    if layers:
        graph.initializer.append(_tensor(_ZERO, np.zeros((), ml_dtypes.float8_e4m3fn)))
    _drop_unused(graph)
    return typed


def largest_values(
    files: Mapping[str, bytes], inputs: Sequence[Mapping[str, Array]]
) -> dict[str, float]:
    """Run a graph in fp32; return the largest absolute value of each linear layer's input.

    Args:
        files: The ONNX file and its weights, by path, the ONNX file first.
        inputs: What to run it on, each by the names of the graph's inputs.
    """
    # Slow to import, and only who quantises needs it.
    from onnxruntime.quantization.calibrate import (  # noqa: PLC0415
        CalibrationDataReader,
        create_calibrator,
    )

    rest = iter(inputs)
    reader = type("_Reader", (CalibrationDataReader,), {"get_next": lambda _: next(rest, None)})()
    with TemporaryDirectory() as directory:
        paths = [Path(directory, Path(path).name) for path in files]
        for path, data in zip(paths, files.values(), strict=True):
            path.write_bytes(data)
        calibrator = create_calibrator(
            paths[0],
            _LINEAR,
            str(Path(directory, "calibrated.onnx")),
            use_external_data_format=len(files) > 1,
            providers=["CPUExecutionProvider"],
        )
        calibrator.collect_data(reader)
        found = calibrator.compute_data()
    ranges = {name: tensor.range_value for name, tensor in found.items()}
    return {name: float(np.abs(one).max()) for name, one in ranges.items()}


def _linear(model: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    """Give the nodes that multiply a signal by weights."""
    weights = {
        one.name
        for one in model.graph.initializer
        if one.data_type == onnx.TensorProto.FLOAT and len(one.dims) > 1
    }
    for node in model.graph.node:
        if node.op_type in _LINEAR and node.input[1] in weights and node.input[0] not in weights:
            yield node


def _rounded(graph: onnx.GraphProto, name: str, largest: float, written: set[str]) -> str:
    """Return a signal that was rounded to fp8, in bf16 again."""
    target = f"{name}.fp8"
    if target not in written:
        written.add(target)
        scale, _ = _scale(graph, target, largest)
        graph.node.append(_node("QuantizeLinear", [name, scale, _ZERO], f"{target}.stored"))
        graph.node.append(_node("DequantizeLinear", [f"{target}.stored", scale, _ZERO], target))
    return target


def _stored(graph: onnx.GraphProto, weight: onnx.TensorProto, written: set[str]) -> str:
    """Return weights that are stored in fp8, in bf16."""
    target = f"{weight.name}.fp8"
    if target not in written:
        written.add(target)
        values = numpy_helper.to_array(weight)
        scale, by = _scale(graph, target, float(np.abs(values).max()) or 1.0)
        stored = np.clip(values / by, -_LARGEST, _LARGEST).astype(ml_dtypes.float8_e4m3fn)
        graph.initializer.append(_tensor(f"{target}.stored", stored))
        graph.node.append(_node("DequantizeLinear", [f"{target}.stored", scale, _ZERO], target))
    return target


def _scale(graph: onnx.GraphProto, target: str, largest: float) -> tuple[str, float]:
    """Return the name of a scale, and its number as bf16 holds it."""
    scale = np.array(largest / _LARGEST).astype(ml_dtypes.bfloat16)
    graph.initializer.append(_tensor(f"{target}.scale", scale))
    return f"{target}.scale", float(scale)


def _node(operator: str, inputs: list[str], output: str) -> onnx.NodeProto:
    return helper.make_node(operator, inputs, [output], name=output)


def _tensor(name: str, values: "np.typing.NDArray[np.generic]") -> onnx.TensorProto:
    return numpy_helper.from_array(values, name)


def _drop_unused(graph: onnx.GraphProto) -> None:
    """Remove the weights that nothing reads any more."""
    read = set(chain.from_iterable(node.input for node in graph.node))
    read |= {one.name for one in graph.output}
    left = [one for one in graph.initializer if one.name in read]
    del graph.initializer[:]
    graph.initializer.extend(left)
