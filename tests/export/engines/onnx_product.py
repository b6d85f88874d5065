"""A product that runs without a GPU: the graph in its precision, computed by ONNX Runtime."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import onnxruntime

from sensorium_export.engines import (
    BuildPlan,
    GraphFile,
    NodeProblem,
    Progress,
    Runner,
    no_progress,
)
from sensorium_export.engines.tensorrt import typed_files
from sensorium_export.runners import run_onnx
from sensorium_server.engine_record import Target


@dataclass
class OnnxProduct:
    """Like TensorRT it computes in the types that the graph has; `built` has all plans so far."""

    name: str = "onnx"
    suffix: str = ".typed"
    precisions: tuple[str, ...] = ("fp32", "fp16")
    runs_here: bool = True
    built: list[BuildPlan] = field(default_factory=list)

    def why_unavailable(self, compute_capability: str = "") -> str:
        """It is here, but not for a GPU."""
        return "it builds for no GPU" if compute_capability else ""

    def why_not_runnable(self) -> str:
        """It runs, unless it shall not."""
        return "" if self.runs_here else "this machine has no GPU"

    def version(self) -> str:
        """ONNX Runtime's."""
        return str(onnxruntime.__version__)

    def target(self, compute_capability: str = "") -> Target:
        """A processor."""
        return Target("a processor", compute_capability)

    def problems(self, graph: GraphFile) -> tuple[NodeProblem, ...]:  # noqa: ARG002
        """It takes all graphs that are exported."""
        return ()

    def build(self, graph: GraphFile, plan: BuildPlan, progress: Progress = no_progress) -> bytes:
        """Put the graph into the precision."""
        self.built.append(plan)
        progress("typing", 1, 1)
        [data] = typed_files(graph, plan).values()
        return data

    @contextmanager
    def runner(
        self,
        graph: GraphFile,  # noqa: ARG002
        engine: bytes,
        plan: BuildPlan,  # noqa: ARG002
    ) -> Iterator[Runner]:
        """Run it as it is written."""
        session = session_as_written(engine)
        yield lambda inputs: run_onnx(session, inputs)


def session_as_written(graph: bytes) -> onnxruntime.InferenceSession:
    """Open a graph without any optimisation, which would take casts away."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(graph, options, ["CPUExecutionProvider"])
