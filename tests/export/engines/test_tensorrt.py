"""Graphs by the real parser and builder of TensorRT-RTX, which need no GPU; engines on one."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from sensorium.contract import DType, Signature, TensorSpec
from sensorium.errors import ConfigurationError
from sensorium_export.engines import PRODUCTS, BuildPlan, GraphFile, product_named
from sensorium_export.engines.compilation import CompileOptions, graph_file, plan_for
from sensorium_export.engines.parity import engine_parity, expectations
from sensorium_export.engines.profile import Limits, corner_cases, profiles_for
from sensorium_export.engines.tensorrt import TENSORRT, TENSORRT_RTX
from sensorium_export.graphs import GRAPHS, Graph, graphs_of
from sensorium_export.source import Source
from sensorium_server.gpu import this_gpu

REPOSITORY = Path("model_repository")
NO_RTX = TENSORRT_RTX.why_unavailable("8.6")
needs_rtx = pytest.mark.skipif(bool(NO_RTX), reason=NO_RTX)
AMPERE = CompileOptions(
    REPOSITORY,
    {graph.name: "fp16" for graph in GRAPHS},
    "again",
    BuildPlan("fp16", (), compute_capability="8.6"),
)
X, Y = (TensorSpec(name, DType.FP32, ("width",)) for name in "xy")


def toy_graph(*nodes: onnx.NodeProto, name: str = "toy") -> GraphFile:
    """A graph from `x` [batch, 4] to `y`."""
    x, y = (
        helper.make_tensor_value_info(one, TensorProto.FLOAT, ["batch", size])
        for one, size in (("x", 4), ("y", "n"))
    )
    model = helper.make_model(
        helper.make_graph(nodes, name, [x], [y]),
        opset_imports=[helper.make_opsetid("", 20)],
        ir_version=10,
    )
    files = {f"{name}/1/model.onnx": model.SerializeToString()}
    return GraphFile(name, Signature((X,), (Y,)), files, {"width": 4})


def relu() -> onnx.NodeProto:
    """A node that everything takes."""
    return helper.make_node("Relu", ["x"], ["y"], name="rectify")


def multiply() -> onnx.NodeProto:
    """A node that multiplies by the weights `w`."""
    return helper.make_node("MatMul", ["x", "w"], ["y"], name="multiply")


def with_weights(graph: GraphFile, shape: list[int]) -> GraphFile:
    """The graph with weights `w`, drawn anew."""
    weights = np.random.default_rng(0).standard_normal(shape, np.float32)
    model = onnx.load_from_string(graph.files[graph.path])
    model.graph.initializer.append(numpy_helper.from_array(weights, "w"))
    return replace(graph, files={graph.path: model.SerializeToString()})


PLAN = BuildPlan("fp32", ({"batch": (1, 2, 4)},), compute_capability="8.6")


@needs_rtx
@pytest.mark.parametrize("name", [graph.name for graph in GRAPHS])
def test_every_graph_of_the_default_bundle_is_built(name: str, source: Source) -> None:
    """Each stage becomes an engine in fp16 for compute capability 8.6, with all of its profiles."""
    graph = next(one for one in graphs_of(source.recipe) if one.name == name)
    file = graph_file(REPOSITORY, source.recipe, graph)
    phases = set()

    assert TENSORRT_RTX.problems(file) == ()
    engine = TENSORRT_RTX.build(
        file,
        plan_for(graph, file, source.recipe, TENSORRT_RTX, AMPERE),
        lambda phase, _done, _steps: phases.add(phase),
    )

    assert len(engine) > 100_000
    assert "Building engine" in phases


@needs_rtx
def test_linear_layers_in_fp8_are_built_for_what_has_it() -> None:
    """Weights take a quarter of the place; before compute capability 8.9 it is refused."""
    graph = with_weights(toy_graph(multiply()), [4, 400_000])
    plan = replace(PLAN, precision="fp8", compute_capability="8.9", largest={"x": 2.0})
    in_fp32 = replace(plan, precision="fp32")

    engine = TENSORRT_RTX.build(graph, plan)

    assert len(engine) < len(TENSORRT_RTX.build(graph, in_fp32)) - 4_000_000
    with pytest.raises(ConfigurationError, match=r"fp8 needs compute capability 8.9 or later"):
        TENSORRT_RTX.build(graph, replace(plan, compute_capability="8.6"))


@needs_rtx
def test_refused_nodes_are_all_named() -> None:
    """What cannot be compiled is told by node and operator, and nothing is built."""
    graph = toy_graph(
        helper.make_node("Unique", ["x"], ["u"], name="count"),
        helper.make_node("Det", ["u"], ["y"], name="volume"),
    )

    problems = TENSORRT_RTX.problems(graph)

    assert ("count", "Unique") in {(one.node, one.operator) for one in problems}
    assert all(one.reason for one in problems)
    with pytest.raises(ConfigurationError, match=r"(?s)refuses toy:.*node count \(Unique\): "):
        TENSORRT_RTX.build(graph, PLAN)


@needs_rtx
def test_profile_that_does_not_fit_is_told() -> None:
    """A least shape above the greatest is the builder's own error, with graph and profile."""
    plan = replace(PLAN, profiles=({"batch": (4, 2, 1)},))

    with pytest.raises(ConfigurationError) as raised:
        TENSORRT_RTX.build(toy_graph(relu()), plan)

    assert "cannot build toy in fp32 (batch 4/2/1):" in str(raised.value)


