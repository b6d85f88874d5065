"""Linear layers in fp8, as ONNX's own reference computes them."""

import ml_dtypes
import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from sensorium_export.engines.fp8_graph import fp8_graph, largest_values

X = np.array([[1.0, -3.0], [0.5, 1.0 / 3]], np.float32)
WEIGHT = np.array([[0.3, -2.0, 0.01], [1.5, 0.7, -0.2]], np.float32)


def graph(*nodes: onnx.NodeProto) -> onnx.ModelProto:
    """A graph from `x` [batch, 2] to `y`, with the weights `w` [2, 3] and `b` [3]."""
    x, y = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", size])
        for name, size in (("x", 2), ("y", 3))
    )
    weights = {"w": WEIGHT, "b": np.array([0.1, 0.2, 0.3], np.float32)}
    return helper.make_model(
        helper.make_graph(
            nodes,
            "toy",
            [x],
            [y],
            [numpy_helper.from_array(value, name) for name, value in weights.items()],
        ),
        opset_imports=[helper.make_opsetid("", 20)],
        ir_version=10,
    )


def run(model: onnx.ModelProto) -> NDArray[np.float32]:
    """Compute `y` of `X`."""
    (found,) = ReferenceEvaluator(model).run(None, {"x": X})
    array = np.asarray(found)
    assert array.dtype == np.float32
    return array


def in_fp8(values: NDArray[np.float32], largest: float) -> NDArray[np.float32]:
    """Round to E4M3 with a scale in bf16, by NumPy."""
    scale = np.array(largest / 448, ml_dtypes.bfloat16).astype(np.float32)
    return (values / scale).astype(ml_dtypes.float8_e4m3fn).astype(np.float32) * scale


LINEAR = graph(
    helper.make_node("MatMul", ["x", "w"], ["m"], name="multiply"),
    helper.make_node("Add", ["m", "b"], ["y"], name="add"),
)


def test_layers_multiply_what_fp8_holds() -> None:
    """Input and weights are rounded by their scales, the rest computes in bf16."""
    typed = fp8_graph(LINEAR, {"x": 3.0})

    onnx.checker.check_model(typed, full_check=True)
    assert [one.op_type for one in typed.graph.node if one.name == "add"] == ["Add"]
    assert {one.name: one.data_type for one in typed.graph.initializer} == {
        "w.fp8.stored": TensorProto.FLOAT8E4M3FN,
        "w.fp8.scale": TensorProto.BFLOAT16,
        "x.bf16.fp8.scale": TensorProto.BFLOAT16,
        "b.bf16": TensorProto.BFLOAT16,
        "fp8.zero": TensorProto.FLOAT8E4M3FN,
    }
    expected = in_fp8(X, 3) @ in_fp8(WEIGHT, 2) + np.array([0.1, 0.2, 0.3])
    np.testing.assert_allclose(run(typed), expected, rtol=2e-2, atol=2e-2)
    assert not np.allclose(run(typed), run(LINEAR), rtol=1e-3)


def test_what_is_larger_than_seen_becomes_the_largest() -> None:
    """A signal beyond its scale saturates, and is no NaN."""
    found = run(fp8_graph(LINEAR, {"x": 1.0}))

    expected = np.clip(X, -1, 1) @ WEIGHT + np.array([0.1, 0.2, 0.3])
    np.testing.assert_allclose(found, expected, rtol=0.1, atol=0.1)


@pytest.mark.parametrize(
    ("largest", "kept", "kind"),
    [({}, (), TensorProto.BFLOAT16), ({"x": 3.0}, ("multiply",), TensorProto.FLOAT)],
    ids=["unseen", "kept"],
)
def test_layer_stays_as_it_is(largest: dict[str, float], kept: tuple[str, ...], kind: int) -> None:
    """In bf16 where its input was not seen, in fp32 where it must be."""
    typed = fp8_graph(LINEAR, largest, kept)

    weights = [one.data_type for one in typed.graph.initializer if one.name.startswith("w")]
    assert weights == [kind]
    assert not any("Quantize" in node.op_type for node in typed.graph.node)


def test_layers_share_what_they_have_in_common() -> None:
    """A signal that two layers read is rounded once, and so are weights that two layers have."""
    model = graph(
        helper.make_node("MatMul", ["x", "w"], ["m"], name="multiply"),
        helper.make_node("Gemm", ["x", "w", "b"], ["g"], name="affine"),
        helper.make_node("Add", ["m", "g"], ["y"], name="add"),
    )

    typed = fp8_graph(model, {"x": 3.0})

    operators = [node.op_type for node in typed.graph.node]
    assert operators.count("QuantizeLinear") == 1
    assert operators.count("DequantizeLinear") == 2
    np.testing.assert_allclose(run(typed), run(model), rtol=0.1, atol=0.1)


def test_largest_values_are_those_of_all_inputs() -> None:
    """Of each layer's input, over everything that was run."""
    files = {"toy/1/model.onnx": LINEAR.SerializeToString()}

    found = largest_values(files, [{"x": X}, {"x": -2 * X}])

    assert found["x"] == 6
