"""Which nodes of a graph a lower precision cannot have: found by building and judging, by halves.

A node is guilty if the engine is only right with that node in fp32. With the nodes in the order of
the graph, the shortest beginning that has to be in fp32 ends with a guilty node. Kept for good, it
stands before the next search, until the guilty ones alone are enough. What overflows does so in a
row: the next search begins beside the last guilty node, and goes on in growing steps. That takes a
logarithm of the nodes for each guilty one at most, and two trials within a row.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

Trial = TypeVar("Trial")
Attempt = Callable[[frozenset[str]], Trial | None]
"""Builds and judges an engine with these nodes in fp32; None if it is not right."""


@dataclass(frozen=True, slots=True)
class Kept(Generic[Trial]):
    """The nodes to keep in fp32, what the trial with them gave, and how many trials it took.

    `is_least` is whether no fewer would do; otherwise the trials were used up.
    """

    nodes: frozenset[str]
    trial: Trial
    trials: int
    is_least: bool


def kept_nodes(nodes: Sequence[str], attempt: Attempt[Trial], limit: int) -> Kept[Trial] | None:
    """Search the nodes that must stay in fp32; None if even all of them do not help.

    Args:
        nodes: All that could be, in the order of the graph; an engine with none of them has failed.
        attempt: Tries some of them.
        limit: The most trials, at least 1; when they are used up, the smallest set that has passed
            counts.
    """
    best = frozenset(nodes)
    trial = attempt(best)
    trials = 1
    if trial is None:
        return None
    guilty: frozenset[str] = frozenset()
    step = len(nodes)
    while best != guilty:
        suspects = [node for node in nodes if node not in guilty]
        # `guilty` with the first `high` suspects passes, with the first `low` it fails.
        low, high = 0, len(best - guilty)
        while high - low > 1:
            if trials == limit:
                return Kept(best, trial, trials, is_least=False)
            middle = max((low + high) // 2, high - step)
            kept = guilty.union(suspects[:middle])
            tried = attempt(kept)
            trials += 1
            if tried is None:
                low, step = middle, len(nodes)
            else:
                high, best, trial, step = middle, kept, tried, 2 * step
        guilty |= {suspects[high - 1]}
        step = 1
        if best != guilty:
            if trials == limit:
                return Kept(best, trial, trials, is_least=False)
            tried = attempt(guilty)
            trials += 1
            if tried is not None:
                best, trial = guilty, tried
    return Kept(best, trial, trials, is_least=True)
