"""The ways to scale: a signal, what it aims at for one replica, and how fast replicas may go."""

from collections.abc import Callable
from dataclasses import dataclass, field

from scaling.hpa import Behavior, Policy, Rules, from_total, from_utilization
from scaling.simulation import Signal, Simulation

REJECTED_SHARE = 0.1
"""How much of what one replica can do may be refused, before that alone asks for more replicas."""

SLOW = Behavior(down=Rules(300, (Policy("Pods", 1, 60),)))
"""Kubernetes' defaults, but that only one replica goes in a minute."""


@dataclass(frozen=True)
class Way:
    """One way; `shown` is the target whose replicas are drawn over time."""

    name: str
    signal: Callable[[float], Signal]
    targets: tuple[float, ...]
    shown: float | None = None
    behavior: Behavior = field(default_factory=Behavior)
    is_fixed: bool = False


def queue_seconds(target: float) -> Signal:
    """`sum(rate(nv_inference_queue_duration_us[1m])) / 1e6`: by Little's law, how many wait."""

    def wanted(simulation: Simulation, now_s: float) -> int:
        window_s = simulation.cluster.window_s
        total = sum(each.queue.rate(now_s, window_s) for each in simulation.replicas)
        return max(from_total(len(simulation.replicas), total, target), refused(simulation, now_s))

    return wanted


def request_seconds(target: float) -> Signal:
    """`sum(rate(nv_inference_request_duration_us[1m])) / 1e6`: how many wait or are worked on."""

    def wanted(simulation: Simulation, now_s: float) -> int:
        window_s = simulation.cluster.window_s
        total = sum(each.request.rate(now_s, window_s) for each in simulation.replicas)
        return max(from_total(len(simulation.replicas), total, target), refused(simulation, now_s))

    return wanted


def refused(simulation: Simulation, now_s: float) -> int:
    """Return the wish of the second trigger, `sum(rate(nv_inference_request_failure[1m]))`."""
    rate = simulation.rejections.rate(now_s, simulation.cluster.window_s)
    return from_total(len(simulation.replicas), rate, REJECTED_SHARE * simulation.service.capacity)


def pending(target: float) -> Signal:
    """`sum(nv_inference_pending_request_count)`: how many wait at the moment of the scrape."""

    def wanted(simulation: Simulation, now_s: float) -> int:
        del now_s
        return from_total(len(simulation.replicas), simulation.waiting, target)

    return wanted


def cpu(target: float) -> Signal:
    """CPU utilisation of what is requested, by pod, over the time between the last scrapes."""

    def wanted(simulation: Simulation, now_s: float) -> int:
        window_s = 2.2 * simulation.cluster.scrape_s
        cores = simulation.service.cores
        usages = [
            each.cpu.rate(now_s, window_s) / cores if each.ready_s <= now_s else None
            for each in simulation.replicas
        ]
        return from_utilization(usages, target)

    return wanted


def fixed(target: float) -> Signal:
    """As many replicas all the time."""
    return lambda simulation, now_s: round(target)  # noqa: ARG005 - whatever there is


WAYS = (
    Way("queue seconds", queue_seconds, (0.1, 0.5, 2, 8), shown=0.5),
    Way("queue seconds, slow down", queue_seconds, (0.1, 0.5, 2, 8), behavior=SLOW),
    Way("request seconds", request_seconds, (0.5, 0.65, 0.8, 1, 1.5), shown=0.8),
    Way("request seconds, slow down", request_seconds, (0.8, 2, 4, 8, 16), 16, SLOW),
    Way("pending count", pending, (0.1, 0.5, 2, 8)),
    Way("CPU", cpu, (0.3, 0.4, 0.45, 0.5, 0.6), shown=0.45),
    Way("fixed", fixed, (4, 5, 6, 7, 8), is_fixed=True),
)
"""All of them, with the targets to try."""
