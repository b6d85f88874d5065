"""Modules as ONNX graphs."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sensorium.contract import BATCH, SEQUENCE, DType, Signature, TensorSpec
from sensorium.errors import ConfigurationError
from sensorium_export import onnx_graph
from sensorium_export.onnx_graph import (
    OPSET,
    bytes_from_onnx,
    files_from_onnx,
    onnx_from_module,
    shape_of,
)
from sensorium_export.runners import run_onnx, session_from_files
from sensorium_server.onnx_session import OnnxGraph

TOKENS = TensorSpec("tokens", DType.FP32, (SEQUENCE, "width"))
MASK = TensorSpec("attention_mask", DType.INT64, (SEQUENCE,))
MEAN = TensorSpec("mean", DType.FP32, ("width",))
PROJECTED = TensorSpec("projected", DType.FP32, (SEQUENCE, "width"))
SIZES = {"width": 4}


class Mean(nn.Module):
    """The mean of the tokens that a mask leaves."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, tokens: Tensor, attention_mask: Tensor) -> Tensor:
        """Average."""
        weight = attention_mask[..., None].to(tokens.dtype)
        mean: Tensor = self.linear((tokens * weight).sum(1) / weight.sum(1))
        return mean


class FixedBatch(Mean):
    """A module that works for one batch size only."""

    def forward(self, tokens: Tensor, attention_mask: Tensor) -> Tensor:
        """Average two rows."""
        return super().forward(tokens, attention_mask) + torch.ones(2, 4)


class Deciding(Mean):
    """A module whose way depends on the values it sees."""

    def forward(self, tokens: Tensor, attention_mask: Tensor) -> Tensor:
        """Decide by a value."""
        mean = super().forward(tokens, attention_mask)
        return mean if bool(tokens.sum() > 0) else -mean


def mean_graph(module: nn.Module) -> onnx.ModelProto:
    """Export with the signature that the modules above have."""
    return onnx_from_module(module, Signature((TOKENS, MASK), (MEAN,)), SIZES, name="mean")


def test_names_dtypes_and_axes_are_the_contracts() -> None:
    """A graph's inputs and outputs are called what the contract calls them."""
    graph = mean_graph(Mean()).graph

    assert {value.name: shape_of(value) for value in graph.input} == {
        "tokens": (BATCH, SEQUENCE, 4),
        "attention_mask": (BATCH, SEQUENCE),
    }
    assert {value.name: shape_of(value) for value in graph.output} == {"mean": (BATCH, 4)}
    assert graph.input[1].type.tensor_type.elem_type == onnx.TensorProto.INT64


def test_graph_is_one_file_of_the_promised_opset() -> None:
    """Weights lie inside, and the opset is the one that the manifest states."""
    model = mean_graph(Mean())

    assert [(one.domain, one.version) for one in model.opset_import] == [("", OPSET)]
    assert not any(one.external_data for one in model.graph.initializer)


def test_weights_lie_beside_a_graph_that_is_too_large(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What one file cannot hold becomes two, which the server opens as it opens one."""
    monkeypatch.setattr(onnx_graph, "LARGEST_FILE", 1)
    monkeypatch.setattr(onnx_graph, "_LEAST_MOVED", 1)
    module = Mean()
    inputs: dict[str, NDArray[Any]] = {
        "tokens": np.ones((2, 3, 4), np.float32),
        "attention_mask": np.ones((2, 3), np.int64),
    }

    files = files_from_onnx(mean_graph(module), "mean/1/model.onnx")

    assert [*files] == ["mean/1/model.onnx", "mean/1/model.onnx.data"]
    for name, data in files.items():
        (tmp_path / Path(name).name).write_bytes(data)
    served = OnnxGraph(tmp_path / "model.onnx").run(["mean"], inputs)["mean"]
    expected = module(*map(torch.from_numpy, inputs.values())).detach().numpy()
    np.testing.assert_allclose(served, expected, atol=1e-6)
    np.testing.assert_array_equal(run_onnx(session_from_files(files), inputs)["mean"], served)


def test_same_module_gives_the_same_bytes() -> None:
    """An export can be repeated to the byte."""
    torch.manual_seed(0)
    module = Mean()

    assert bytes_from_onnx(mean_graph(module)) == bytes_from_onnx(mean_graph(module))


def test_nothing_of_this_machine_is_left_in_the_graph() -> None:
    """Stack traces and source names carry paths, which are nobody's business."""
    model = mean_graph(Mean())

    assert not re.search(rb"\.py|/\w+/\w+", bytes_from_onnx(model))
    assert not any(node.metadata_props or node.doc_string for node in model.graph.node)


def test_fixed_batch_is_refused() -> None:
    """A module that works for one batch size is found before it is served."""
    with pytest.raises(
        ConfigurationError, match=r"input tokens has shape \(2, .* expected \('batch'"
    ):
        mean_graph(FixedBatch())


def test_module_that_cannot_be_traced_is_named() -> None:
    """What the exporter cannot follow is said in one line, with the graph's name."""
    with pytest.raises(ConfigurationError, match=r"mean cannot be exported: .+"):
        mean_graph(Deciding())


def test_wrong_output_shape_is_named() -> None:
    """A graph that differs from the contract is refused with both shapes."""
    wrong = TensorSpec("mean", DType.FP32, ("width", "width"))

    with pytest.raises(ConfigurationError, match=r"output mean has shape .* expected"):
        onnx_from_module(Mean(), Signature((TOKENS, MASK), (wrong,)), SIZES, name="mean")


def test_wrong_output_dtype_is_named() -> None:
    """A graph whose output has another dtype is refused."""
    wrong = TensorSpec("mean", DType.INT64, ("width",))

    with pytest.raises(ConfigurationError, match="output mean has dtype FLOAT, expected INT64"):
        onnx_from_module(Mean(), Signature((TOKENS, MASK), (wrong,)), SIZES, name="mean")


def test_any_method_can_be_the_graph() -> None:
    """A module that holds several graphs is exported method by method."""
    module = Mean()

    model = onnx_from_module(
        module.linear, Signature((TOKENS,), (PROJECTED,)), SIZES, name="linear", method="forward"
    )

    assert model.graph.name == "linear"
