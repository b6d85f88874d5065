"""What a running server tells about itself, and what the kernel tells about its processes."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil
from tritonclient.grpc import InferenceServerClient

_MIB = 2**20
_NS_PER_MS = 1e6
PHASES = ("queue", "compute_input", "compute_infer", "compute_output")


def processor_seconds(server_pid: int) -> dict[str, float]:
    """Return the processor time used until now by each of the server's processes."""
    spent: dict[str, float] = {}
    for name, process in _processes(server_pid):
        times = process.cpu_times()
        spent[name] = spent.get(name, 0.0) + times.user + times.system
    return spent


def memory_mib(server_pid: int) -> dict[str, dict[str, float]]:
    """Return each process's resident memory; in `pss`, shared pages are divided by their users."""
    found: dict[str, dict[str, float]] = {}
    for name, process in _processes(server_pid):
        memory = process.memory_full_info()
        own = found.setdefault(name, {"rss": 0.0, "pss": 0.0})
        own["rss"] = round(own["rss"] + memory.rss / _MIB, 1)
        own["pss"] = round(own["pss"] + memory.pss / _MIB, 1)
    return found


def _processes(server_pid: int) -> list[tuple[str, psutil.Process]]:
    """Return the server's processes: a stub, and the decoders that it started, by its model."""
    server = psutil.Process(server_pid)
    named = [("tritonserver", server)]
    for stub in server.children():
        line = stub.cmdline()
        name = _model_of(line) if line else stub.name()
        named += [(name, process) for process in (stub, *stub.children(recursive=True))]
    return named


def _model_of(line: list[str]) -> str:
    """Return a stub's model: its first argument is …/<model>/<version>/<file>."""
    return Path(line[1]).parents[1].name


@dataclass(frozen=True, slots=True)
class StageTime:
    """Where a model's time went, in milliseconds per request, and how large its batches were."""

    queue: float
    compute_input: float
    compute_infer: float
    compute_output: float
    batch: float


class Statistics:
    """Triton's own counters; the difference of two tells about the time between."""

    def __init__(self, address: str) -> None:
        client = InferenceServerClient(address)
        try:
            found = client.get_inference_statistics(as_json=True)
            self.triton = str(client.get_server_metadata().version)
        finally:
            client.close()
        self.models: Mapping[str, dict[str, float]] = {
            model["name"]: _counters(model) for model in found["model_stats"]
        }

    def since(self, before: "Statistics") -> dict[str, dict[str, float]]:
        """Return the times of each model that was used since then."""
        times = {}
        for name, now in self.models.items():
            then = before.models[name]
            used = {key: now[key] - then[key] for key in now}
            if used["inference_count"]:
                times[name] = _rounded(_time(used))
        return times


def _counters(model: Mapping[str, object]) -> dict[str, float]:
    """Flatten one model's statistics; protobuf leaves out what is zero."""
    phases = model.get("inference_stats", {})
    counters = {
        key: float(str(model.get(key, 0))) for key in ("inference_count", "execution_count")
    }
    for phase in ("success", *PHASES):
        values = phases.get(phase, {}) if isinstance(phases, dict) else {}
        counters[phase] = float(values.get("ns", 0)) / _NS_PER_MS
    return counters


def _time(used: Mapping[str, float]) -> StageTime:
    count = used["inference_count"]
    phases = {phase: used[phase] / count for phase in PHASES}
    return StageTime(**phases, batch=count / max(1.0, used["execution_count"]))


def _rounded(time: StageTime) -> dict[str, float]:
    return {key: round(value, 3) for key, value in asdict(time).items()}
