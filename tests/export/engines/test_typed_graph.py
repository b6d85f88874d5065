"""Graphs in a lower precision, as ONNX Runtime computes them."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from tests.export.engines.onnx_product import session_as_written

from sensorium.errors import ConfigurationError
from sensorium_export.engines.typed_graph import lowerable, typed_graph
from sensorium_export.onnx_graph import files_from_onnx, onnx_from_files
from sensorium_export.runners import run_onnx, session_from_onnx

Weights = dict[str, NDArray[np.float32]]
FP16 = TensorProto.FLOAT16


def graph(
    nodes: Sequence[onnx.NodeProto],
    weights: Weights,
    inputs: Sequence[tuple[str, int]] = (("x", TensorProto.FLOAT),),
) -> onnx.ModelProto:
    """A graph from `x` [batch, 2] to `y`."""
    return helper.make_model(
        helper.make_graph(
            nodes,
            "toy",
            [helper.make_tensor_value_info(name, kind, ["batch", 2]) for name, kind in inputs],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", "n"])],
            [numpy_helper.from_array(value, name) for name, value in weights.items()],
        ),
        opset_imports=[helper.make_opsetid("", 20)],
        ir_version=10,
    )


def node(operator: str, inputs: str, output: str, **attributes: Any) -> onnx.NodeProto:  # noqa: ANN401
    """A node that is called like its output."""
    return helper.make_node(operator, inputs.split(), [output], name=output, **attributes)


def run(model: onnx.ModelProto, **inputs: NDArray[np.float32]) -> NDArray[np.float32]:
    """Compute `y`."""
    found = run_onnx(session_as_written(model.SerializeToString()), inputs)["y"]
    assert found.dtype == np.float32
    return found.astype(np.float32)


def types_inside(model: onnx.ModelProto) -> dict[str, int]:
    """The element type of every output of a node, by ONNX's own inference."""
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    return {one.name: one.type.tensor_type.elem_type for one in inferred.value_info}


X = np.array([[1.0, 2.0], [-0.5, 1.0 / 3]], np.float32)
TWO = [node("Mul", "x w", "m"), node("Add", "m w", "y")]


def test_nodes_compute_in_the_precision() -> None:
    """Weights and what lies between are fp16; inputs and outputs stay as they were."""
    model = graph(TWO, {"w": np.array([1.0 / 3, 2.0], np.float32)})

    typed = typed_graph(model, "fp16")

    onnx.checker.check_model(typed, full_check=True)
    assert types_inside(typed)["m"] == FP16
    assert [one.data_type for one in typed.graph.initializer] == [FP16]
    assert typed.graph.input == model.graph.input
    assert typed.graph.output == model.graph.output
    np.testing.assert_allclose(run(typed, x=X), run(model, x=X), rtol=2e-3)
    assert not np.array_equal(run(typed, x=X), run(model, x=X))


def test_graph_itself_stays_as_it_is() -> None:
    """The graph in fp32 is built again and again in other precisions."""
    model = graph(TWO, {"w": np.ones(2, np.float32)})
    before = model.SerializeToString()

    typed_graph(model, "bf16")

    assert model.SerializeToString() == before


def test_kept_nodes_compute_in_fp32() -> None:
    """Numbers that fp16 cannot hold are right where they are kept, and only there."""
    model = graph(
        [node("Mul", "x small", "m"), node("Mul", "m large", "n"), node("Mul", "n small", "y")],
        {"large": np.array([1e6], np.float32), "small": np.array([1e-3], np.float32)},
    )
    expected = run(model, x=X)

    assert np.abs(run(typed_graph(model, "fp16"), x=X) - expected).max() > 0.5
    kept = typed_graph(model, "fp16", {"n", "y"})
    np.testing.assert_allclose(run(kept, x=X), expected, rtol=2e-3)
    assert types_inside(kept)["m"] == FP16
    assert types_inside(kept)["n"] == TensorProto.FLOAT
    by_type = {(one.name, one.data_type) for one in kept.graph.initializer}
    assert by_type == {
        *(("small.fp16", FP16), ("small", TensorProto.FLOAT)),
        ("large", TensorProto.FLOAT),
    }


def test_all_nodes_kept_is_the_graph_itself() -> None:
    """With every node in fp32 nothing is rounded."""
    model = graph(TWO, {"w": np.array([1.0 / 3, 2.0], np.float32)})

    assert np.array_equal(run(typed_graph(model, "fp16", lowerable(model)), x=X), run(model, x=X))


@pytest.mark.parametrize("infinite", [-np.inf, -1e9, np.finfo(np.float32).min])
def test_masks_are_finite(infinite: float) -> None:
    """Two masks that stand for minus infinity may be added, and a row without any is no NaN."""
    model = graph(
        [node("Add", "x mask", "one"), node("Add", "one mask", "two"), node("Softmax", "two", "y")],
        {"mask": np.array([[0.0, infinite]], np.float32)},
    )
    all_masked = graph(model.graph.node, {"mask": np.array([[infinite] * 2], np.float32)})

    assert np.array_equal(run(typed_graph(model, "fp16"), x=X), [[1, 0], [1, 0]])
    assert np.isfinite(run(typed_graph(all_masked, "fp16"), x=X)).all()


