"""The ONNX files of a bundle: where each lies in the repository and which module it is made of."""

from dataclasses import dataclass

from torch import nn

from sensorium.contract import DECODER_GRAPHS, STAGES, Signature


@dataclass(frozen=True, slots=True)
class Graph:
    """One ONNX file; `name` is what reports call it, `path` is relative to the repository."""

    name: str
    path: str
    signature: Signature
    module: str
    method: str = "forward"

    def module_in(self, model: nn.Module) -> nn.Module:
        """Return the part of the whole model that this graph is made of."""
        return model.get_submodule(self.module)


GRAPHS: tuple[Graph, ...] = (
    *(
        Graph(stage, f"{stage}/1/model.onnx", STAGES[stage], module=stage)
        for stage in ("image_encoder", "text_encoder", "fusion")
    ),
    *(
        Graph(
            f"text_decoder/{part}",
            f"text_decoder/1/{part}.onnx",
            signature,
            module="text_decoder",
            method=part,
        )
        for part, signature in DECODER_GRAPHS.items()
    ),
)
"""Every graph, in the order in which data flows."""
