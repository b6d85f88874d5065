"""From a published repository to proven engines, with ONNX Runtime as what builds and runs them."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from tests.export.engines.onnx_product import OnnxProduct

from sensorium.errors import ConfigurationError
from sensorium_export.engines import BuildPlan, GraphFile, Runner
from sensorium_export.engines.choice import chosen_graphs
from sensorium_export.engines.compilation import Compiled, CompileOptions, compile_bundle
from sensorium_export.engines.publication import publish_engine
from sensorium_export.source import Source, open_source
from sensorium_server.engine_gate import EngineRuntime, usable_engines
from sensorium_server.engine_record import read_records
from sensorium_server.manifest import check

CHECKPOINT = Path("checkpoints/playroom")
GRAPH = "text_encoder"
FILE = "text_encoder/1/model.onnx"
OVERFLOW = 1e6


def compiled(
    source: Source,
    product: OnnxProduct,
    repository: Path,
    precision: str = "fp16",
    **options: object,
) -> tuple[Compiled, ...]:
    """Compile one graph."""
    chosen = {GRAPH: precision}
    return compile_bundle(
        source,
        product,
        CompileOptions(repository, chosen, "again", **options),  # type: ignore[arg-type]
    )


def test_engine_is_proven_and_published(source: Source, models: Path) -> None:
    """It lies beside its ONNX file, which is as it was, and its record says all that it is."""
    product = OnnxProduct()
    done, phases = [], []

    [one] = compile_bundle(
        source,
        product,
        CompileOptions(models, {GRAPH: "fp16"}, "again"),
        lambda phase, step, steps: phases.append((phase, step, steps)),
        lambda graph, count: done.append((graph, count)),
    )

    assert one.record is not None
    [record] = read_records(models, source.recipe.name)
    assert record == one.record
    assert record.file == "text_encoder/1/model.typed"
    assert record.precision == "fp16"
    assert record.kept == ()
    assert record.parity is not None
    assert record.parity.passed
    assert 0.9995 < record.parity.cosine < 1
    assert record.parity.cases >= 4
    assert done == [(GRAPH, 1)]
    assert phases == [("typing", 1, 1)]
    assert check(models) == [source.recipe.name]
    runtime = EngineRuntime({"onnx": product.version()}, product.target())
    assert usable_engines(models, source.recipe.name, runtime) == ((record,), ())


def test_engine_that_cannot_run_here_is_published_unproven(source: Source, models: Path) -> None:
    """It may be proven on another machine; until then the gate refuses it."""
    product = OnnxProduct(runs_here=False)

    [one] = compiled(source, product, models)

    assert one.record is not None
    assert one.record.parity is None
    runtime = EngineRuntime({"onnx": product.version()}, product.target())
    [refusal] = usable_engines(models, source.recipe.name, runtime)[1]
    assert "has not been compared with PyTorch" in str(refusal)


def test_engine_that_was_built_elsewhere_is_adopted(source: Source, models: Path) -> None:
    """Nothing is built; the file that is there is proven, and what it was built by is recorded."""
    compiled(source, OnnxProduct(runs_here=False), models)
    before = (models / "text_encoder/1/model.typed").read_bytes()
    product = OnnxProduct()

    [one] = compiled(source, product, models, adopt=True)

    assert product.built == []
    assert (models / "text_encoder/1/model.typed").read_bytes() == before
    assert one.record is not None
    assert one.record.parity is not None
    assert one.record.parity.passed


@pytest.mark.parametrize(
    ("product", "message"),
    [
        (OnnxProduct(), "text_encoder/1/model.typed is not in models"),
        (OnnxProduct(runs_here=False), "cannot be proven here: this machine has no GPU"),
    ],
)
def test_what_cannot_be_adopted_is_told(
    product: OnnxProduct, message: str, source: Source, models: Path
) -> None:
    """No file, or no machine to run it: there is no engine, and no record."""
    if not product.runs_here:
        compiled(source, product, models)
    [one] = compiled(source, product, models, adopt=True)

    assert one.record is None
    assert message in one.problem


@pytest.fixture(scope="module")
def loud(tmp_path_factory: pytest.TempPathFactory) -> tuple[Source, Path]:
    """A text encoder with numbers in one layer that fp16 cannot hold, as module and as graph."""
    source = open_source(CHECKPOINT)
    model = onnx.load(f"model_repository/{FILE}")
    layer: Any = source.model.get_submodule(f"{GRAPH}.blocks.0.feedforward")
    factors = {layer.up.weight: OVERFLOW, layer.up.bias: OVERFLOW, layer.down.weight: 1 / OVERFLOW}
    for parameter, factor in factors.items():
        written = parameter.detach().numpy().T
        [weight] = [
            one
            for one in model.graph.initializer
            if np.array_equal(numpy_helper.to_array(one), written)
        ]
        weight.CopyFrom(numpy_helper.from_array(written * np.float32(factor), weight.name))
        with torch.no_grad():
            parameter.mul_(factor)
    repository = tmp_path_factory.mktemp("loud") / "models"
    (repository / FILE).parent.mkdir(parents=True)
    (repository / FILE).write_bytes(model.SerializeToString())
    return source, repository


def test_nodes_that_need_fp32_are_found_and_kept(loud: tuple[Source, Path]) -> None:
    """Only what overflows is in fp32, the engine is right with it, and the record has its cost."""
    product = OnnxProduct()

    [one] = compiled(loud[0], product, loud[1], rebuilds=200)

    record = one.record
    assert record is not None
    assert record.parity is not None
    assert record.parity.passed
    assert record.cost > 0
    graph = onnx.load(loud[1] / FILE).graph
    operators = [one.op_type for one in graph.node if one.name in record.kept]
    assert operators
    assert len(operators) < len(graph.node) / 4
    assert operators[0] in {"MatMul", "Gemm"}
    assert product.built[-1].kept != product.built[0].kept == frozenset()


def test_search_ends_with_the_rebuilds_that_are_allowed(loud: tuple[Source, Path]) -> None:
    """With few rebuilds more nodes stay in fp32, and the engine is right all the same."""
    product = OnnxProduct()

    [one] = compiled(loud[0], product, loud[1], rebuilds=2)

    assert len(product.built) == 3
    assert one.record is not None
    assert one.record.parity is not None
    assert one.record.parity.passed
    assert len(one.record.kept) > 10


@dataclass
class BrokenProduct(OnnxProduct):
    """What it builds is wrong, whatever is kept."""

    @contextmanager
    def runner(self, graph: GraphFile, engine: bytes, plan: BuildPlan) -> Iterator[Runner]:
        """Turn every output round."""
        with super().runner(graph, engine, plan) as run:
            yield lambda inputs: {name: -array for name, array in run(inputs).items()}


@pytest.mark.parametrize("precision", ["fp16", "fp32"])
def test_wrong_engine_is_not_published(precision: str, source: Source, models: Path) -> None:
    """What differs is told with the case, the output and the way out; nothing is left behind."""
    product = BrokenProduct()

    [one] = compiled(source, product, models, precision)

    assert one.record is None
    assert f"the engine of text_encoder in {precision} is not PyTorch's" in one.problem
    assert "profile 0 least, text_tokens: " in one.problem
    assert "Choose another --precision" in one.problem
    assert read_records(models, source.recipe.name) == ()
    assert not (models / "text_encoder/1/model.typed").exists()
    assert len(product.built) == (2 if precision == "fp16" else 1)


def test_one_graph_s_trouble_is_not_another_s(source: Source, models: Path) -> None:
    """A graph that is missing is told, and the others are compiled."""
    (models / "fusion/1/model.onnx").unlink()
    options = CompileOptions(models, {GRAPH: "fp16", "fusion": "fp32"}, "again")

    found = {one.graph: one for one in compile_bundle(source, OnnxProduct(), options)}

    assert found[GRAPH].record is not None
    assert "fusion/1/model.onnx is not in models. Export the bundle" in found["fusion"].problem


def test_product_that_cannot_build_says_so(source: Source, models: Path) -> None:
    """Before anything is built."""
    with pytest.raises(ConfigurationError, match="it builds for no GPU"):
        compiled(
            source, OnnxProduct(), models, plan=BuildPlan("fp32", (), compute_capability="8.6")
        )


def test_later_engine_takes_the_earlier_one_s_place(source: Source, models: Path) -> None:
    """There is one record for a file, and those of other files stay."""
    compiled(source, OnnxProduct(), models)
    other = replace(read_records(models, source.recipe.name)[0], file="fusion/1/model.typed")
    file = GraphFile("fusion", source.recipe.signature("fusion"), {}, source.recipe.sizes)
    publish_engine(models, source.recipe.name, file, b"", lambda _digest, _onnx: other)

    compiled(source, OnnxProduct(), models, "fp32")

    records = read_records(models, source.recipe.name)
    assert [(one.file, one.precision) for one in records] == [
        ("fusion/1/model.typed", "fp16"),
        ("text_encoder/1/model.typed", "fp32"),
    ]


def test_graph_that_was_exported_anew_meanwhile_gets_no_engine(
    source: Source, models: Path
) -> None:
    """What was compiled is of another graph than the one that is served."""
    file = GraphFile(
        GRAPH, source.recipe.signature(GRAPH), {"text_encoder/1/model.onnx": b"old"}, {}
    )

    compiled(source, OnnxProduct(), models)
    [record] = read_records(models, source.recipe.name)

    with pytest.raises(ConfigurationError, match=r"model.onnx was exported anew while it was"):
        publish_engine(models, source.recipe.name, file, b"engine", lambda *_: record)
    assert (models / record.file).read_bytes() != b"engine"


def test_precisions_are_chosen_by_graph_and_by_stage(source: Source) -> None:
    """A word alone is for all graphs, a stage's for its graphs; the later one counts."""
    product = OnnxProduct()

    chosen = chosen_graphs(
        ["fp32", "text_decoder=fp16"], ["text_decoder", GRAPH], source.recipe, product, "fp16"
    )

    assert chosen == {GRAPH: "fp32", "text_decoder/cross": "fp16", "text_decoder/step": "fp16"}
    one = chosen_graphs(["text_decoder/step=fp32"], [], source.recipe, product, "fp16")
    assert one["text_decoder/step"] == "fp32"
    assert one["text_decoder/cross"] == one["fusion"] == "fp16"


def test_unknown_graphs_and_precisions_are_all_told(source: Source) -> None:
    """Each with those that there are."""
    with pytest.raises(ConfigurationError) as raised:
        chosen_graphs(["fp4", "lips=fp16"], ["ears"], source.recipe, OnnxProduct(), "fp16")

    told = str(raised.value).splitlines()
    assert told[0] == 'precision "fp4": onnx builds fp32, fp16'
    assert told[1].startswith('precision "lips=fp16": lips is no graph of this bundle; those are: ')
    assert told[2].startswith("graph: ears is no graph of this bundle")
