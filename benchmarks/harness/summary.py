"""From samples to what is reported: medians with their spread, and ratios of the same round."""

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from harness.rounds import ALL_CORES, IN_PROCESS, RAW, RAW_WITH_PREPROCESSING, Sample
from harness.window import percentiles_ms, spread

BASELINES = (RAW, RAW_WITH_PREPROCESSING, ALL_CORES)
AIM_BUNDLE = "vit-b-32"
"""Whose throughput has an aim: a model of the size that people serve."""

AIM_RATIO = 0.85
AIM_ADDED_MS = 3.0
_SERVED = "served_"


def summary_of(bundle: Mapping[str, Any], cores: int) -> dict[str, Any]:
    """Return a measured bundle without its samples."""
    return {
        **bundle,
        "startup_s": spread([round(one, 2) for one in bundle["startup_s"]]),
        "memory_mib": {
            when: {**memory, "total": _total(memory)}
            for when, memory in bundle["memory_mib"].items()
        },
        "tasks": {name: _task(task, cores) for name, task in bundle["tasks"].items()},
    }


def _total(memory: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    return {
        kind: round(sum(process[kind] for process in memory.values()), 1) for kind in ("rss", "pss")
    }


def _task(task: Mapping[str, Any], cores: int) -> dict[str, Any]:
    samples: Mapping[str, list[Sample]] = task["samples"]
    served = {
        name.removeprefix(_SERVED): taken
        for name, taken in samples.items()
        if name.startswith(_SERVED)
    }
    saturation = max(served, key=lambda name: median(_rates(served[name])))
    at_saturation = _rates(served[saturation])
    return {
        "threads": task["threads"],
        "instances": task["instances"],
        "raw_batch": task["raw_batch"],
        "raw_rate_by_batch": _rounded(task["raw_rate_by_batch"]),
        **{name: _rounded(spread(_rates(samples[name]))) for name in BASELINES},
        "saturation": int(saturation),
        "ratio": {
            name: _rounded(spread(_ratios(at_saturation, _rates(samples[name]))))
            for name in BASELINES
        },
        "in_process_ms": _rounded(percentiles_ms(_latencies(samples[IN_PROCESS]))),
        "in_process_stages_ms": _rounded(
            _medians([one["stages_ms"] for one in samples[IN_PROCESS]])
        ),
        "added_ms": _rounded(spread(_added_ms(served["1"], samples[IN_PROCESS]))),
        "served": {name: _served(taken, cores) for name, taken in served.items()},
    }


def _rates(samples: Sequence[Sample]) -> list[float]:
    return [float(sample["rate"]) for sample in samples]


def _ratios(above: Sequence[float], below: Sequence[float]) -> list[float]:
    return [one / other for one, other in zip(above, below, strict=True)]


def _latencies(samples: Sequence[Sample]) -> list[float]:
    return [one for sample in samples for one in sample["latencies_ms"]]


def _added_ms(served: Sequence[Sample], chain: Sequence[Sample]) -> list[float]:
    return [
        median(one["latencies_ms"]) - median(other["latencies_ms"])
        for one, other in zip(served, chain, strict=True)
    ]


def _served(samples: Sequence[Sample], cores: int) -> dict[str, Any]:
    """Return one concurrency's figures; processor shares are of all cores."""
    spans = [sample["closed"] - sample["opened"] for sample in samples]
    items = sum(sample["rate"] * span for sample, span in zip(samples, spans, strict=True))
    client = sum(sample["client_cpu_s"] for sample in samples)
    server = _added_up(sample["server_cpu_s"] for sample in samples)
    available = cores * sum(spans)
    return {
        "rate": _rounded(spread(_rates(samples))),
        "latency_ms": _rounded(percentiles_ms(_latencies(samples))),
        "client_cpu_share": round(client / available, 3),
        "server_cpu_share": round(sum(server.values()) / available, 3),
        "cpu_ms_per_item": {
            name: round(1e3 * seconds / items, 3)
            for name, seconds in {"client": client, **server}.items()
        },
        "stages": {
            name: _rounded(_medians([sample["stages"][name] for sample in samples]))
            for name in samples[0]["stages"]
        },
    }


def _medians(parts: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {name: median(part[name] for part in parts) for name in parts[0]}


def _added_up(parts: Any) -> dict[str, float]:  # noqa: ANN401 - an iterable of mappings
    whole: dict[str, float] = {}
    for part in parts:
        for name, value in part.items():
            whole[name] = whole.get(name, 0.0) + value
    return whole


def _rounded(values: Mapping[Any, float]) -> dict[str, float]:
    return {str(key): round(value, 3) for key, value in values.items()}
