"""The fastest engine of each network that answers like the reference: built, timed and judged.

Candidates of a stage are timed side by side, each once in every round, by the processor time of
this process: what else the machine does is the same for all. The fastest is tried first. It must
keep the stage's tolerance on real inputs, and then, in the place of the exported graph and with the
engines that were chosen before it, the share of task answers. The first that does is the stage's.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import geometric_mean, median

from sensorium.contract import STAGES, model_name
from sensorium_export.compare import difference, least_cosine
from sensorium_export.engines import BuildPlan, GraphFile
from sensorium_export.engines.cpu import CpuProduct, calibrated_products
from sensorium_export.engines.evidence import Evidence
from sensorium_export.ensembles import NETWORKS
from sensorium_export.serving_chain import ServingChain
from sensorium_export.tolerance import Tolerance
from sensorium_server.engine_record import EngineParity
from sensorium_server.stages import StageConfig, Tensors
from sensorium_server.swap.engine_config import cpu_parameters

LEAST_GAIN = 1.03
"""What an engine must be faster by; below, the noise of the measurement decides."""

LEAST_START_GAIN = 1.2
"""What it must start faster by, when it runs as fast as what was exported."""

BATCHES = (1, 8)
_CALIBRATED_ON = 32
_LOADS = 3
_FILE = "model.onnx"
_NO_PROFILES = ()

Run = Callable[[Sequence[Tensors]], list[Tensors]]
Advance = Callable[[str], None]


@dataclass(slots=True)
class Candidate:
    """A way to serve a stage, and what was found; factors are of the exported graph's.

    `speed` is by the number of rows in a batch. `shares` are of each task's inputs that were
    answered like the reference; empty where the stage's tolerance was missed already, or a faster
    one was taken.
    """

    product: CpuProduct
    precision: str
    engine: bytes = b""
    build_s: float = 0.0
    problem: str = ""
    start: float = 0.0
    speed: dict[int, float] = field(default_factory=dict)
    parity: EngineParity | None = None
    shares: dict[str, float] = field(default_factory=dict)
    is_chosen: bool = False

    @property
    def name(self) -> str:
        """What reports call it."""
        return f"{self.precision} by {self.product.name}"

    @property
    def gain(self) -> float:
        """The least of its speeds, at any size of batch."""
        return min(self.speed.values(), default=0.0)

    @property
    def usual_gain(self) -> float:
        """Its speed over all sizes of batch, as their geometric mean."""
        return geometric_mean(self.speed.values()) if self.speed else 0.0


@dataclass(frozen=True, slots=True)
class StageSearch:
    """What was found for one stage."""

    stage: str
    graph: GraphFile
    candidates: tuple[Candidate, ...]

    @property
    def chosen(self) -> Candidate | None:
        """The candidate that is served; None when nothing beats what was exported."""
        return next((one for one in self.candidates if one.is_chosen), None)


@dataclass(frozen=True, slots=True)
class Search:
    """Searches one repository's bundle; `bundle` is the prefix of its models."""

    repository: Path
    bundle: str
    chain: ServingChain
    evidence: Evidence
    scratch: Path
    rounds: int = 5
    advance: Advance = lambda _doing: None

    def stages(self) -> list[str]:
        """Return the stages that can have an engine, in the order in which data flows."""
        return [stage for stage in NETWORKS if self.evidence.of_stage(stage)]

    def of_stage(self, stage: str) -> StageSearch:
        """Build, time and judge a stage's candidates; the chosen one stays in the chain."""
        runs = self.evidence.of_stage(stage)
        graph = self._graph(stage)
        products = calibrated_products([run.inputs for run in runs[:_CALIBRATED_ON]])
        candidates = tuple(
            self._built(graph, Candidate(product, precision), runs[0].inputs)
            for product in products
            for precision in product.precisions
        )
        sound = [one for one in candidates if not one.problem]
        self.advance(f"{stage}: timing {len(sound)} candidates")
        self._time(stage, sound, [run.inputs for run in runs])
        for candidate in sorted(sound, key=_preference, reverse=True):
            if not _is_worth_it(candidate):
                break
            self.advance(f"{stage}: judging {candidate.name}")
            if self._is_alike(stage, candidate):
                candidate.is_chosen = True
                break
            self.chain.substitute(stage)
        return StageSearch(stage, graph, candidates)

    def _graph(self, stage: str) -> GraphFile:
        folder = f"{model_name(stage, self.bundle)}/1"
        files = {
            f"{folder}/{path.name}": path.read_bytes()
            for path in sorted((self.repository / folder).iterdir())
            if path.name == _FILE or path.name.startswith(f"{_FILE}.")
        }
        return GraphFile(stage, STAGES[stage], files, {})

    def _built(self, graph: GraphFile, candidate: Candidate, inputs: Tensors) -> Candidate:
        """Build a candidate and run it once; whatever goes wrong is its problem alone."""
        self.advance(f"{graph.name}: building {candidate.name}")
        candidate.problem = candidate.product.why_unavailable()
        if candidate.problem:
            return candidate
        start = time.monotonic()
        try:
            plan = BuildPlan(candidate.precision, _NO_PROFILES)
            candidate.engine = candidate.product.build(graph, plan)
            self.chain.opened(graph.name, self._config(graph.name, candidate))([inputs])
        except Exception as error:  # noqa: BLE001 - quantisers and compilers fail in many ways
            candidate.problem = str(error).splitlines()[0] if str(error) else repr(error)
        candidate.build_s = time.monotonic() - start
        return candidate

    def _config(self, stage: str, candidate: Candidate) -> StageConfig:
        """Return how the server would load a candidate."""
        folder = self.scratch / stage / f"{candidate.product.name}-{candidate.precision}"
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / _FILE).exists():
            (folder / _FILE).write_bytes(candidate.engine)
        exported = self.chain.stage_config(stage).parameters
        parameters = cpu_parameters(candidate.product.name, candidate.precision)
        return StageConfig(stage, folder, {**exported, **parameters})

    def _time(self, stage: str, candidates: Sequence[Candidate], inputs: Sequence[Tensors]) -> None:
        """Measure how fast all candidates start and run, beside what was exported."""
        configs = [
            self.chain.stage_config(stage),
            *(self._config(stage, one) for one in candidates),
        ]
        starts = [[float("inf")] for _ in configs]
        runs: list[Run] = []
        for _ in range(_LOADS):
            runs = []
            for index, config in enumerate(configs):
                began = time.process_time()
                runs.append(self.chain.opened(stage, config))
                starts[index].append(time.process_time() - began)
        for candidate, taken in zip(candidates, starts[1:], strict=True):
            candidate.start = min(starts[0]) / min(taken)
        for size in BATCHES:
            batches = [inputs[at : at + size] for at in range(0, len(inputs), size)]
            for candidate, speed in zip(candidates, self._speeds(runs, batches), strict=True):
                candidate.speed[size] = speed

    def _speeds(self, runs: Sequence[Run], batches: Sequence[Sequence[Tensors]]) -> list[float]:
        """Return how much faster each run is than the first: the median of all rounds."""
        factors: list[list[float]] = [[] for _ in runs[1:]]
        for number in range(self.rounds + 1):
            taken = [0.0] * len(runs)
            for offset in range(len(runs)):
                index = (number + offset) % len(runs)
                began = time.process_time()
                for batch in batches:
                    runs[index](batch)
                taken[index] = time.process_time() - began
            if number:  # the first round warms up
                for factor, one in zip(factors, taken[1:], strict=True):
                    factor.append(taken[0] / one)
        return [median(factor) for factor in factors]

    def _is_alike(self, stage: str, candidate: Candidate) -> bool:
        """Judge a candidate by its stage's outputs, then by the answers of all tasks with it."""
        budget = candidate.precision.partition("_")[0]
        tolerance = self.evidence.tolerances[budget]
        self.chain.substitute(stage, self._config(stage, candidate))
        candidate.parity = self._stage_parity(stage, tolerance)
        if not candidate.parity.passed:
            return False
        for task in self.evidence.tasks_with(self.chain, stage):
            candidate.shares[task] = self.evidence.share_alike(self.chain, task, budget)
            if candidate.shares[task] < tolerance.agreement:
                return False
        return True

    def _stage_parity(self, stage: str, tolerance: Tolerance) -> EngineParity:
        cosines, largest, failures, runs = [1.0], 0.0, [], self.evidence.of_stage(stage)
        alike = 0
        for number, run in enumerate(runs):
            (found,) = self.chain.stage(stage, [run.inputs])
            problems = []
            for name, array in run.outputs.items():
                one = difference(name, array, found.get(name), tolerance.stage)
                largest = max(largest, one.max_rel)
                cosine = 1.0
                if array.dtype.kind == "f" and not one.reason:
                    cosine = least_cosine(array, found[name])
                    cosines.append(cosine)
                if not one.is_within or cosine < (tolerance.stage_cosine or -1):
                    problems.append(f"input {number}, {one}, cosine {cosine:.6f}")
            alike += not problems
            failures += problems
        return EngineParity(
            passed=alike >= tolerance.agreement * len(runs),
            reference=self.evidence.reference,
            cases=len(runs),
            cosine=round(min(cosines), 7),
            max_rel=float(f"{min(largest, _LARGEST):.2e}"),
            failures=tuple(failures[:_SHOWN]),
        )


_LARGEST = 1e30
"""What stands for an infinite difference, which JSON does not have."""

_SHOWN = 3


def _preference(candidate: Candidate) -> tuple[float, float]:
    """Order by speed, and what is as fast as the exported graph by how soon it starts."""
    gain = candidate.gain
    return (gain if gain >= LEAST_GAIN else 1.0, candidate.start)


def _is_worth_it(candidate: Candidate) -> bool:
    if candidate.gain >= LEAST_GAIN:
        return True
    return candidate.usual_gain >= 1 / LEAST_GAIN and candidate.start >= LEAST_START_GAIN
