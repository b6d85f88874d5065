"""Replicas that serve in batches from a queue, and an autoscaler that looks at one signal of them.

The balancer gives each request to the replica with the fewest, so their queues are taken as one, of
which a free replica takes its even share, at most a batch. Between two events of the control loop
(a scrape, a decision, a pod that gets ready) batches follow each other by the measured curve.
"""

import heapq
import math
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, pairwise
from operator import itemgetter

from scaling.counter import Counter
from scaling.hpa import Autoscaler
from scaling.service import Service


@dataclass(frozen=True, slots=True)
class Cluster:
    """What surrounds the replicas: how often things happen, and how long they take, in seconds."""

    scrape_s: float = 15.0
    sync_s: float = 15.0
    start_s: float = 30.0
    window_s: float = 60.0
    deadline_s: float = 5.0
    objective_s: float = 1.0


@dataclass(slots=True, eq=False)
class Replica:
    """A pod: since when it is paid for and ready, what it has in hand and has counted."""

    created_s: float
    ready_s: float
    begun_s: float = 0.0
    free_s: float = 0.0
    worked_s: float = 0.0
    waited_s: float = 0.0
    size: int = 0
    queue: Counter = field(default_factory=Counter)
    request: Counter = field(default_factory=Counter)
    cpu: Counter = field(default_factory=Counter)

    def begin(self, now_s: float, finish_s: float, size: int, waited_s: float) -> None:
        """Take a batch, whose requests have waited so long together."""
        self.settle(now_s)
        self.begun_s, self.free_s, self.size, self.waited_s = now_s, finish_s, size, waited_s

    def settle(self, now_s: float) -> None:
        """Count the last batch once it is answered, as Triton does."""
        if self.size and self.free_s <= now_s:
            lasted_s = self.free_s - self.begun_s
            self.queue.value += self.waited_s
            self.request.value += self.waited_s + self.size * lasted_s
            self.worked_s += lasted_s
            self.size = 0

    def busy_s(self, now_s: float) -> float:
        """Return the seconds of work until now, for which the processor has no need to wait."""
        return self.worked_s + (now_s - self.begun_s if self.size else 0.0)


@dataclass
class Outcome:
    """What a run came to."""

    requests: int = 0
    late: int = 0
    rejected: int = 0
    replica_s: float = 0.0
    trace: list[tuple[float, int, int]] = field(default_factory=list)
    """(second, replicas ready, replicas wanted) at each decision."""

    @property
    def changes(self) -> int:
        """How often another number of replicas was wanted than before."""
        wanted = [each for _, _, each in self.trace]
        return sum(before != after for before, after in pairwise(wanted))

    @property
    def missed(self) -> float:
        """The share of requests that were answered late or not at all."""
        return (self.late + self.rejected) / max(self.requests, 1)


Signal = Callable[["Simulation", float], int]
"""Looks at a simulation at a second and says how many replicas there should be."""


