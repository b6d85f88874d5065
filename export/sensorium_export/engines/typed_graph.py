"""A graph in fp16 or bf16: a strongly typed builder computes in the types that the graph has.

Every node computes in the lower precision, but for those that are kept in fp32; casts stand where
the two meet. Inputs and outputs stay as the contract has them. Numbers that fp16 cannot hold, as
masks have for minus infinity, become a finite one: two masks may be added without overflow. A
single number that would become zero, as an epsilon may, becomes the least that is not.
"""

from collections.abc import Collection

import numpy as np
import onnx
from onnx import helper, numpy_helper

from sensorium.errors import ConfigurationError

_FLOAT = int(onnx.TensorProto.FLOAT)
LOWER = {"fp16": int(onnx.TensorProto.FLOAT16), "bf16": int(onnx.TensorProto.BFLOAT16)}

_LARGEST = {"fp16": 65504.0, "bf16": 3.38e38}
_INFINITE = {"fp16": 3e4, "bf16": 1e38}
"""What stands for a number that the precision cannot hold."""

_LEAST_NORMAL = {"fp16": 2.0**-14, "bf16": 2.0**-126}
"""What stands for a number beside zero that is there to keep a divisor from being zero."""

_ALWAYS_KEPT = frozenset({"Range", "DequantizeLinear", "QuantizeLinear", "DynamicQuantizeLinear"})
"""Operators whose floats are counts or scales, not signals."""

_MAKERS = frozenset(
    {"Cast", "Constant", "ConstantOfShape", "EyeLike", "RandomNormal", "RandomUniform"}
)
"""Operators whose floats have the type that an attribute says."""

_FP32_INPUTS = {"Resize": frozenset({1, 2})}
"""Inputs that the standard wants in fp32 whatever the node computes in."""


def lowerable(model: onnx.ModelProto) -> tuple[str, ...]:
    """Return the nodes that would compute in a lower precision, in the order of the graph."""
    types = _types(model)
    return tuple(
        node.name
        for node in model.graph.node
        if node.op_type not in _ALWAYS_KEPT
        and any(types.get(name) == _FLOAT for name in (*node.input, *node.output))
    )


def typed_graph(
    model: onnx.ModelProto, precision: str, kept: Collection[str] = ()
) -> onnx.ModelProto:
    """Return a graph in a lower precision.

    Args:
        model: A graph in fp32, weights inside; it stays as it is.
        precision: `fp16` or `bf16`.
        kept: The names of nodes that compute in fp32.

    Raises:
        ConfigurationError: A node has graphs of its own, or a name to keep is none of a node's.
    """
    _check(model, kept)
    return _Typed(model, precision, frozenset(kept)).model


def _check(model: onnx.ModelProto, kept: Collection[str]) -> None:
    nested = [
        f"node {node.name} ({node.op_type})"
        for node in model.graph.node
        if any(attribute.type == onnx.AttributeProto.GRAPH for attribute in node.attribute)
    ]
    if nested:
        raise ConfigurationError(
            f"{model.graph.name} cannot be put into a lower precision: {', '.join(nested)} holds "
            f"graphs of its own. Choose fp32 or tf32 for it."
        )
    if unknown := sorted(set(kept) - {node.name for node in model.graph.node}):
        raise ConfigurationError(
            f"{model.graph.name} has no node {', '.join(unknown)} to keep in fp32"
        )


