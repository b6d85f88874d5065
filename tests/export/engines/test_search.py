"""The search of a processor's engines, on the toy bundle: small, with every kind of candidate."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from tests.server import toy
from typer.testing import CliRunner

from sensorium.cli import main
from sensorium.errors import ConfigurationError
from sensorium_export.engines import BuildPlan, GraphFile, product_named
from sensorium_export.engines import search as search_module
from sensorium_export.engines.cpu import CpuProduct
from sensorium_export.engines.evidence import Evidence, evidence_from
from sensorium_export.engines.search import Candidate, Search, StageSearch
from sensorium_export.engines.search_cli import manifest_of
from sensorium_export.engines.search_report import HEADER, plot_search, rows, table_from, verdict
from sensorium_export.serving_chain import ServingChain
from sensorium_export.source import open_source
from sensorium_server.engine_gate import reasons_against
from sensorium_server.engine_record import read_records
from sensorium_server.manifest import digest
from sensorium_server.settings import load
from sensorium_server.stages import Tensors
from sensorium_server.swap.device import runtime_of
from sensorium_server.swap.engine_build import EngineBuild
from sensorium_server.swap.engine_cache import EngineCache

pytest.importorskip("openvino")

ROOT = Path(__file__).parents[3]
STAGE = "text_encoder"
COUNT = 4


@pytest.fixture(scope="module")
def toy_repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A toy repository to write engines into."""
    return toy.build(tmp_path_factory.mktemp("search"))


@pytest.fixture(scope="module")
def evidence(toy_repository: Path) -> Evidence:
    """What the toy answers as it was exported."""
    return evidence_from(toy_repository, "", load({"repository": toy_repository}), COUNT)


@pytest.fixture
def chain(toy_repository: Path) -> Iterator[ServingChain]:
    """The toy's stages."""
    with ServingChain(toy_repository, load({"repository": toy_repository})) as opened:
        yield opened