class Simulation:
    """One replica set under one sequence of arrivals."""

    def __init__(
        self,
        service: Service,
        arrivals: Sequence[float],
        autoscaler: Autoscaler,
        cluster: Cluster,
        replicas: int,
    ) -> None:
        self.service = service
        self.cluster = cluster
        self.outcome = Outcome(requests=len(arrivals))
        self.replicas = [Replica(0.0, 0.0) for _ in range(replicas)]
        self.rejections = Counter()
        self.waiting = 0
        self._arrivals = arrivals
        self._sums = list(accumulate(arrivals, initial=0.0))
        self._batch_s = service.table()
        self._autoscaler = autoscaler
        self._head = 0
        self._free = [(0.0, index, replica) for index, replica in enumerate(self.replicas)]
        self._made = replicas
        self._gone: set[int] = set()

    def run(self, duration_s: float, signal: Signal) -> Outcome:
        """Serve everything that arrives within a time, scaled by a signal."""
        scrape_s, sync_s = self.cluster.scrape_s, self.cluster.sync_s
        events = [(at, self._decide, signal) for at in _every(sync_s, sync_s, duration_s)]
        events += [(at, self._scrape, signal) for at in _every(scrape_s / 2, scrape_s, duration_s)]
        for at_s, act, by in sorted(events, key=itemgetter(0)):
            self._serve_until(at_s)
            act(at_s, by)
        self._serve_until(math.inf)
        self.outcome.replica_s += sum(duration_s - each.created_s for each in self.replicas)
        return self.outcome

    def ready(self, now_s: float) -> list[Replica]:
        """Return the replicas that serve."""
        return [each for each in self.replicas if each.ready_s <= now_s]

    def _serve_until(self, until_s: float) -> None:
        """Begin every batch that begins before a moment."""
        arrivals, free = self._arrivals, self._free
        while free and self._head < len(arrivals):
            free_s, index, replica = free[0]
            if index in self._gone:
                heapq.heappop(free)
                continue
            begin_s = max(free_s, arrivals[self._head])
            if begin_s >= until_s:
                return
            self._serve(begin_s, replica)
            if replica.free_s > free_s:
                heapq.heapreplace(free, (replica.free_s, index, replica))

    def _serve(self, begin_s: float, replica: Replica) -> None:
        """Let a replica take its share of what waits, after what has waited too long is refused."""
        arrivals, head, outcome = self._arrivals, self._head, self.outcome
        tail = bisect_right(arrivals, begin_s, head)
        if arrivals[head] < begin_s - self.cluster.deadline_s:
            kept = bisect_left(arrivals, begin_s - self.cluster.deadline_s, head, tail)
            outcome.rejected += kept - head
            self.rejections.value += kept - head
            head = self._head = kept
            if head == tail:
                return
        size = 1
        if tail - head > 1:
            size = min(math.ceil((tail - head) / len(self.ready(begin_s))), self.service.max_batch)
        finish_s, end = begin_s + self._batch_s[size], head + size
        in_time_s = finish_s - self.cluster.objective_s
        if arrivals[head] < in_time_s:
            outcome.late += bisect_left(arrivals, in_time_s, head, end) - head
        waited_s = size * begin_s - (self._sums[end] - self._sums[head])
        replica.begin(begin_s, finish_s, size, waited_s)
        self._head = end

    def _scrape(self, now_s: float, signal: Signal) -> None:
        del signal
        self.waiting = bisect_right(self._arrivals, now_s, self._head) - self._head
        for replica in self.ready(now_s):
            replica.settle(now_s)
            replica.cpu.value = replica.busy_s(now_s) * self.service.busy_cores
            for counter in (replica.queue, replica.request, replica.cpu):
                counter.scrape(now_s)
        self.rejections.scrape(now_s)

    def _decide(self, now_s: float, signal: Signal) -> None:
        current = len(self.replicas)
        wanted = self._autoscaler.decide(now_s, current, signal(self, now_s))
        for _ in range(wanted - current):
            self._add(now_s)
        for _ in range(current - wanted):
            self._remove(now_s)
        self.outcome.trace.append((now_s, len(self.ready(now_s)), wanted))

    def _add(self, now_s: float) -> None:
        ready_s = now_s + self.cluster.start_s
        made = Replica(now_s, ready_s, free_s=ready_s)
        self.replicas.append(made)
        heapq.heappush(self._free, (ready_s, self._made, made))
        self._made += 1

    def _remove(self, now_s: float) -> None:
        """Remove the youngest, which finishes what it has in hand."""
        gone = self.replicas.pop()
        (index,) = (index for _, index, replica in self._free if replica is gone)
        self._gone.add(index)
        last_s = gone.free_s if gone.size else now_s
        self.outcome.replica_s += max(now_s, last_s) - gone.created_s


def _every(first_s: float, step_s: float, until_s: float) -> list[float]:
    return [first_s + step_s * index for index in range(math.ceil((until_s - first_s) / step_s))]