class _Typed:
    """One conversion: nodes are written in order, with casts before those that need them."""

    def __init__(self, model: onnx.ModelProto, precision: str, kept: frozenset[str]) -> None:
        self._precision, self._kept, self._low = precision, kept, LOWER[precision]
        self._types = _types(model)
        self.model = onnx.ModelProto()
        self.model.CopyFrom(model)
        self._graph = self.model.graph
        self._weights = {one.name: one for one in model.graph.initializer}
        del self._graph.node[:], self._graph.initializer[:], self._graph.value_info[:]
        self._now = {name: self._types[name] for name in self._types}
        self._written: set[str] = set()
        self._outputs = {one.name for one in model.graph.output}
        for node in model.graph.node:
            self._write(node)
        self._write_rest()

    def _write(self, original: onnx.NodeProto) -> None:
        node = onnx.NodeProto()
        node.CopyFrom(original)
        is_low = node.op_type not in _ALWAYS_KEPT and node.name not in self._kept
        if is_low and node.op_type in _MAKERS:
            is_low = self._retype(node)
        forced = _FP32_INPUTS.get(node.op_type, frozenset())
        for index, name in enumerate(original.input):
            if self._types.get(name) == _FLOAT:
                to = self._low if is_low and index not in forced else _FLOAT
                node.input[index] = self._in_type(name, to)
            elif name in self._weights:
                self._keep_weight(name)
        self._graph.node.append(node)
        for index, name in enumerate(original.output):
            if self._types.get(name) != _FLOAT:
                continue
            self._now[name] = self._low if is_low else _FLOAT
            if name in self._outputs and is_low:
                node.output[index] = inner = f"{name}.{self._precision}"
                self._graph.node[-1].output[index] = inner
                self._now[inner] = self._low
                self._cast(inner, name, _FLOAT)
                self._now[name] = _FLOAT

    def _in_type(self, name: str, to: int) -> str:
        """Return the name under which a float is there in a type, made if it is not yet."""
        if name in self._weights:
            return self._weight(name, to)
        if self._now[name] == to:
            return name
        other = f"{name}.{'fp32' if to == _FLOAT else self._precision}"
        if other not in self._now:
            self._cast(name, other, to)
            self._now[other] = to
        return other

    def _cast(self, source: str, target: str, to: int) -> None:
        self._graph.node.append(
            helper.make_node("Cast", [source], [target], name=f"cast.{target}", to=to)
        )

    def _weight(self, name: str, to: int) -> str:
        target = name if to == _FLOAT else f"{name}.{self._precision}"
        if target not in self._written:
            self._written.add(target)
            weight = self._weights[name]
            self._graph.initializer.append(
                weight if to == _FLOAT else self._lowered(weight, target)
            )
        return target

    def _keep_weight(self, name: str) -> None:
        if name not in self._written:
            self._written.add(name)
            self._graph.initializer.append(self._weights[name])

    def _lowered(self, weight: onnx.TensorProto, name: str) -> onnx.TensorProto:
        values = numpy_helper.to_array(weight)
        size, sign = np.abs(values), np.sign(values)
        size = np.where(size > _LARGEST[self._precision], _INFINITE[self._precision], size)
        if values.size == 1 and size > 0:
            size = np.maximum(size, _LEAST_NORMAL[self._precision])
        lowered = (
            (sign * size).astype(np.float32).astype(helper.tensor_dtype_to_np_dtype(self._low))
        )
        return numpy_helper.from_array(lowered, name)

    def _retype(self, node: onnx.NodeProto) -> bool:
        """Let what a node makes be of the lower precision; return whether it is."""
        for attribute in node.attribute:
            if attribute.name in {"to", "dtype"} and attribute.i == _FLOAT:
                attribute.i = self._low
                return True
            if attribute.name == "value" and attribute.t.data_type == _FLOAT:
                attribute.t.CopyFrom(self._lowered(attribute.t, attribute.t.name))
                return True
        return False

    def _write_rest(self) -> None:
        """Write weights that are outputs themselves."""
        for name in self._outputs & self._weights.keys():
            self._keep_weight(name)


def _types(model: onnx.ModelProto) -> dict[str, int]:
    """Return the element type of every tensor of a graph."""
    light = onnx.ModelProto(ir_version=model.ir_version, opset_import=model.opset_import)
    light.graph.node.extend(model.graph.node)
    light.graph.input.extend(model.graph.input)
    light.graph.output.extend(model.graph.output)
    for weight in model.graph.initializer:
        # Only their types count, and inference copies what it is given.
        if weight.data_type == _FLOAT:
            light.graph.input.append(
                helper.make_tensor_value_info(weight.name, _FLOAT, list(weight.dims))
            )
        else:
            light.graph.initializer.append(weight)
    inferred = onnx.shape_inference.infer_shapes(light).graph
    values = (*inferred.input, *inferred.output, *inferred.value_info)
    types = {value.name: value.type.tensor_type.elem_type for value in values}
    return types | {one.name: one.data_type for one in inferred.initializer}
