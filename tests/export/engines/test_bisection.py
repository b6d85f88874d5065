"""The search for nodes that a precision cannot have."""

from hypothesis import given
from hypothesis import strategies as st

from sensorium_export.engines.bisection import Kept, kept_nodes


def search(count: int, guilty: set[int], limit: int = 10_000) -> Kept[frozenset[str]] | None:
    """Search among so many nodes, of which some must be kept; count what is tried."""
    trials = []

    def attempt(kept: frozenset[str]) -> frozenset[str] | None:
        trials.append(kept)
        return kept if {str(one) for one in guilty} <= kept else None

    found = kept_nodes([str(number) for number in range(count)], attempt, limit)
    assert found is None or found.trials == len(trials) <= limit
    return found


@given(st.data())
def test_exactly_the_guilty_ones_are_kept(data: st.DataObject) -> None:
    """Whatever they are, no node more and none less is kept, and the trial is the one with them."""
    count = data.draw(st.integers(1, 60))
    guilty = data.draw(st.sets(st.integers(0, count - 1), min_size=1, max_size=6))

    found = search(count, guilty)

    assert found is not None
    assert found.nodes == found.trial == {str(one) for one in guilty}
    assert found.is_least


@given(st.data())
def test_interrupted_search_keeps_more_but_enough(data: st.DataObject) -> None:
    """When the trials are used up, what is kept has passed, and the report says that it is more."""
    count = data.draw(st.integers(1, 60))
    guilty = data.draw(st.sets(st.integers(0, count - 1), min_size=1, max_size=6))

    found = search(count, guilty, limit=data.draw(st.integers(1, 8)))

    assert found is not None
    assert found.nodes == found.trial >= {str(one) for one in guilty}
    assert not found.is_least or found.nodes == {str(one) for one in guilty}


def test_what_nothing_helps_is_told() -> None:
    """An engine that is wrong in fp32 too is not searched for nodes."""
    assert search(20, {20}) is None


def test_row_of_guilty_nodes_is_found_quickly() -> None:
    """Ten neighbours among a thousand take little more than one alone."""
    alone, row = search(1000, {500}), search(1000, set(range(500, 510)))

    assert alone is not None
    assert row is not None
    assert row.trials <= alone.trials + 2 * 10
