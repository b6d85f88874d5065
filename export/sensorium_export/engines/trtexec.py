"""The same builds as commands of NVIDIA's `trtexec`, for a container without their Python."""

import shlex
from collections.abc import Iterator
from pathlib import Path

from sensorium_export.engines import BuildPlan, GraphFile, Product
from sensorium_export.engines.compilation import (
    CompileOptions,
    graph_file,
    plan_for,
    wanted_graphs,
)
from sensorium_export.engines.profile import shape_in
from sensorium_export.engines.tensorrt import typed_files
from sensorium_export.recipe import Recipe
from sensorium_server.engine_gate import Compatibility

_MIB = 2**20
_LEVELS = {
    Compatibility.AMPERE_PLUS: "ampere+",
    Compatibility.SAME_COMPUTE_CAPABILITY: "sameComputeCapability",
}


def commands(
    recipe: Recipe, product: Product, options: CompileOptions, directory: Path
) -> Iterator[str]:
    """Write the graphs in their precision; give a command for each, which writes its engine."""
    for graph in wanted_graphs(recipe, options):
        file = graph_file(options.repository, recipe, graph)
        plan = plan_for(graph, file, recipe, product, options)
        paths = []
        for path, data in typed_files(file, plan).items():
            paths.append(directory / path)
            paths[-1].parent.mkdir(parents=True, exist_ok=True)
            paths[-1].write_bytes(data)
        engine = options.repository / file.engine_path(product.suffix)
        yield trtexec_command(file, plan, paths[0], engine)


def trtexec_command(graph: GraphFile, plan: BuildPlan, onnx: Path, engine: Path) -> str:
    """Return the command that builds a graph as a plan says.

    Args:
        graph: Its inputs are named in the profiles.
        plan: Profiles, limits and compatibility.
        onnx: The graph's file in the plan's precision.
        engine: Where to write the engine.
    """
    words = ["trtexec", f"--onnx={onnx}", f"--saveEngine={engine}", "--skipInference"]
    words.append("--stronglyTyped")
    if plan.precision != "tf32":
        words.append("--noTF32")
    for number, ranges in enumerate(plan.profiles):
        if len(plan.profiles) > 1:
            words.append(f"--profile={number}")
        for corner, option in enumerate(("minShapes", "optShapes", "maxShapes")):
            shapes = ",".join(
                f"{spec.name}:{'x'.join(map(str, shape_in(graph, spec, ranges, corner)))}"
                for spec in graph.signature.inputs
            )
            words.append(f"--{option}={shapes}")
    if plan.workspace_bytes:
        words.append(f"--memPoolSize=workspace:{plan.workspace_bytes // _MIB}M")
    if plan.timing_cache is not None:
        words.append(f"--timingCacheFile={plan.timing_cache}")
    if Compatibility.VERSION in plan.compatibility:
        words.append("--versionCompatible")
    words += [
        f"--hardwareCompatibilityLevel={name}"
        for level, name in _LEVELS.items()
        if level in plan.compatibility
    ]
    if plan.strip_weights:
        words.append("--stripWeights")
    return shlex.join(words)
