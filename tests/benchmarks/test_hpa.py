"""The autoscaler's rule against the worked examples of Kubernetes' documentation."""

import pytest

from scaling.hpa import Autoscaler, Behavior, Policy, Rules, from_total, from_utilization

FREE = Rules(0, (Policy("Percent", 10_000, 15),))


def test_value_twice_the_target_doubles() -> None:
    """With 200m where 100m are wanted the replicas double; with 50m they are halved."""
    assert from_total(3, 3 * 200, 100) == 6
    assert from_utilization([200.0] * 3, 100) == 6
    assert from_total(3, 3 * 50, 100) == 2
    assert from_utilization([50.0] * 3, 100) == 2


def test_walkthrough() -> None:
    """One pod at 305 % where 50 % are wanted becomes seven."""
    assert from_utilization([3.05], 0.5) == 7


@pytest.mark.parametrize(("total", "wanted"), [(1090, 10), (1110, 12), (910, 10), (890, 9)])
def test_within_a_tenth_nothing_happens(total: float, wanted: int) -> None:
    """A ratio that is not more than a tenth off leaves the replicas as they are."""
    assert from_total(10, total, 100) == wanted
    assert from_utilization([total / 10] * 10, 100) == wanted


def test_pods_that_are_not_ready_hold_a_scale_up_back() -> None:
    """A starting pod counts as idle when scaling up, never turns the direction, is ignored down."""
    assert from_utilization([2.0, 2.0], 1) == 4
    assert from_utilization([2.0, 2.0, None], 1) == 4
    assert from_utilization([2.0, 2.0, None, None, None], 1) == 5
    assert from_utilization([0.2, 0.2, None], 1) == 1
    assert from_utilization([None, None], 1) == 2


def settled(scaler: Autoscaler, current: int, wish: int, steps: int, step_s: float) -> list[int]:
    """Return the replicas after each decision about one and the same wish."""
    found = []
    for index in range(steps):
        current = scaler.decide(index * step_s, current, wish)
        found.append(current)
    return found


def test_policies_down() -> None:
    """From 80 to 10 by 10 % or 4 pods a minute: 8 go, then 8 again, and 4 at a time below 40."""
    policies = (Policy("Pods", 4, 60), Policy("Percent", 10, 60))
    scaler = Autoscaler(1, 100, Behavior(FREE, Rules(0, policies)))

    after = settled(scaler, 80, 10, 14, 60)

    assert after[:2] == [72, 64]
    below = [count for count in after if count < 40]
    assert below[:4] == [below[0] - 4 * index for index in range(4)]
    assert after[-1] == 10


def test_defaults_up() -> None:
    """Each 15 seconds replicas double or grow by four, whichever is more."""
    assert settled(Autoscaler(1, 100), 1, 90, 6, 15) == [5, 10, 20, 40, 80, 90]


def test_changes_within_a_period_count_together() -> None:
    """Four pods a minute stay four when decisions come every 15 seconds."""
    scaler = Autoscaler(1, 100, Behavior(Rules(0, (Policy("Pods", 4, 60),)), FREE))

    assert settled(scaler, 2, 50, 6, 15) == [6, 6, 6, 6, 10, 10]


def test_stabilization_down() -> None:
    """Within five minutes the highest recommendation counts, so a dip changes nothing."""
    scaler = Autoscaler(1, 100)

    assert scaler.decide(0, 10, 10) == 10
    assert settled_at(scaler, 10, 2, range(15, 300, 15)) == {10}
    assert scaler.decide(300, 10, 2) == 2


def test_first_replicas_count_as_recommended() -> None:
    """An autoscaler that has just begun does not take away what it finds."""
    scaler = Autoscaler(1, 100)

    assert scaler.decide(0, 6, 1) == 6
    assert scaler.decide(300, 6, 1) == 1


def test_stabilization_up() -> None:
    """With a window for growth the lowest recommendation within it counts."""
    scaler = Autoscaler(1, 100, Behavior(Rules(60, FREE.policies), FREE))

    assert scaler.decide(0, 2, 2) == 2
    assert settled_at(scaler, 2, 9, range(15, 60, 15)) == {2}
    assert scaler.decide(60, 2, 9) == 9


def settled_at(scaler: Autoscaler, current: int, wish: int, at: range) -> set[int]:
    """Return what is decided at several moments while the replicas stay."""
    return {scaler.decide(at_s, current, wish) for at_s in at}


def test_limits() -> None:
    """There are never fewer replicas than the least, nor more than the most."""
    scaler = Autoscaler(2, 6, Behavior(FREE, FREE))

    assert scaler.decide(0, 4, 50) == 6
    assert scaler.decide(15, 6, 0) == 2
