"""What runs each stage here: a proven TensorRT plan, ONNX Runtime on the GPU, or on the processor.

`device = "gpu"` is a wish. What is there decides, stage by stage, and is told at the start:

    no GPU ────────────────────────────▶ ONNX Runtime on the processor
    Triton's own TensorRT ─────────────▶ its plan
    a proven plan, and what runs it ───▶ its plan
    onnxruntime-gpu ───────────────────▶ ONNX Runtime on CUDA

The launcher tells by `placements` what the backends do by `usable_plans`.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from types import MappingProxyType
from typing import Any

from sensorium.errors import ConfigurationError
from sensorium_server.engine_gate import EngineRuntime, reasons_against
from sensorium_server.engine_record import ENGINES_SUFFIX, EngineRecord, Target, read_records
from sensorium_server.gpu import Gpu, found_gpus
from sensorium_server.onnx_provider import CUDA, installed_providers
from sensorium_server.settings import Settings

NATIVE_VARIANT = "gpu"
"""The configs for NVIDIA's container, whose backend `tensorrt` is a library."""

WHEEL_VARIANT = "gpu_wheel"
"""The configs for the packaged Triton, with the backend `tensorrt` of this package."""

PLAN_FILE = "model.plan"
PLAN_BACKENDS = ("tensorrt", "decoder", "diffusion")
"""The backends that run plans."""

PRODUCTS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {"tensorrt": ("tensorrt",), "tensorrt_rtx": ("tensorrt_rtx", "tensorrt_rtx_bindings")}
)
"""Where the packages are that run a plan, by their names in the engines' records; best first."""

NATIVE_LIBRARY = Path("backends", "tensorrt", "libtriton_tensorrt.so")
_BACKEND = re.compile(r'^backend: "(\w+)"', re.MULTILINE)
_ON_CPU = "ONNX Runtime on the processor"
_ON_CUDA = "ONNX Runtime on CUDA"


@dataclass(frozen=True, slots=True)
class Hardware:
    """What could run a stage here; `why_no_gpu` is empty where there is a GPU.

    `products` are the versions of what runs plans, by name; `native` says that Triton itself does.
    """

    gpus: tuple[Gpu, ...] = ()
    why_no_gpu: str = ""
    native: bool = False
    products: Mapping[str, str] = field(default_factory=dict)
    providers: tuple[str, ...] = ()

    @property
    def runtime(self) -> EngineRuntime:
        """What the engines' gate asks for; engines are judged for the first GPU."""
        if not self.gpus:
            return EngineRuntime({}, Target(""))
        return EngineRuntime(self.products, self.gpus[0].target)


@dataclass(frozen=True, slots=True)
class Placement:
    """What runs a stage, and why nothing faster does; the reason may be empty."""

    model: str
    engine: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Placed:
    """The settings with which Triton is started, and what to say about them."""

    settings: Settings
    placements: tuple[Placement, ...] = ()
    lines: tuple[str, ...] = ()


def hardware(settings: Settings) -> Hardware:
    """Look for GPUs, and for what runs graphs on them."""
    try:
        gpus = found_gpus()
    except ConfigurationError as error:
        return Hardware(why_no_gpu=str(error))
    root = settings.triton_dir
    return Hardware(
        gpus=gpus,
        native=root is not None and (root / NATIVE_LIBRARY).is_file(),
        products={name: version for name in PRODUCTS if (version := _version_of(name))},
        providers=installed_providers(),
    )


def api_of(product: str) -> Any:  # noqa: ANN401 - a compiled module
    """Return the package that runs a product's plans.

    Raises:
        ConfigurationError: it is not installed, or not whole.
    """
    for name in PRODUCTS[product]:
        try:
            return import_module(name)
        except Exception:  # noqa: BLE001, S112 - its libraries fail to load in many ways
            continue
    raise ConfigurationError(f"{product} is not installed")


def _version_of(product: str) -> str:
    """Return a product's version; nothing where it is not installed."""
    try:
        return str(api_of(product).__version__)
    except ConfigurationError:
        return ""