@pytest.fixture
def search(
    toy_repository: Path,
    chain: ServingChain,
    evidence: Evidence,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Search:
    """A search whose stopwatch says what int8 by ONNX Runtime is fastest, then fp32 by OpenVINO."""
    speeds = {"int8 by onnxruntime": 3.0, "fp32 by openvino": 2.0, "fp32 by onnxruntime": 1.0}

    def timed(_search: Search, _stage: str, candidates: list[Candidate], _inputs: object) -> None:
        for one in candidates:
            one.speed = dict.fromkeys(search_module.BATCHES, speeds.get(one.name, 0.5))
            one.start = 2.0

    monkeypatch.setattr(Search, "_time", timed)
    return Search(toy_repository, "", chain, evidence, tmp_path)


def outcome(found: StageSearch) -> Mapping[str, str]:
    """Return what became of each candidate."""
    return {one.name: verdict(one) for one in found.candidates}


def test_the_verb_publishes_what_the_gate_lets_through(
    toy_repository: Path, tmp_path: Path
) -> None:
    """Each engine that was chosen lies beside its graph with a record that passes the gate."""
    before = {path: digest(path) for path in toy_repository.rglob("*.onnx")}
    words = ["compile", "--profile", "cpu", "--search", "--repository", str(toy_repository)]
    more = ["--count", str(COUNT), "--plot", str(tmp_path / "bars.png"), "--json"]
    result = CliRunner().invoke(main, [*words, *more])
    found = json.loads(result.stdout)
    records = read_records(toy_repository, "toy")

    assert found["reference"] == "onnx"
    assert found["stages"].keys() == {"image_encoder", "text_encoder", "fusion"}
    candidates = found["stages"][STAGE]
    assert {(one["product"], one["precision"]) for one in candidates} == {
        *(("onnxruntime", one) for one in ("fp32", "int8", "int8_static")),
        *(("openvino", one) for one in ("fp32", "bf16", "int8_static")),
    }
    chosen = {
        stage: one for stage, listed in found["stages"].items() for one in listed if one["chosen"]
    }
    assert {record.graph for record in records} == chosen.keys()
    for record in records:
        assert reasons_against(record, toy_repository, runtime_of(record.product)) == ()
        assert record.parity is not None
        assert record.command.startswith("sensorium compile ")
        assert min(chosen[record.graph]["shares"].values()) >= 0.95
    assert (tmp_path / "bars.png").stat().st_size > 1000
    assert {path: digest(path) for path in before} == before


def test_the_fastest_that_is_right_is_chosen(search: Search) -> None:
    """The fastest within the budget is served; slower ones are not even judged."""
    found = search.of_stage(STAGE)

    assert found.chosen is not None
    assert found.chosen.name == "int8 by onnxruntime"
    assert outcome(found)["fp32 by openvino"].startswith("slower than another")
    assert min(found.chosen.shares.values()) >= 0.95


def test_a_planted_fault_is_passed_over(search: Search, monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine whose weights are wrong is not served, however fast it is; the next one is."""
    real = CpuProduct.build

    def build(product: CpuProduct, graph: GraphFile, plan: BuildPlan) -> bytes:
        made = real(product, graph, plan)
        return wrong(made) if (product.name, plan.precision) == ("onnxruntime", "int8") else made

    monkeypatch.setattr(CpuProduct, "build", build)
    found = search.of_stage(STAGE)

    assert found.chosen is not None
    assert found.chosen.name == "fp32 by openvino"
    assert outcome(found)["int8 by onnxruntime"] == "its outputs differ too much"


def wrong(engine: bytes) -> bytes:
    """Return a graph in which every number of the weights has another sign."""
    model = onnx.load_from_string(engine)
    for weights in model.graph.initializer:
        array = numpy_helper.to_array(weights)
        if array.dtype == np.float32:
            weights.CopyFrom(numpy_helper.from_array(-array, weights.name))
    return bytes(model.SerializeToString())


def test_answers_count_as_well_as_outputs(search: Search, monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine whose outputs are near, but with which a task answers otherwise, is passed over."""
    real = Evidence.share_alike

    def share(self: Evidence, chain: ServingChain, task: str, precision: str) -> float:
        is_changed = precision == "int8" and task == "text_embedding"
        return 0.9 if is_changed else real(self, chain, task, precision)

    monkeypatch.setattr(Evidence, "share_alike", share)
    found = search.of_stage(STAGE)

    assert found.chosen is not None
    assert found.chosen.name == "fp32 by openvino"
    assert outcome(found)["int8 by onnxruntime"] == ("text_embedding: only 90 % answered alike")


def test_what_cannot_be_built_is_told(search: Search, monkeypatch: pytest.MonkeyPatch) -> None:
    """A candidate that fails in any way is out with its reason; without any, ONNX serves on."""

    def fail(*_: object) -> bytes:
        raise ValueError("node relu_3 has no kernel\nand more")

    monkeypatch.setattr(CpuProduct, "build", fail)
    found = search.of_stage(STAGE)

    assert found.chosen is None
    assert set(outcome(found).values()) == {"node relu_3 has no kernel"}
    with pytest.raises(ConfigurationError, match="nothing to draw"):
        plot_search([found], "bars.png")


def test_a_chosen_engine_stays_for_the_next_stage(search: Search) -> None:
    """Later stages are judged with the engines that were chosen before them in place."""
    exported = dict(search.chain._runs)
    search.of_stage(STAGE)

    assert search.chain._runs[STAGE] is not exported[STAGE]
    assert search.chain._runs["fusion"] is exported["fusion"]


def test_speeds_are_medians_of_paired_rounds(search: Search) -> None:
    """Each run is timed once a round; a run that computes four times as much is slower."""
    once = search.chain.opened("fusion", search.chain.stage_config("fusion"))
    inputs = [run.inputs for run in search.evidence.of_stage("fusion")]

    def often(requests: Sequence[Tensors]) -> list[Tensors]:
        return [once(requests) for _ in range(8)][-1]

    (slow, same) = search._speeds([once, often, once], [inputs] * 4)

    assert slow < 0.6
    assert same > slow


def test_reports_show_every_candidate(search: Search) -> None:
    """The table has a row for each, with what became of it."""
    found = search.of_stage(STAGE)
    shown = rows([found])

    assert len(shown) == len(found.candidates) == table_from([found]).row_count
    assert {len(row) for row in shown} == {len(HEADER)}
    assert [row[-1] for row in shown].count("served") == 1


def test_other_graphs_and_precisions_are_refused(evidence: Evidence) -> None:
    """Each product says what it does not build, and what it needs."""
    signature = product_named("onnxruntime")
    graph = GraphFile("fusion", {}, {"a": b"", "a.data": b""}, {})  # type: ignore[arg-type] # unread
    one = GraphFile("fusion", {}, {"a": b""}, {})  # type: ignore[arg-type] # unread
    static = CpuProduct("onnxruntime", ("int8_static",))
    for product, given, precision, words in (
        (signature, graph, "fp32", "more weights than one file"),
        (signature, one, "bf16", "builds fp32, int8, not bf16"),
        (static, one, "int8_static", "needs inputs to calibrate"),
    ):
        with pytest.raises(ConfigurationError, match=words):
            product.build(given, BuildPlan(precision, ()))

    assert "not for 9.0" in product_named("openvino").why_unavailable("9.0")
    assert evidence.reference == "onnx"


def test_pytorch_is_the_reference_of_a_checkpoint() -> None:
    """With a checkpoint its answers and its tolerances are what engines are held against."""
    source = open_source(ROOT / "checkpoints/playroom", "")
    repository = ROOT / "model_repository"
    found = evidence_from(repository, "", load({"repository": repository}), 1, source)

    assert found.reference == "pytorch"
    assert found.tolerances["fp32"] == source.recipe.tolerance
    assert found.of_stage("fusion")


def test_a_missing_bundle_is_told(toy_repository: Path) -> None:
    """The bundles that are there are named."""
    assert manifest_of(toy_repository, "") == "toy"
    with pytest.raises(ConfigurationError, match="no bundle 'second'; those that it has: toy"):
        manifest_of(toy_repository, "second")


def test_the_server_builds_by_this_verb(toy_repository: Path, tmp_path: Path) -> None:
    """The builder of a running server is the real verb in a child, without a checkpoint."""
    cache = EngineCache(tmp_path)
    entry = EngineBuild(cache).entry("key", toy_repository, "toy", "cpu")

    assert entry is not None
    for record in read_records(entry, "toy"):
        assert digest(entry / record.file) == record.digest
        assert record.parity is not None
        assert record.parity.reference == "onnx"
