from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from tests.server import toy

from sensorium.errors import ConfigurationError, InvalidInputError, ServerError
from sensorium_server.onnx_session import OnnxGraph
from sensorium_server.onnxruntime_backend import OnnxModel, TritonPythonModel, graph_from
from sensorium_server.stages import StageConfig, Tensors

WANTED = {"text_tokens", "text_embedding"}


class CountingGraph(OnnxGraph):
    """A graph that remembers its runs, and can be told to fail."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.runs: list[tuple[list[str], dict[str, Any]]] = []
        self.poison: int | None = None

    def run(self, outputs: list[str], inputs: dict[str, Any]) -> dict[str, Any]:
        """Count, fail at the poison, or compute."""
        self.runs.append((outputs, inputs))
        if self.poison is not None and (inputs["input_ids"] == self.poison).any():
            raise RuntimeError("poisoned")
        return super().run(outputs, inputs)


@pytest.fixture
def graph(toy_repository: Path) -> CountingGraph:
    """Return the toy's text encoder."""
    return CountingGraph(toy_repository / "text_encoder/1/model.onnx")


@pytest.fixture
def model(graph: CountingGraph) -> OnnxModel:
    """Return it as a model with buckets."""
    return OnnxModel(graph, StageConfig("text_encoder", Path(), {"buckets.sequence": "8,16"}))


def text(*ids: int) -> dict[str, Any]:
    """Return a request of one text."""
    return {
        "input_ids": np.array([ids], np.int64),
        "attention_mask": np.ones((1, len(ids)), np.int64),
    }


def sound(answers: list[Tensors | Exception]) -> list[Tensors]:
    """Return answers of which none is an error."""
    for answer in answers:
        assert not isinstance(answer, Exception), answer
    return answers  # type: ignore[return-value] # checked above


def test_unequal_requests_share_one_run(model: OnnxModel, graph: CountingGraph) -> None:
    """Requests of unequal length are answered by one run, each as if it were alone."""
    requests = [text(5), text(4, 6, 7), text(*range(4, 14))]

    together = sound(model.answer(requests, [WANTED] * 3))

    assert len(graph.runs) == 1
    for request, answer in zip(requests, together, strict=True):
        (alone,) = sound(model.answer([request], [WANTED]))
        assert_allclose(answer["text_embedding"], alone["text_embedding"], rtol=1e-5)
        assert_array_equal(answer["text_tokens"], alone["text_tokens"])
        assert answer["text_tokens"].shape[1] == request["input_ids"].shape[1]


def test_only_wanted_outputs_are_computed(model: OnnxModel, graph: CountingGraph) -> None:
    """An output that nobody asked for is not computed."""
    model.answer([text(4), text(5, 6)], [{"text_embedding"}] * 2)

    assert graph.runs[0][0] == ["text_embedding"]


def test_failing_request_fails_alone(model: OnnxModel, graph: CountingGraph) -> None:
    """When a run fails, its members run alone, and only the guilty one fails."""
    graph.poison = 7

    answers = model.answer([text(4), text(7), text(5, 6)], [WANTED] * 3)

    assert [isinstance(answer, Exception) for answer in answers] == [False, True, False]


def test_inconsistent_request_fails_alone(model: OnnxModel) -> None:
    """A request whose inputs do not fit together is refused, the others are answered."""
    odd = text(4, 5)
    odd["attention_mask"] = odd["attention_mask"][:, :1]

    answers = model.answer([odd, text(4)], [WANTED] * 2)

    assert isinstance(answers[0], InvalidInputError)
    assert not isinstance(answers[1], Exception)


def test_corrupt_graph_is_named(tmp_path: Path) -> None:
    """A file that is no graph is named with its model."""
    path = tmp_path / "text_encoder" / "1" / "model.onnx"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"garbage")

    with pytest.raises(ConfigurationError, match=r"text_encoder/1/model.onnx cannot be loaded"):
        OnnxGraph(path)


def test_triton_model(
    toy_repository: Path, stub: SimpleNamespace, triton_args: Callable[..., dict[str, str]]
) -> None:
    """Triton's class answers a batch, each request with the outputs that it asked for."""
    served = TritonPythonModel()
    served.initialize(triton_args(toy_repository, "text_encoder"))
    bad = text(4, 5)
    bad["attention_mask"] = bad["attention_mask"][:, :1]
    requests = [stub.Request(text(4, 5), {"text_embedding"}), stub.Request(bad, WANTED)]

    good, refused = served.execute(requests)

    assert set(good.arrays) == {"text_embedding"}
    assert good.arrays["text_embedding"].shape == (1, toy.SIZES["embedding_dim"])
    assert refused.error.code == "INVALID_ARG"
    assert served.auto_complete_config("config") == "config"


def test_an_engine_that_puts_out_nan_fails(toy_repository: Path) -> None:
    """Of an engine, NaN fails its request alone, and in the first run the load."""
    path = toy_repository / "text_encoder/1/model.onnx"
    config = StageConfig("text_encoder", Path(), {"check_finite": "true"})
    engine = NanGraph(path)
    model = OnnxModel(engine, config)
    model.warm_up()

    answers = model.answer([text(4), text(7), text(7)], [WANTED] * 3)

    assert [isinstance(answer, ServerError) for answer in answers] == [False, True, True]
    assert str(answers[1]) == "text_encoder put out NaN or infinity in text_embedding"
    engine.poison = 1  # what the first run is of
    with pytest.raises(ServerError, match="put out NaN"):
        model.warm_up()
    sound(OnnxModel(engine, StageConfig("text_encoder", Path())).answer([text(1)], [WANTED]))


class NanGraph(CountingGraph):
    """A graph that puts out NaN for a row that has the poison."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.poison = 7

    def run(self, outputs: list[str], inputs: dict[str, Any]) -> dict[str, Any]:
        """Compute, and spoil it."""
        found = OnnxGraph.run(self, outputs, inputs)
        if (inputs["input_ids"] == self.poison).any():
            found["text_embedding"][:] = np.nan
        return found


@pytest.mark.parametrize(
    "parameters",
    [
        {"engine": "openvino", "precision": "fp32"},
        {"engine": "onnxruntime", "optimized.model": "true"},
    ],
    ids=["openvino", "optimized"],
)
def test_engines_are_named_by_parameters(toy_repository: Path, parameters: dict[str, str]) -> None:
    """A graph runs by the engine that the config names, with the same answer, from any int64."""
    if parameters["engine"] == "openvino":
        pytest.importorskip("openvino")
    folder = toy_repository / "text_encoder" / "1"
    given = {name: array.astype(np.longlong) for name, array in text(4, 5, 6).items()}
    expected, found = (
        graph_from(StageConfig("text_encoder", folder, chosen)).run(["text_embedding"], given)
        for chosen in ({}, parameters)
    )

    assert_allclose(found["text_embedding"], expected["text_embedding"], rtol=1e-4, atol=1e-6)
