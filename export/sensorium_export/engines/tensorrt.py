"""TensorRT (10 and 11) and TensorRT-RTX, whose Python interfaces are one as far as it is used here.

Networks are strongly typed: the graph's own types say what is computed in which precision, so it is
put into the precision before (`typed_graph`). TensorRT tries kernels on the GPU while it builds,
and needs it; TensorRT-RTX does not, and builds for any GPU that it knows.
"""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from sensorium.errors import ConfigurationError
from sensorium_export.engines import (
    BuildPlan,
    GraphFile,
    NodeProblem,
    Progress,
    Runner,
    no_progress,
)
from sensorium_export.engines.fp8_graph import fp8_graph
from sensorium_export.engines.profile import shape_in
from sensorium_export.engines.tensorrt_log import BuildLog, monitor_for, talk_on_stderr
from sensorium_export.engines.typed_graph import typed_graph
from sensorium_export.onnx_graph import files_from_onnx, onnx_from_files
from sensorium_export.tolerance import FP8
from sensorium_server.atomic_file import write_bytes
from sensorium_server.engine_gate import Compatibility
from sensorium_server.engine_record import Target
from sensorium_server.gpu import this_gpu

_FIRST_FP8 = (8, 9)
"""The first compute capability whose matrix units know fp8."""

_LEVELS = {
    Compatibility.AMPERE_PLUS: "AMPERE_PLUS",
    Compatibility.SAME_COMPUTE_CAPABILITY: "SAME_COMPUTE_CAPABILITY",
}


