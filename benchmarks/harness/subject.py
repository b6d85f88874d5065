"""One network to run by every engine: its module, its ONNX file, its inputs, and what it costs."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from harness.inputs import Sources
from harness.sources import photo
from sensorium.contract import BATCH
from sensorium_export.engines import GraphFile
from sensorium_export.graphs import Graph, graphs_of
from sensorium_export.onnx_graph import files_from_onnx, onnx_from_module
from sensorium_export.recipe import Recipe
from sensorium_export.seeded_inputs import EXAMPLE_SHAPE, case
from sensorium_export.source import open_source

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class CaseOf:
    """A checkpoint, the graph of it to measure, and the task by which it is served, if any.

    `checkpoint` is a directory of this repository, or what writes one in `tests.families`.
    """

    checkpoint: str
    graph: str
    task: str = ""
    sources: Sources | None = None


_SEEN: Mapping[str, Callable[[int], bytes]] = {"image": photo}

CASES: Mapping[str, CaseOf] = {
    "playroom": CaseOf("checkpoints/playroom", "image_encoder", "image_embedding", _SEEN),
    "clip_vit_b32": CaseOf("clip_vit_b32", "image_encoder", "image_embedding", _SEEN),
    "clip_vit_l14": CaseOf("clip_vit_l14", "image_encoder", "image_embedding", _SEEN),
    "blip_vqa_base": CaseOf("blip_vqa_base", "image_encoder"),
    "blip_vqa_base_question": CaseOf("blip_vqa_base", "fusion"),
    "tiny": CaseOf("clip", "image_encoder", "image_embedding", _SEEN),
}


@dataclass(frozen=True)
class Subject:
    """A network."""

    name: str
    checkpoint: Path
    graph: Graph
    recipe: Recipe
    module: nn.Module
    files: Mapping[str, bytes]

    @property
    def graph_file(self) -> GraphFile:
        """The graph as the engine products take it."""
        return GraphFile(self.graph.name, self.graph.signature, self.files, self.recipe.sizes)

    def arrays(self, batch: int) -> dict[str, Any]:
        """Draw inputs."""
        axes = {**EXAMPLE_SHAPE, **self.recipe.sizes, BATCH: batch}
        return dict(case("", self.graph.signature, axes, seed=batch).inputs)

    def tensors(self, batch: int, dtype: torch.dtype, device: str) -> list[torch.Tensor]:
        """Draw inputs for PyTorch, numbers in a precision."""
        drawn = (torch.from_numpy(array) for array in self.arrays(batch).values())
        return [
            tensor.to(device, dtype if tensor.is_floating_point() else None) for tensor in drawn
        ]

    def ranges(self, largest: int) -> dict[str, tuple[int, int, int]]:
        """Return the sizes of open axes for an optimization profile."""
        axes = {axis for spec in self.graph.signature.inputs for axis in spec.shape}
        fixed = {
            str(axis): (1, EXAMPLE_SHAPE[str(axis)], EXAMPLE_SHAPE[str(axis)])
            for axis in axes - self.recipe.sizes.keys()
            if isinstance(axis, str)
        }
        return {**fixed, BATCH: (1, largest, largest)}

    @cached_property
    def flops(self) -> int:
        """Multiplications and additions of one row."""
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            self.module(*self.tensors(1, torch.float32, "cpu"))
        return int(counter.get_total_flops())

    @property
    def parameters(self) -> int:
        """How many weights are read for each run."""
        return sum(weight.numel() for weight in self.module.parameters())


def subject(name: str, scratch: Path) -> Subject:
    """Write a case's checkpoint, open it and export its graph."""
    from tests import families  # noqa: PLC0415 - where checkpoints of other libraries are written

    wanted = CASES[name]
    directory = ROOT / wanted.checkpoint
    if not directory.is_dir():
        directory = getattr(families, wanted.checkpoint)(scratch / name)
    source = open_source(directory, "")
    (graph,) = (one for one in graphs_of(source.recipe) if one.name == wanted.graph)
    module = graph.module_in(source.model).eval()
    onnx = onnx_from_module(
        module, graph.signature, source.recipe.sizes, name=graph.name, method=graph.method
    )
    files = files_from_onnx(onnx, graph.path)
    return Subject(name, directory, graph, source.recipe, module, files)
