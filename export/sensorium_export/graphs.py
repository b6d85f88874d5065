"""The ONNX files of a bundle: where each lies in the repository and which module it is made of."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from sensorium.contract import (
    DECODER_GRAPHS,
    DIFFUSION_GRAPHS,
    LATENT_GRAPHS,
    STAGES,
    Signature,
)
from sensorium_export.ensembles import NETWORKS
from sensorium_export.recipe import Recipe

if TYPE_CHECKING:  # `sensorium inspect` does without PyTorch.
    from torch import nn


@dataclass(frozen=True, slots=True)
class Graph:
    """One ONNX file; `name` is what reports call it, `path` is relative to the repository."""

    name: str
    path: str
    signature: Signature
    module: str
    method: str = "forward"

    def module_in(self, model: "nn.Module") -> "nn.Module":
        """Return the part of the whole model that this graph is made of."""
        return model.get_submodule(self.module)


def _parts_of(module: str, parts: Mapping[str, Signature]) -> tuple[Graph, ...]:
    """Return the graphs of a stage that is made of several; each is a method of the module."""
    return tuple(
        Graph(f"{module}/{part}", f"{module}/1/{part}.onnx", signature, module, method=part)
        for part, signature in parts.items()
    )


GRAPHS: tuple[Graph, ...] = (
    *(Graph(stage, f"{stage}/1/model.onnx", STAGES[stage], module=stage) for stage in NETWORKS),
    *_parts_of("text_decoder", DECODER_GRAPHS),
    *_parts_of("image_decoder", DIFFUSION_GRAPHS),
)
"""The graphs of all stages, in the order in which data flows."""

LATENT = _parts_of("image_decoder", LATENT_GRAPHS)
"""What an image decoder has besides, when it denoises latents."""


def graphs_of(recipe: Recipe) -> tuple[Graph, ...]:
    """Return the graphs that a bundle's stages are made of, with the outputs that it uses."""
    return tuple(
        replace(graph, signature=recipe.signature(graph.name)) if graph.name in STAGES else graph
        for graph in (*GRAPHS, *(() if recipe.diffusion is None else LATENT))
        if graph.module in recipe.stages
    )