@dataclass(frozen=True, slots=True)
class TensorRtProduct:
    """One of the two; `modules` are where its Python interface may be, the first one found counts.

    `builds_anywhere` is whether it builds without a GPU, for one that is named; `measures_kernels`
    whether it tries them while it builds, which a timing cache makes shorter.
    """

    name: str
    suffix: str
    modules: tuple[str, ...]
    install: str
    builds_anywhere: bool
    measures_kernels: bool
    precisions: tuple[str, ...] = ("fp32", "tf32", "fp16", "bf16", "fp8")

    def why_unavailable(self, compute_capability: str = "") -> str:
        """Say why it cannot build here."""
        if not self._module_name:
            return f"{self.name} is not installed. Install it with: {self.install}"
        try:
            self.api()
        except ConfigurationError as error:
            return str(error)
        if not compute_capability:
            return self._why_no_gpu()
        if not self.builds_anywhere:
            return (
                f"compute_capability = {compute_capability}: {self.name} builds for the GPU of "
                f"this machine only. Build there, or for TensorRT-RTX: --profile rtx"
            )
        known = self._capabilities()
        if compute_capability not in known:
            return (
                f"compute_capability = {compute_capability}: {self.name} builds for "
                f"{', '.join(known)}"
            )
        return ""

    def why_not_runnable(self) -> str:
        """Say why it cannot run an engine here."""
        import torch  # noqa: PLC0415 - slow to import

        if not torch.cuda.is_available():
            return self._why_no_gpu() or (
                "PyTorch, which holds the tensors of a comparison, was built without CUDA"
            )
        return self.why_unavailable()

    def version(self) -> str:
        """Return its version."""
        return str(self.api().__version__)

    def target(self, compute_capability: str = "") -> Target:
        """Return this machine's GPU, or any of a compute capability."""
        if compute_capability:
            return Target("", compute_capability)
        gpu = this_gpu()
        if gpu is None:
            raise ConfigurationError(self._why_no_gpu())
        return gpu

    def problems(self, graph: GraphFile) -> tuple[NodeProblem, ...]:
        """Parse a graph, and return what is refused."""
        log = BuildLog(self.api())
        builder = self.api().Builder(log.logger)
        return self._parse(self._network(builder), log, graph.files)[1]

    def build(self, graph: GraphFile, plan: BuildPlan, progress: Progress = no_progress) -> bytes:
        """Compile a graph; the same for the same versions, but for measured choices of kernels."""
        self._check(graph, plan)
        api, log = self.api(), BuildLog(self.api())
        builder = api.Builder(log.logger)
        network = self._network(builder)
        parser, problems = self._parse(network, log, typed_files(graph, plan))
        if problems:
            listed = "".join(f"\n  {problem}" for problem in problems)
            raise ConfigurationError(f"{self.name} refuses {graph.name}:{listed}")
        with self._config(builder, graph, plan) as config:
            monitor = monitor_for(api, progress)
            config.progress_monitor = monitor
            with talk_on_stderr():
                engine = builder.build_serialized_network(network, config)
            monitor.raise_what_stopped_it()
        del parser  # it owns the weights that the network points to
        if engine is None:
            raise ConfigurationError(self._why_not_built(graph, plan, log))
        return bytes(engine)

    def runner(
        self, graph: GraphFile, engine: bytes, plan: BuildPlan
    ) -> AbstractContextManager[Runner]:
        """Load an engine onto this machine's GPU."""
        if reason := self.why_not_runnable():
            raise ConfigurationError(f"the engine of {graph.name} cannot be run here: {reason}")
        from sensorium_export.engines.tensorrt_runner import (  # noqa: PLC0415 - imports PyTorch
            loaded,
        )

        return loaded(self.api(), graph, engine, plan)

    def api(self) -> Any:  # noqa: ANN401 - a module that is there or not
        """Return the product's Python module.

        Raises:
            ConfigurationError: It is not installed, or its libraries cannot be loaded.
        """
        name = self._module_name
        if not name:
            raise ConfigurationError(self.why_unavailable())
        try:
            return import_module(name)
        except (ImportError, OSError) as error:
            raise ConfigurationError(
                f"{self.name} is installed, and its libraries cannot be loaded: {error}. "
                f"Install it again with: {self.install}"
            ) from error

    @property
    def _module_name(self) -> str:
        return next((name for name in self.modules if find_spec(name)), "")

    def _why_no_gpu(self) -> str:
        if this_gpu() is not None:
            return ""
        way_out = (
            ". Name a GPU to build for: --compute-capability 8.6" if self.builds_anywhere else ""
        )
        return f"this machine has no NVIDIA GPU that its driver knows{way_out}"

    def _check(self, graph: GraphFile, plan: BuildPlan) -> None:
        problems = [self.why_unavailable(plan.compute_capability)]
        if plan.precision not in self.precisions:
            problems.append(f"precision {plan.precision} is none of {', '.join(self.precisions)}")
        if plan.precision == FP8 and not any(problems):
            problems.append(_why_no_fp8(self.target(plan.compute_capability)))
        if plan.strip_weights and plan.rounds:
            problems.append(
                f"strip_weights needs the weights of the ONNX file as they are, and "
                f"{plan.precision} rounds them; choose fp32 or tf32, or keep the weights"
            )
        if any(problems):
            raise ConfigurationError(f"{graph.name}: {'; '.join(filter(None, problems))}")

    def _network(self, builder: Any) -> Any:  # noqa: ANN401
        flags = self.api().NetworkDefinitionCreationFlag.__members__
        # In TensorRT 11 all networks are strongly typed, and a later one may lose the flag.
        return builder.create_network(
            1 << int(flags["STRONGLY_TYPED"]) if "STRONGLY_TYPED" in flags else 0
        )

    def _parse(
        self,
        network: Any,  # noqa: ANN401
        log: BuildLog,
        files: Mapping[str, bytes],
    ) -> tuple[Any, tuple[NodeProblem, ...]]:
        parser = self.api().OnnxParser(network, log.logger)
        if len(files) == 1:
            parser.parse(*files.values())
        else:
            with TemporaryDirectory() as directory:
                paths = [Path(directory, Path(path).name) for path in files]
                for path, data in zip(paths, files.values(), strict=True):
                    path.write_bytes(data)
                parser.parse_from_file(str(paths[0]))
        errors = [parser.get_error(index) for index in range(parser.num_errors)]
        return parser, tuple(
            NodeProblem(error.node_name(), error.node_operator(), error.desc()) for error in errors
        )

    @contextmanager
    def _config(
        self,
        builder: Any,  # noqa: ANN401
        graph: GraphFile,
        plan: BuildPlan,
    ) -> Iterator[Any]:
        """Give the builder's config; keep what it learned about kernels, when it has built."""
        config = builder.create_builder_config()
        self._set_flags(config, plan)
        if plan.workspace_bytes:
            pool = self.api().MemoryPoolType.WORKSPACE
            config.set_memory_pool_limit(pool, plan.workspace_bytes)
        if plan.compute_capability:
            config.num_compute_capabilities = 1
            config.set_compute_capability(self._capabilities()[plan.compute_capability], 0)
        for ranges in plan.profiles:
            profile = builder.create_optimization_profile()
            for spec in graph.signature.inputs:
                shapes = [shape_in(graph, spec, ranges, corner) for corner in range(3)]
                profile.set_shape(spec.name, *shapes)
            config.add_optimization_profile(profile)
        if plan.timing_cache is None or not self.measures_kernels:
            yield config
            return
        cache = self._open_cache(config, plan.timing_cache)
        yield config
        plan.timing_cache.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(plan.timing_cache, bytes(cache.serialize()))

    def _set_flags(self, config: Any, plan: BuildPlan) -> None:  # noqa: ANN401
        flags = self.api().BuilderFlag
        if plan.precision == "tf32":
            config.set_flag(flags.TF32)
        else:
            config.clear_flag(flags.TF32)
        if Compatibility.VERSION in plan.compatibility:
            config.set_flag(flags.VERSION_COMPATIBLE)
        if plan.strip_weights:
            config.set_flag(flags.STRIP_PLAN)
            config.set_flag(flags.REFIT_IDENTICAL)
        for level, name in _LEVELS.items():
            if level in plan.compatibility:
                levels = self.api().HardwareCompatibilityLevel
                config.hardware_compatibility_level = getattr(levels, name)

    def _open_cache(self, config: Any, path: Path) -> Any:  # noqa: ANN401
        """Give the builder what was measured before; what another version measured is no use."""
        data = path.read_bytes() if path.is_file() else b""
        cache = config.create_timing_cache(data)
        if cache is None or not config.set_timing_cache(cache, ignore_mismatch=False):
            cache = config.create_timing_cache(b"")
            config.set_timing_cache(cache, ignore_mismatch=False)
        return cache

    def _capabilities(self) -> dict[str, Any]:
        """Return what it builds for without a GPU, by compute capability."""
        known = self.api().ComputeCapability.__members__
        return {f"{one[2:-1]}.{one[-1]}": known[one] for one in known if one.startswith("SM")}

    def _why_not_built(self, graph: GraphFile, plan: BuildPlan, log: BuildLog) -> str:
        said = "".join(f"\n  {line}" for line in log.errors) or "\n  it did not say why"
        profiles = "; ".join(map(_words_of, plan.profiles))
        return (
            f"{self.name} {self.version()} cannot build {graph.name} in {plan.precision} "
            f"({profiles}):{said}"
            f"\nChoose another --precision for it, or more memory with --workspace-mib."
        )


