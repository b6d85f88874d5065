"""From a published repository to proven engines beside its ONNX files.

A graph is compiled, run in every corner of its profiles against PyTorch, and published with its
record. One that fails in its precision is built again with the nodes in fp32 that need it. What a
product refuses, or what is not PyTorch's even then, is told, and its ONNX file goes on serving.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from sensorium.contract import model_name
from sensorium.errors import ConfigurationError
from sensorium_export.engines import BuildPlan, GraphFile, Product, Progress, no_progress
from sensorium_export.engines.bisection import Kept, kept_nodes
from sensorium_export.engines.fp8_graph import largest_values
from sensorium_export.engines.parity import Expectation, engine_parity, expectations, seconds_for
from sensorium_export.engines.profile import Limits, profiles_for
from sensorium_export.engines.publication import publish_engine
from sensorium_export.engines.typed_graph import lowerable
from sensorium_export.graphs import Graph, graphs_of
from sensorium_export.onnx_graph import WEIGHTS_SUFFIX, onnx_from_files
from sensorium_export.recipe import Recipe
from sensorium_export.seeded_inputs import Array
from sensorium_export.source import Source
from sensorium_export.tolerance import FP8, FP32
from sensorium_server.engine_record import EngineParity, EngineRecord

_USUAL_PLAN = BuildPlan(FP32, ())
_USUAL_LIMITS = Limits()

GraphDone = Callable[[str, int], None]
"""Told a graph that is done, and how many there are."""


@dataclass(frozen=True, slots=True)
class CompileOptions:
    """What to compile, and how.

    `precision` has that of every graph that is compiled, by its name. `command` is what to call to
    do it again. `plan` has what is the same for all graphs: its profiles and its precision do not
    count, and its timing cache is that of `timing_caches`, a directory. `rebuilds` is the most
    engines that a search for nodes in fp32 may build. `adopt` proves the engine files that are
    there instead of building any. `calibration` has inputs of stages, from real media, by the name
    of the stage; fp8 takes its scales from them.
    """

    repository: Path
    precision: Mapping[str, str]
    command: str
    plan: BuildPlan = _USUAL_PLAN
    timing_caches: Path | None = None
    rebuilds: int = 40
    adopt: bool = False
    limits: Limits = _USUAL_LIMITS
    calibration: Mapping[str, Sequence[Mapping[str, Array]]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Compiled:
    """What became of one graph: its record, or why it has no engine."""

    graph: str
    record: EngineRecord | None
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Engine:
    """An engine that was built, and how it was judged; `parity` is None if it cannot run here."""

    data: bytes
    plan: BuildPlan
    build_s: float
    parity: EngineParity | None = None

    @property
    def has_passed(self) -> bool:
        """Whether it is proven."""
        return self.parity is not None and self.parity.passed


def compile_bundle(
    source: Source,
    product: Product,
    options: CompileOptions,
    progress: Progress = no_progress,
    done: GraphDone = lambda _graph, _count: None,
) -> tuple[Compiled, ...]:
    """Compile graphs of a published bundle, and publish the engines that are right.

    Args:
        source: The checkpoint that the bundle was made of.
        product: What compiles.
        options: What to compile, and how.
        progress: Told what a builder is doing.
        done: Told each graph that is done.

    Raises:
        ConfigurationError: The product cannot build here, or not for that target.
    """
    if reason := product.why_unavailable(options.plan.compute_capability):
        raise ConfigurationError(reason)
    compiled = []
    for graph in wanted_graphs(source.recipe, options):
        try:
            record = _Compiler(source, product, options, graph, progress).compile()
            compiled.append(Compiled(graph.name, record))
        except ConfigurationError as error:
            compiled.append(Compiled(graph.name, None, str(error)))
        done(graph.name, len(options.precision))
    return tuple(compiled)


def wanted_graphs(recipe: Recipe, options: CompileOptions) -> tuple[Graph, ...]:
    """Return the graphs that are compiled."""
    return tuple(graph for graph in graphs_of(recipe) if graph.name in options.precision)


def graph_file(repository: Path, recipe: Recipe, graph: Graph) -> GraphFile:
    """Read a published graph.

    Raises:
        ConfigurationError: It is not in the repository.
    """
    path = model_name(graph.path, recipe.bundle)
    if not (repository / path).is_file():
        raise ConfigurationError(f"{path} is not in {repository.name}. Export the bundle first.")
    paths = [path, f"{path}{WEIGHTS_SUFFIX}"]
    files = {one: (repository / one).read_bytes() for one in paths if (repository / one).is_file()}
    return GraphFile(graph.name, graph.signature, files, recipe.sizes)


def plan_for(
    graph: Graph, file: GraphFile, recipe: Recipe, product: Product, options: CompileOptions
) -> BuildPlan:
    """Return how to build a graph.

    Raises:
        ConfigurationError: It shall be in fp8, and there is nothing to calibrate it on.
    """
    cache = None
    if options.timing_caches is not None:
        target = product.target(options.plan.compute_capability)
        words = (product.name, product.version(), target.device, target.compute_capability)
        name = "-".join(word.replace(" ", "_").replace("/", "_") for word in words if word)
        cache = options.timing_caches / f"{name}.cache"
    precision = options.precision[graph.name]
    is_scaled = precision == FP8 and not options.adopt
    return replace(
        options.plan,
        precision=precision,
        profiles=profiles_for(graph, recipe, options.limits),
        largest=_calibrated(file, options) if is_scaled else {},
        timing_cache=cache,
    )


def _calibrated(file: GraphFile, options: CompileOptions) -> Mapping[str, float]:
    inputs = options.calibration.get(file.name, ())
    if not inputs:
        raise ConfigurationError(
            f"{file.name} in fp8 needs inputs from real media for its scales, and only stages that "
            f"are one graph have them. Choose another --precision for it: {file.name}=bf16"
        )
    return largest_values(file.files, inputs)


@dataclass(frozen=True, slots=True)
class _Compiler:
    """One graph on its way."""

    source: Source
    product: Product
    options: CompileOptions
    graph: Graph
    progress: Progress

    def compile(self) -> EngineRecord:
        """Build, judge, build again where needed, publish."""
        recipe, options = self.source.recipe, self.options
        file = graph_file(options.repository, recipe, self.graph)
        plan = plan_for(self.graph, file, recipe, self.product, options)
        engine = self._adopted(file, plan) if options.adopt else self._built(file, plan)
        reason = self.product.why_not_runnable()
        if options.adopt and reason:
            raise ConfigurationError(f"its engine cannot be proven here: {reason}")
        if options.plan.compute_capability or reason:
            return self._published(file, engine)
        expected = expectations(self.graph, self.source.model, recipe, plan.profiles)
        engine = self._judged(file, engine, expected)
        if engine.has_passed:
            return self._published(file, engine)
        kept = None if options.adopt else self._kept(file, plan, expected)
        if kept is None:
            raise ConfigurationError(self._why_wrong(engine))
        return self._published(file, kept.trial, self._cost(file, engine, kept.trial, expected))

    def _built(self, file: GraphFile, plan: BuildPlan) -> Engine:
        start = time.monotonic()
        data = self.product.build(file, plan, self.progress)
        return Engine(data, plan, time.monotonic() - start)

    def _adopted(self, file: GraphFile, plan: BuildPlan) -> Engine:
        path = file.engine_path(self.product.suffix)
        if not (self.options.repository / path).is_file():
            raise ConfigurationError(f"{path} is not in {self.options.repository.name}")
        return Engine((self.options.repository / path).read_bytes(), plan, build_s=0.0)

    def _judged(self, file: GraphFile, engine: Engine, expected: Sequence[Expectation]) -> Engine:
        precision, recipe = engine.plan.precision, self.source.recipe
        tolerance = recipe.tolerance if precision == FP32 else recipe.drift[precision]
        with self.product.runner(file, engine.data, engine.plan) as run:
            return replace(engine, parity=engine_parity(expected, run, tolerance))

    def _kept(
        self, file: GraphFile, plan: BuildPlan, expected: Sequence[Expectation]
    ) -> Kept[Engine] | None:
        """Search the nodes that need fp32, by building with more and fewer of them."""
        if not plan.rounds:
            return None

        def attempt(nodes: frozenset[str]) -> Engine | None:
            built = self._judged(file, self._built(file, replace(plan, kept=nodes)), expected)
            return built if built.has_passed else None

        return kept_nodes(lowerable(onnx_from_files(file.files)), attempt, self.options.rebuilds)

    def _cost(
        self, file: GraphFile, without: Engine, engine: Engine, expected: Sequence[Expectation]
    ) -> float:
        """Return how much slower the nodes in fp32 make the engine, as a factor."""
        with (
            self.product.runner(file, without.data, without.plan) as faster,
            self.product.runner(file, engine.data, engine.plan) as slower,
        ):
            fast, slow = seconds_for(expected, (faster, slower))
        return round(slow / fast, 3)

    def _why_wrong(self, engine: Engine) -> str:
        failures = engine.parity.failures if engine.parity is not None else ()
        tried = "" if self.options.adopt else ", also with every node in fp32"
        listed = "".join(f"\n  {failure}" for failure in failures)
        return (
            f"the engine of {self.graph.name} in {engine.plan.precision} is not PyTorch's{tried}:"
            f"{listed}\nChoose another --precision for it."
        )

    def _published(self, file: GraphFile, engine: Engine, cost: float = 1.0) -> EngineRecord:
        plan, options, product = engine.plan, self.options, self.product
        return publish_engine(
            options.repository,
            self.source.recipe.name,
            file,
            engine.data,
            lambda digest, onnx: EngineRecord(
                graph=file.name,
                file=file.engine_path(product.suffix),
                digest=digest,
                onnx=onnx,
                product=product.name,
                version=product.version(),
                target=product.target(plan.compute_capability),
                compatibility=plan.compatibility,
                precision=plan.precision,
                stripped=plan.strip_weights,
                profiles=plan.profiles,
                kept=tuple(sorted(plan.kept)),
                cost=cost,
                build_s=round(engine.build_s, 1),
                command=options.command,
                parity=engine.parity,
            ),
        )