@needs_rtx
def test_what_the_progress_raises_ends_the_build() -> None:
    """Who interrupts a build of an hour does not wait for its end, and gets the own exception."""

    def interrupted(_phase: str, _done: int, _steps: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        TENSORRT_RTX.build(toy_graph(relu()), PLAN, interrupted)


@needs_rtx
def test_graph_with_weights_of_its_own_file_is_built(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is too large for one file is parsed from its two."""
    graph = with_weights(toy_graph(multiply()), [4, 400])
    model = onnx.load_from_string(graph.files[graph.path])
    monkeypatch.setattr("sensorium_export.onnx_graph.LARGEST_FILE", 1000)
    from sensorium_export.onnx_graph import files_from_onnx  # noqa: PLC0415 - as it is patched

    large = replace(graph, files=files_from_onnx(model, graph.path))

    assert len(large.files) == 2
    assert TENSORRT_RTX.problems(large) == ()
    for precision in ("fp32", "fp16"):
        assert TENSORRT_RTX.build(large, replace(PLAN, precision=precision))


@needs_rtx
@pytest.mark.parametrize(
    ("plan", "message"),
    [
        (replace(PLAN, compute_capability="9.0"), "builds for 7.5, 8.0, 8.6, 8.9, 12.0, 12.1"),
        (replace(PLAN, precision="int8"), "precision int8 is none of fp32, tf32, fp16, bf16"),
        (replace(PLAN, precision="fp16", strip_weights=True), "fp16 rounds them; choose fp32"),
    ],
)
def test_impossible_plans_are_refused(plan: BuildPlan, message: str) -> None:
    """Before anything is parsed, with what would be possible."""
    with pytest.raises(ConfigurationError, match=message):
        TENSORRT_RTX.build(toy_graph(relu()), plan)


@pytest.mark.skipif(this_gpu() is not None, reason="this machine has a GPU")
def test_machine_without_gpu_builds_only_for_a_named_one() -> None:
    """The message of each product has its own way out."""
    assert "Name a GPU to build for: --compute-capability 8.6" in (
        NO_RTX or TENSORRT_RTX.why_unavailable()
    )
    with pytest.raises(ConfigurationError, match="this machine has no NVIDIA GPU"):
        TENSORRT.target()
    with pytest.raises(ConfigurationError, match="engine of toy cannot be run here: this machine"):
        TENSORRT_RTX.runner(toy_graph(relu()), b"", PLAN)


def test_missing_product_says_how_to_get_it() -> None:
    """What is not installed is no traceback."""
    absent = replace(TENSORRT, modules=("no_such_module",))

    assert absent.why_unavailable().startswith("tensorrt is not installed. Install it with: ")
    with pytest.raises(ConfigurationError, match="tensorrt is not installed"):
        absent.version()


def test_products_are_found_by_name() -> None:
    """Each is what it is called; another name is told with those that there are."""
    for name in PRODUCTS:
        assert product_named(name).name == name
    with pytest.raises(ConfigurationError, match="'tpu' is no engine product; those are: tensorrt"):
        product_named("tpu")


@pytest.fixture(params=[TENSORRT.name, TENSORRT_RTX.name])
def product_here(request: pytest.FixtureRequest) -> str:
    """A product that runs engines on this machine."""
    if reason := product_named(request.param).why_not_runnable():
        pytest.skip(f"{request.param}: {reason}")
    return str(request.param)


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp32", "tf32", "fp16", "bf16", "fp8"])
@pytest.mark.parametrize("name", ["image_encoder", "text_encoder", "text_decoder/step"])
def test_engine_is_pytorch_s_on_this_gpu(
    name: str, precision: str, source: Source, product_here: str
) -> None:
    """In every corner of every profile, within the precision's tolerance."""
    product, recipe = product_named(product_here), source.recipe
    graph: Graph = next(one for one in graphs_of(recipe) if one.name == name)
    file = graph_file(REPOSITORY, recipe, graph)
    drawn = corner_cases(graph.signature, recipe, profiles_for(graph, recipe, Limits()))
    options = CompileOptions(
        REPOSITORY,
        {name: precision},
        "again",
        calibration={name: [one.inputs for one in drawn]},
    )
    plan = plan_for(graph, file, recipe, product, options)
    if precision == "fp8" and product.target().compute_capability < "8.9":
        pytest.skip(f"{product.target().device} has no fp8")
    tolerance = recipe.tolerance if precision == "fp32" else recipe.drift[precision]

    with product.runner(file, product.build(file, plan), plan) as run:
        parity = engine_parity(
            expectations(graph, source.model, recipe, plan.profiles), run, tolerance
        )

    assert parity.failures == ()


@pytest.mark.gpu
def test_stripped_engine_is_refitted(source: Source, product_here: str) -> None:
    """With the weights of the ONNX file, it computes what the whole one does."""
    product, recipe = product_named(product_here), source.recipe
    graph = next(one for one in graphs_of(recipe) if one.name == "text_encoder")
    file = graph_file(REPOSITORY, recipe, graph)
    options = CompileOptions(
        REPOSITORY, {graph.name: "fp32"}, "again", BuildPlan("fp32", (), strip_weights=True)
    )
    plan = plan_for(graph, file, recipe, product, options)
    whole, stripped = (
        product.build(file, replace(plan, strip_weights=strip)) for strip in (False, True)
    )

    with product.runner(file, stripped, plan) as run:
        parity = engine_parity(
            expectations(graph, source.model, recipe, plan.profiles), run, recipe.tolerance
        )

    assert parity.failures == ()
    assert len(stripped) < len(whole)


@pytest.mark.gpu
def test_what_the_builder_learned_is_kept(tmp_path: Path) -> None:
    """The timing cache is written after the build; a broken one is no obstacle, and replaced."""
    if reason := TENSORRT.why_not_runnable():
        pytest.skip(f"tensorrt: {reason}")
    path = tmp_path / "caches/tensorrt.cache"
    plan = replace(PLAN, compute_capability="", timing_cache=path)

    TENSORRT.build(toy_graph(relu()), plan)
    written = len(path.read_bytes())
    path.write_bytes(b"broken")
    TENSORRT.build(toy_graph(relu()), plan)

    assert len(path.read_bytes()) == written > len(b"broken")
