"""Everything in turn, again and again: what drifts on the machine drifts for all alike."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness import job
from harness.bundles import Bundle
from harness.inputs import Inputs
from harness.job import LoadJob, RawJob
from harness.load import answers_to, messages
from harness.probe import Statistics, memory_mib
from harness.raw import RawTask
from harness.repository import encoder_threads
from sensorium_server.launch import Server
from sensorium_server.settings import FREE_PORTS, load

RAW = "raw"
RAW_WITH_PREPROCESSING = "raw_with_preprocessing"
ALL_CORES = "all_cores_with_preprocessing"
IN_PROCESS = "in_process"

_AGREEING = 4
_TOLERANCE = 1e-3
_LEAST_BATCHES = 3

Sample = dict[str, Any]
Advance = Callable[[str], None]
"""Told what begins."""


class DisagreementError(Exception):
    """Served and raw answers differ, so that their speeds cannot be compared."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How long and how often to measure what."""

    rounds: int
    seconds: float
    warm_s: float
    calibration_s: float
    starts: int
    concurrencies: tuple[int, ...]
    batches: tuple[int, ...]

    @property
    def steps_of_task(self) -> int:
        """How many measurements one task takes."""
        return len(self.batches) + self.rounds * (4 + len(self.concurrencies))


FULL = Plan(5, 5.0, 1.0, 3.0, 3, (1, 4, 16, 64), (1, 2, 4, 8, 16, 32))
QUICK = Plan(1, 0.4, 0.2, 0.2, 1, (1, 8), (4,))


def measure_bundle(bundle: Bundle, plan: Plan, advance: Advance) -> dict[str, Any]:
    """Measure a bundle: its starts, its memory and all of its tasks."""
    settings = load({"repository": bundle.repository, **FREE_PORTS})
    starts = []
    for _ in range(plan.starts - 1):
        advance(f"{bundle.name}: start")
        with Server(settings) as server:
            starts.append(server.ready_s)
    advance(f"{bundle.name}: start")
    with Server(settings) as server:
        starts.append(server.ready_s)
        triton = Statistics(server.endpoints.grpc).triton
        idle = memory_mib(server.pid)
        tasks = {task: _measure_task(bundle, task, server, plan, advance) for task in bundle.tasks}
        return {
            "name": bundle.name,
            "weights": bundle.weights,
            "triton": triton,
            "startup_s": starts,
            "memory_mib": {"ready": idle, "after_load": memory_mib(server.pid)},
            "tasks": tasks,
        }


def _measure_task(
    bundle: Bundle, task: str, server: Server, plan: Plan, advance: Advance
) -> dict[str, Any]:
    threads, instances = encoder_threads(bundle.repository, task)
    check_agreement(bundle, task, server.endpoints.grpc)
    raw = RawJob(
        str(bundle.repository), task, str(bundle.inputs_of(task)), 1, threads,
        with_preprocessing=False, warm_s=plan.warm_s, seconds=plan.calibration_s,
        least_calls=_LEAST_BATCHES,
    )  # fmt: skip
    by_batch = {}
    for batch in plan.batches:
        advance(f"{bundle.name} {task}: raw, batch {batch}")
        by_batch[batch] = _raw_sample([replace(raw, batch=batch)])["rate"]
    best = max(by_batch, key=lambda batch: by_batch[batch])
    raw = replace(raw, batch=best, seconds=plan.seconds)
    with_pre = replace(raw, with_preprocessing=True)
    alone = replace(with_pre, batch=1)
    measures: dict[str, Callable[[], Sample]] = {
        RAW: lambda: _raw_sample([raw] * instances),
        RAW_WITH_PREPROCESSING: lambda: _raw_sample([with_pre] * instances),
        ALL_CORES: lambda: _raw_sample([replace(with_pre, threads=1)] * (os.cpu_count() or 1)),
        IN_PROCESS: lambda: _raw_sample([alone]),
        **{
            f"served_{concurrency}": lambda concurrency=concurrency: _served_sample(  # type: ignore[misc]
                bundle, task, server, plan, concurrency
            )
            for concurrency in plan.concurrencies
        },
    }
    samples = _alternate(
        measures, plan.rounds, lambda name: advance(f"{bundle.name} {task}: {name}")
    )
    return {
        "threads": threads,
        "instances": instances,
        "raw_batch": best,
        "raw_rate_by_batch": by_batch,
        "samples": samples,
    }


def _alternate(
    measures: Mapping[str, Callable[[], Sample]], rounds: int, advance: Advance
) -> dict[str, list[Sample]]:
    """Take every measure once a round, every second round in the opposite order."""
    samples: dict[str, list[Sample]] = {name: [] for name in measures}
    for number in range(rounds):
        for name in list(measures)[:: -1 if number % 2 else 1]:
            advance(name)
            samples[name].append(measures[name]())
    return samples


def _raw_sample(jobs: Sequence[RawJob]) -> Sample:
    results = job.run(jobs)
    return {
        "rate": sum(result["rate"] for result in results),
        "latencies_ms": [one for result in results for one in result["latencies_ms"]],
        "stages_ms": results[0]["stages_ms"],
    }


def _served_sample(
    bundle: Bundle, task: str, server: Server, plan: Plan, concurrency: int
) -> Sample:
    address = server.endpoints.grpc
    load_job = LoadJob(
        address, task, str(bundle.inputs_of(task)), concurrency, plan.warm_s, plan.seconds,
        least_calls=4 * concurrency, server_pid=server.pid,
    )  # fmt: skip
    before = Statistics(address)
    (result,) = job.run([load_job])
    return {**result, "stages": Statistics(address).since(before)}


def check_agreement(bundle: Bundle, task: str, address: str) -> None:
    """Check that server and raw graphs give the same answers.

    Raises:
        DisagreementError: they do not.
    """
    inputs = Inputs.load(task, bundle.inputs_of(task))
    raw = RawTask(bundle.repository, task, threads=1, batch=1)
    answers = answers_to(address, messages(inputs)[:_AGREEING])
    for batch, given in zip(inputs.batches(1), answers, strict=False):
        for name, expected in raw.infer(raw.preprocess(batch)).items():
            if not _alike(expected, given[name]):
                raise DisagreementError(
                    f"{bundle.name} {task}: {name} is {given[name]!r} from the server and "
                    f"{expected!r} from its graphs; run: sensorium verify"
                )


def _alike(expected: NDArray[Any], given: NDArray[Any]) -> bool:
    if expected.dtype != np.object_:
        return expected.shape == given.shape and np.allclose(expected, given, atol=_TOLERANCE)
    return bool(expected.tolist() == given.tolist())