def placed(settings: Settings, found: Hardware | None = None) -> Placed:
    """Decide with which configs Triton is started.

    Without a GPU a wish for one is dropped, and Triton serves on the processor.
    """
    if settings.device == "cpu":
        return Placed(settings)
    here = hardware(settings) if found is None else found
    told = placements(settings.repository, here)
    variant = NATIVE_VARIANT if here.native else WHEEL_VARIANT
    if here.gpus:
        changed: dict[str, Any] = {"model_config_name": settings.model_config_name or variant}
        heads = [str(gpu) for gpu in here.gpus]
    else:
        kept = settings.model_config_name
        changed = {
            "model_config_name": "" if kept in {NATIVE_VARIANT, WHEEL_VARIANT} else kept,
            "gpu_metrics": False,
            "engine_profile": "cpu",
        }
        heads = [f"no GPU was found ({here.why_no_gpu}): every stage runs on the processor."]
    lines = [*heads, *_lines(told)]
    return Placed(settings.model_copy(update=changed), told, tuple(lines))


def _lines(told: Sequence[Placement]) -> list[str]:
    """Write a line for each engine with the stages that it runs, and one for each refusal."""
    stages: dict[str, list[str]] = {}
    for one in told:
        stages.setdefault(one.engine, []).append(one.model)
    lines = [f"{engine}: {', '.join(models)}" for engine, models in stages.items()]
    return lines + [f"{one.model}: {one.reason}" for one in told if one.reason]


def placements(repository: Path, here: Hardware) -> tuple[Placement, ...]:
    """Return what runs each stage of a repository that could be on a GPU."""
    found = []
    for path in sorted(repository.glob(f"*/configs/{WHEEL_VARIANT}.pbtxt")):
        model = path.parents[1].name
        match = _BACKEND.search(path.read_text(encoding="utf-8"))
        found.append(_placement(repository, model, match[1] if match else "", here))
    return tuple(found)


def _placement(repository: Path, model: str, backend: str, here: Hardware) -> Placement:
    if not here.gpus:
        return Placement(model, _ON_CPU)
    graph = _ON_CUDA if CUDA in here.providers else _ON_CPU
    missing = "" if CUDA in here.providers else "onnxruntime-gpu is not installed"
    if backend not in PLAN_BACKENDS:
        return Placement(model, graph, missing)
    if here.native and backend == "tensorrt":
        return Placement(model, "TensorRT of Triton")
    try:
        records = usable_plans(repository / model / "1", here.runtime).values()
    except ConfigurationError as error:
        return Placement(model, graph, "; ".join(filter(None, (str(error), missing))))
    told = dict.fromkeys(f"{one.product} {one.version}, {one.precision}" for one in records)
    return Placement(model, " and ".join(told))


def usable_plans(directory: Path, runtime: EngineRuntime) -> dict[str, EngineRecord]:
    """Return the records of the plans that may serve a model here, by graph (`model`, or `step`).

    Args:
        directory: The model's version in the repository, with an ONNX file for each graph.
        runtime: What is here.

    Raises:
        ConfigurationError: A graph has none; the message says why.
    """
    repository, model = directory.parents[1], directory.parent.name
    graphs = graphs_in(directory)
    if not graphs:
        raise ConfigurationError(f"{model} has no ONNX file")
    return {
        graph: _usable_plan(repository, f"{model}/{directory.name}", graph, runtime)
        for graph in graphs
    }


def graphs_in(directory: Path) -> list[str]:
    """Return the graphs of a model's version; `model.cpu.onnx` is an engine of one, not another."""
    return sorted(path.stem for path in directory.glob("*.onnx") if "." not in path.stem)


def _usable_plan(
    repository: Path, directory: str, graph: str, runtime: EngineRuntime
) -> EngineRecord:
    records = [
        record
        for path in sorted(repository.glob(f"*{ENGINES_SUFFIX}"))
        for record in read_records(repository, path.name.removesuffix(ENGINES_SUFFIX))
        if record.file.startswith(f"{directory}/{graph}.") and record.product in PRODUCTS
    ]
    refused = []
    for record in sorted(records, key=lambda one: [*PRODUCTS].index(one.product)):
        reasons = reasons_against(record, repository, runtime)
        if not reasons:
            return record
        refused.append(f"{record.file} is not used: {'; '.join(reasons)}")
    plan = f"{directory}/{graph}.plan"
    if not refused and (repository / plan).is_file():
        refused.append(f"{plan} is not used: nothing is recorded of it")
    raise ConfigurationError(
        "; ".join(refused) or "it was not compiled; see: sensorium compile --help"
    )
