"""Stages in a lower precision: chosen, computed, and how far they drift from PyTorch.

`int8` quantises the weights of matrix products to 8 bits, per channel, and their inputs as they
come, with one scale a batch (ONNX Runtime's dynamic quantisation): who shares the batch changes the
answer a little. Of the weights' range it uses half: processors without VNNI add two products in 16
bits, which the whole range overflows without a word. `bf16` leaves the file as it is; OpenVINO
computes it in bfloat16. Either is only a choice: what it does to the answers is for `verify` to
say.
"""

import logging
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import onnx
from torch import nn

from sensorium.errors import ConfigurationError
from sensorium_export import seeded_inputs
from sensorium_export.compare import least_cosine
from sensorium_export.ensembles import NETWORKS
from sensorium_export.graphs import Graph
from sensorium_export.recipe import Recipe
from sensorium_export.runners import run_module
from sensorium_export.tolerance import FP32, INT8, PRECISIONS
from sensorium_server.onnxruntime_backend import graph_from
from sensorium_server.stages import StageConfig

_FILE = "model.onnx"


@dataclass(frozen=True, slots=True)
class Drift:
    """How far a stage is from PyTorch on the seeded inputs, in its precision."""

    stage: str
    precision: str
    cosine: float
    """The least one of any output in any case; inputs are noise, which is harder than media."""


def chosen_precisions(wanted: Iterable[str], recipe: Recipe) -> dict[str, str]:
    """Return the precision of each stage that is not served in fp32.

    Args:
        wanted: `bf16` for all networks that are one graph, `image_encoder=bf16` for one; the later
            one counts.
        recipe: The bundle's.

    Raises:
        ConfigurationError: A stage or a precision is unknown.
    """
    able = [stage for stage in recipe.stages if stage in NETWORKS]
    chosen: dict[str, str] = {}
    for text in wanted:
        stage, _, precision = text.rpartition("=")
        if precision not in PRECISIONS:
            raise ConfigurationError(
                f'precision "{text}": {precision} is none of {", ".join(PRECISIONS)}'
            )
        if stage and stage not in able:
            raise ConfigurationError(
                f'precision "{text}": {stage} is no stage of this bundle that can have one; '
                f"those are: {', '.join(able)}"
            )
        chosen |= dict.fromkeys([stage] if stage else able, precision)
    return {stage: precision for stage, precision in chosen.items() if precision != FP32}


def lowered(files: Mapping[str, bytes], precision: str) -> dict[str, bytes]:
    """Return a graph's files in a precision.

    Raises:
        ConfigurationError: The graph is too large.
    """
    if precision != INT8:
        return dict(files)
    if len(files) > 1:
        raise ConfigurationError(
            f"{next(iter(files))} has more weights than one file holds, and cannot be quantised; "
            f"choose bf16 for it"
        )
    [(path, data)] = files.items()
    # Only who quantises needs it: it is slow to import.
    from onnxruntime.quantization import QuantType, quantize_dynamic  # noqa: PLC0415

    with tempfile.TemporaryDirectory() as directory:
        target = Path(directory, _FILE)
        logging.disable(logging.WARNING)  # it advises what is for convolutions
        try:
            quantize_dynamic(
                onnx.load_from_string(data),
                target,
                op_types_to_quantize=["MatMul", "Gemm"],
                per_channel=True,
                reduce_range=True,
                weight_type=QuantType.QInt8,
            )
        finally:
            logging.disable(logging.NOTSET)
        return {path: target.read_bytes()}


def drift(
    graph: Graph, model: nn.Module, files: Mapping[str, bytes], recipe: Recipe, precision: str
) -> Drift:
    """Run a graph's files as the server will, on the seeded inputs, against its module.

    Raises:
        ConfigurationError: The engine is not installed, or cannot compute it here.
    """
    cosines = []
    with tempfile.TemporaryDirectory() as directory:
        version = Path(directory, graph.name, "1")
        version.mkdir(parents=True)
        for path, data in files.items():
            (version / Path(path).name).write_bytes(data)
        engine = graph_from(StageConfig(graph.name, version, {"precision": precision}))
        for case in seeded_inputs.cases(graph.signature, recipe.sizes, recipe.largest):
            module = graph.module_in(model)
            expected = run_module(module, graph.method, graph.signature, case.inputs)
            found = engine.run(list(expected), dict(case.inputs))
            cosines += [
                least_cosine(array, found[name])
                for name, array in expected.items()
                if array.dtype.kind == "f"
            ]
    return Drift(graph.name, precision, min(cosines))
