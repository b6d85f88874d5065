"""Engines: a graph compiled for one device by one product, behind one small interface.

A product turns a graph's ONNX files into one engine file, and runs it. What differs from product to
product (profiles, precisions, timing caches) is in its module; what is the same for all (what to
build, parity, the record, where it is published) is outside of it.

    BuildPlan ┐
    GraphFile ┴▶ Product.build ─▶ bytes ─▶ Product.runner ─▶ parity ─▶ EngineRecord
"""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from enum import StrEnum
from importlib import import_module
from pathlib import Path
from typing import Protocol

from sensorium.contract import Signature
from sensorium.errors import ConfigurationError
from sensorium_export.seeded_inputs import Array
from sensorium_export.tolerance import FP32, TF32
from sensorium_server.engine_record import Ranges, Target

Runner = Callable[[Mapping[str, Array]], dict[str, Array]]
"""Computes every output by its name, from the inputs by theirs; dtypes as in the contract."""

Progress = Callable[[str, int, int], None]
"""Told the phase of a build, how many of its steps are done, and how many it has."""


def no_progress(_phase: str, _done: int, _steps: int) -> None:
    """Tell nobody."""


@dataclass(frozen=True, slots=True)
class GraphFile:
    """A published graph: its name in reports, its signature, and its ONNX file and weights.

    `files` maps paths in the repository to their contents, the ONNX file first; `sizes` gives the
    number of every axis that the checkpoint fixes.
    """

    name: str
    signature: Signature
    files: Mapping[str, bytes]
    sizes: Mapping[str, int]

    @property
    def path(self) -> str:
        """The ONNX file's path in the repository."""
        return next(iter(self.files))

    def engine_path(self, suffix: str) -> str:
        """Return the path of an engine of it: beside the ONNX file, with another suffix."""
        return f"{self.path.removesuffix('.onnx')}{suffix}"


@dataclass(frozen=True, slots=True)
class BuildPlan:
    """How to build an engine.

    `profiles` have the ranges of the dynamic axes that the engine is optimised for. `kept` are the
    nodes of the ONNX graph that stay in fp32; `largest` has the largest absolute values of the
    tensors that fp8 scales. `compute_capability` builds for another GPU than this
    machine's, as in "8.6"; empty for this machine's. `workspace_bytes` limits what the builder and
    the engine may take for intermediate results, 0 for no limit. `timing_cache` is a file that is
    read and written. `strip_weights` leaves the weights out of the engine: it is refitted from the
    ONNX file when it is loaded.
    """

    precision: str
    profiles: tuple[Ranges, ...]
    kept: frozenset[str] = field(default_factory=frozenset)
    largest: Mapping[str, float] = field(default_factory=dict)
    compute_capability: str = ""
    compatibility: tuple[str, ...] = ()
    workspace_bytes: int = 0
    timing_cache: Path | None = None
    strip_weights: bool = False

    @property
    def rounds(self) -> bool:
        """Whether the graph is put into other types than the ONNX file has."""
        return self.precision not in {FP32, TF32}


@dataclass(frozen=True, slots=True)
class NodeProblem:
    """What a product refuses: a node of the ONNX graph, its operator, and why."""

    node: str
    operator: str
    reason: str

    def __str__(self) -> str:
        return f"node {self.node} ({self.operator}): {self.reason}"


class Product(Protocol):
    """Something that compiles graphs and runs what it compiled."""

    @property
    def name(self) -> str:
        """Return what records call it."""

    @property
    def suffix(self) -> str:
        """Return what its engine files end in, as in `.plan`."""

    @property
    def precisions(self) -> tuple[str, ...]:
        """Return those that it can build, from the closest to PyTorch to the furthest."""

    def why_unavailable(self, compute_capability: str = "") -> str:
        """Say why it cannot build on this machine, for its device or for a GPU that is named.

        Empty if it can; otherwise the message has the way out.
        """

    def why_not_runnable(self) -> str:
        """Say why it cannot run an engine on this machine; empty if it can."""

    def version(self) -> str:
        """Return the product's version, as in "11.4.0.106"."""

    def target(self, compute_capability: str = "") -> Target:
        """Return this machine's device, or a GPU of another compute capability."""

    def problems(self, graph: GraphFile) -> tuple[NodeProblem, ...]:
        """Parse a graph without building it; return all that the product refuses."""

    def build(self, graph: GraphFile, plan: BuildPlan, progress: Progress = no_progress) -> bytes:
        """Compile a graph.

        Raises:
            ConfigurationError: The product refuses it; the message has every node and operator.
        """

    def runner(
        self, graph: GraphFile, engine: bytes, plan: BuildPlan
    ) -> AbstractContextManager[Runner]:
        """Load an engine; give what runs it."""


PRODUCTS: Mapping[str, str] = {
    "tensorrt": "sensorium_export.engines.tensorrt:TENSORRT",
    "tensorrt_rtx": "sensorium_export.engines.tensorrt:TENSORRT_RTX",
    "onnxruntime": "sensorium_export.engines.cpu:ONNXRUNTIME",
    "openvino": "sensorium_export.engines.cpu:OPENVINO",
}
"""The place of every product, by its name: imported when it is asked for."""


class Profile(StrEnum):
    """What `sensorium compile` is asked for."""

    GPU = "gpu"
    RTX = "rtx"
    CPU = "cpu"


PROFILES: Mapping[Profile, str] = {
    Profile.GPU: "tensorrt",
    Profile.RTX: "tensorrt_rtx",
    Profile.CPU: "onnxruntime",
}
"""The product of every profile."""


def product_named(name: str) -> Product:
    """Return a product.

    Raises:
        ConfigurationError: There is none of that name.
    """
    if name not in PRODUCTS:
        raise ConfigurationError(f"{name!r} is no engine product; those are: {', '.join(PRODUCTS)}")
    module, _, attribute = PRODUCTS[name].partition(":")
    product: Product = getattr(import_module(module), attribute)
    return product
