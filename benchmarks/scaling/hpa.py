"""The rule of Kubernetes' horizontal pod autoscaler, with the names of `autoscaling/v2`.

Written after the documentation and the controller's source (`replica_calculator.go`,
`horizontal.go`, 1.30): a recommendation from the metric, then stabilisation, then policies.
"""

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

TOLERANCE = 0.1


@dataclass(frozen=True, slots=True)
class Policy:
    """How much may change within a period: so many pods, or per cent of what there was."""

    kind: Literal["Pods", "Percent"]
    value: float
    period_s: float


@dataclass(frozen=True, slots=True)
class Rules:
    """How fast one direction may go; of several policies the one that allows most counts."""

    stabilization_s: float
    policies: tuple[Policy, ...]


@dataclass(frozen=True, slots=True)
class Behavior:
    """Both directions, with Kubernetes' defaults."""

    up: Rules = Rules(0, (Policy("Percent", 100, 15), Policy("Pods", 4, 15)))
    down: Rules = Rules(300, (Policy("Percent", 100, 15),))


def from_total(current: int, total: float, target: float) -> int:
    """Return the replicas wanted by a metric of the whole, as `AverageValue` of an external one."""
    if current and abs(1 - total / (target * current)) <= TOLERANCE:
        return current
    return math.ceil(total / target)


def from_utilization(usages: Sequence[float | None], target: float) -> int:
    """Return the replicas wanted by a metric of each pod; None stands for one that is not ready.

    Pods that are not ready count as idle when that holds a scale-up back, and not at all else.
    """
    known = [usage for usage in usages if usage is not None]
    if not known:
        return len(usages)
    ratio = sum(known) / len(known) / target
    if ratio > 1 and len(known) < len(usages):
        rebased = sum(known) / len(usages) / target
        if rebased <= 1 + TOLERANCE:
            return len(usages)
        return max(len(usages), math.ceil(rebased * len(usages)))
    if abs(1 - ratio) <= TOLERANCE:
        return len(usages)
    return math.ceil(ratio * len(known))


@dataclass
class Autoscaler:
    """What it recommended and did, so that it can hold itself back."""

    least: int
    most: int
    behavior: Behavior = field(default_factory=Behavior)
    _recommended: deque[tuple[float, int]] = field(default_factory=deque)
    _changes: deque[tuple[float, int]] = field(default_factory=deque)

    def decide(self, now_s: float, current: int, recommendation: int) -> int:
        """Return how many replicas there shall be, and note the change."""
        if not self._recommended:  # what there is counts as recommended before
            self._recommended.append((math.nextafter(now_s, -math.inf), current))
        self._forget(now_s)
        self._recommended.append((now_s, recommendation))
        wanted = min(max(self._stabilized(now_s, current), self.least), self.most)
        if wanted > current:
            wanted = min(wanted, max(current, self._highest(now_s, current)))
        elif wanted < current:
            wanted = max(wanted, min(current, self._lowest(now_s, current)))
        if wanted != current:
            self._changes.append((now_s, wanted - current))
        return wanted

    def _stabilized(self, now_s: float, current: int) -> int:
        """Return the safest recommendation of each direction's window."""
        up, down = (
            [
                value
                for at, value in self._recommended
                if at == now_s or at > now_s - rules.stabilization_s
            ]
            for rules in (self.behavior.up, self.behavior.down)
        )
        return min(max(current, min(up)), max(down))

    def _highest(self, now_s: float, current: int) -> int:
        limits = []
        for policy in self.behavior.up.policies:
            start = current - self._net(now_s, policy.period_s)
            grown = (
                start * (1 + policy.value / 100)
                if policy.kind == "Percent"
                else start + policy.value
            )
            limits.append(math.ceil(grown))
        return max(limits)

    def _lowest(self, now_s: float, current: int) -> int:
        limits = []
        for policy in self.behavior.down.policies:
            start = current - self._net(now_s, policy.period_s)
            left = (
                start * (1 - policy.value / 100)
                if policy.kind == "Percent"
                else start - policy.value
            )
            limits.append(int(left))
        return min(limits)

    def _net(self, now_s: float, period_s: float) -> int:
        """Return by how many the replicas have grown within a period."""
        return sum(change for at, change in self._changes if at > now_s - period_s)

    def _forget(self, now_s: float) -> None:
        rules = (self.behavior.up, self.behavior.down)
        window_s = max(rule.stabilization_s for rule in rules)
        period_s = max(policy.period_s for rule in rules for policy in rule.policies)
        for kept, age_s in ((self._recommended, window_s), (self._changes, period_s)):
            while kept and kept[0][0] <= now_s - age_s:
                kept.popleft()