def test_epsilon_does_not_vanish() -> None:
    """What keeps a divisor from zero is too small for fp16, and still keeps it from zero."""
    model = graph(
        [node("Abs", "x", "a"), node("Max", "a epsilon", "b"), node("Div", "x b", "y")],
        {"epsilon": np.array(1e-12, np.float32)},
    )

    assert np.array_equal(run(typed_graph(model, "fp16"), x=np.zeros((1, 2), np.float32)), [[0, 0]])


def test_small_weights_may_vanish() -> None:
    """Among many, a small number is no epsilon, and is rounded like any other."""
    typed = typed_graph(graph(TWO, {"w": np.array([1e-12, 1], np.float32)}), "fp16")

    assert np.array_equal(numpy_helper.to_array(typed.graph.initializer[0]), [0, 1])


def test_whole_numbers_stay_whole() -> None:
    """Ids and shapes are not rounded; floats that are made of them are of the precision."""
    model = graph(
        [
            node("Cast", "ids", "c", to=TensorProto.FLOAT),
            node("Shape", "c", "s"),
            node("ConstantOfShape", "s", "f", value=helper.make_tensor("v", 1, [1], [0.5])),
            node("ConstantOfShape", "s", "z"),
            node("Add", "f z", "g"),
            node("Add", "c g", "y"),
        ],
        {},
        inputs=[("ids", TensorProto.INT64)],
    )
    typed = typed_graph(model, "fp16")

    onnx.checker.check_model(typed, full_check=True)
    assert {types_inside(typed)[name] for name in ("c", "f", "g")} == {FP16}
    ids = np.array([[1, 2]], np.int64)
    found = run_onnx(session_from_onnx(typed.SerializeToString()), {"ids": ids})["y"]
    assert np.array_equal(found, [[1.5, 2.5]])


def test_bf16_rounds_to_the_nearest() -> None:
    """Weights are rounded as PyTorch rounds them, ties to even."""
    values = np.array([1.0 + 2**-8, 1.0 + 3 * 2**-8, 1.0 / 3, -2.7e38], np.float32)
    torch = pytest.importorskip("torch")

    typed = typed_graph(graph(TWO, {"w": values}), "bf16")

    bits = np.frombuffer(typed.graph.initializer[0].raw_data, np.uint16)
    expected = torch.from_numpy(values).bfloat16().view(torch.uint16).numpy()
    assert np.array_equal(bits, expected)


def test_output_that_is_used_inside_too_is_right() -> None:
    """An output in fp32 is read by others in the precision."""
    model = graph([node("Mul", "x w", "y"), node("Add", "y w", "z")], {"w": np.ones(2, np.float32)})
    model.graph.output.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, ["batch", 2]))

    typed = typed_graph(model, "fp16")

    onnx.checker.check_model(typed, full_check=True)
    found = run_onnx(session_from_onnx(typed.SerializeToString()), {"x": X})
    np.testing.assert_allclose(found["z"], X + 1, rtol=2e-3)


def test_unknown_node_is_named() -> None:
    """A record of another graph does not keep nodes that there are not."""
    model = graph(TWO, {"w": np.ones(2, np.float32)})

    with pytest.raises(ConfigurationError, match="toy has no node soft, sum to keep in fp32"):
        typed_graph(model, "fp16", {"m", "sum", "soft"})


def test_branches_are_refused_by_name() -> None:
    """Types inside of a branch are not followed; the message says which node has one."""
    branch = helper.make_graph(
        [helper.make_node("Identity", ["w"], ["o"])],
        "branch",
        [],
        [helper.make_tensor_value_info("o", TensorProto.FLOAT, [2])],
    )
    model = graph(
        [node("If", "w", "y", then_branch=branch, else_branch=branch)],
        {"w": np.ones(2, np.float32)},
    )

    with pytest.raises(ConfigurationError, match=r"node y \(If\) holds graphs of its own"):
        typed_graph(model, "fp16")


def test_weights_in_their_own_file_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """A graph that is too large for one file is put together again, in any precision."""
    wide = np.arange(2000, dtype=np.float32).reshape(1000, 2)
    model = graph([node("Gemm", "x w", "y", transB=1)], {"w": wide})
    expected = model.SerializeToString()
    monkeypatch.setattr("sensorium_export.onnx_graph.LARGEST_FILE", 1000)

    for one in (model, typed_graph(model, "fp16")):
        whole = one.SerializeToString()
        files = files_from_onnx(one, "toy/1/model.onnx")

        assert list(files) == ["toy/1/model.onnx", "toy/1/model.onnx.data"]
        assert onnx_from_files(files).SerializeToString() == whole
    assert whole != expected