def typed_files(graph: GraphFile, plan: BuildPlan) -> dict[str, bytes]:
    """Return a graph's ONNX files in a plan's precision."""
    if not plan.rounds:
        return dict(graph.files)
    model = onnx_from_files(graph.files)
    if plan.precision == FP8:
        return files_from_onnx(fp8_graph(model, plan.largest, plan.kept), graph.path)
    return files_from_onnx(typed_graph(model, plan.precision, plan.kept), graph.path)


def _why_no_fp8(target: Target) -> str:
    numbers = tuple(int(number) for number in target.compute_capability.split("."))
    if numbers >= _FIRST_FP8:
        return ""
    return (
        f"precision fp8 needs compute capability {'.'.join(map(str, _FIRST_FP8))} or later, and "
        f"the engine is for {target.compute_capability}; choose bf16"
    )


def _words_of(ranges: Mapping[str, tuple[int, int, int]]) -> str:
    return ", ".join(f"{axis} {'/'.join(map(str, one))}" for axis, one in ranges.items())


TENSORRT = TensorRtProduct(
    name="tensorrt",
    suffix=".plan",
    modules=("tensorrt",),
    install="pip install tensorrt (NVIDIA's index), or use NVIDIA's Triton container",
    builds_anywhere=False,
    measures_kernels=True,
)
TENSORRT_RTX = TensorRtProduct(
    name="tensorrt_rtx",
    suffix=".rtx",
    modules=("tensorrt_rtx", "tensorrt_rtx_bindings"),
    install="pip install 'sensorium[rtx]'",
    builds_anywhere=True,
    measures_kernels=False,
)
