import pytest

from sensorium_server.spans import Span, SpanTrees, spans_of

MS = 1_000_000


class Clock:
    """A clock that a test moves."""

    now = 0.0

    def __call__(self) -> float:
        """Return the time, seconds."""
        return self.now


def span(name: str, parent: str, start_ms: float, end_ms: float, **events_ms: float) -> Span:
    """Return a span whose id is its name."""
    return {
        "traceId": "t",
        "spanId": f"{parent}/{name}",
        "parentSpanId": parent,
        "name": name,
        "startTimeUnixNano": str(int(start_ms * MS)),
        "endTimeUnixNano": str(int(end_ms * MS)),
        "events": [
            {"name": key, "timeUnixNano": str(int(at * MS))} for key, at in events_ms.items()
        ],
    }


def request(*, reached: int = 2) -> list[Span]:
    """Return the spans of a request to the task `ask`, which has the stages `see` and `say`."""
    root = span("InferRequest", "", 0, 10)
    root["spanId"] = "root"
    task = span("ask", "root", 1, 9)
    task["attributes"] = [{"key": "triton.request_id", "value": {"stringValue": "r-1"}}]
    spans = [root, task]
    for number, stage in enumerate(("see", "say")):
        if number < reached:
            spans += [
                span(stage, "root/ask", 2 + number, 4 + number, QUEUE_START=2 + number),
                span("compute", f"root/ask/{stage}", 3 + number, 4 + number),
            ]
    return spans


@pytest.fixture
def clock() -> Clock:
    """Return a clock at 0."""
    return Clock()


@pytest.mark.parametrize("turned", [False, True], ids=["parents first", "children first"])
def test_a_request_from_its_spans(clock: Clock, turned: bool) -> None:  # noqa: FBT001 - parametrised
    """In whatever order the spans come: task, id, time in all, and time in each stage's queue."""
    trees = SpanTrees(clock)
    spans = request()
    trees.add(spans[::-1] if turned else spans)
    clock.now = 1

    (finished,) = trees.finished()

    assert (finished.model, finished.request_id, finished.seconds) == ("ask", "r-1", 0.01)
    assert {each.stage: each.queue_s for each in finished.stages} == {"see": 0.001, "say": 0.001}
    assert finished.is_whole(2)
    assert len(finished.spans) == 6
    assert trees.finished(at_once=True) == []


def test_late_children_are_waited_for(clock: Clock) -> None:
    """A span that comes a moment after its root still counts."""
    trees = SpanTrees(clock)
    *most, stage, compute = request()
    trees.add(most)
    clock.now = 0.3

    assert trees.finished() == []

    trees.add([stage, compute])
    clock.now = 0.6

    assert trees.finished()[0].is_whole(2)


def test_a_stage_that_was_not_reached(clock: Clock) -> None:
    """A request that ended early is not whole; nor is one that a stage's queue let expire."""
    trees = SpanTrees(clock)
    trees.add(request(reached=1))
    expired = [each for each in request() if each["spanId"] != "root/ask/say/compute"]

    assert not trees.finished(at_once=True)[0].is_whole(2)

    trees.add(expired)

    assert not trees.finished(at_once=True)[0].is_whole(2)


def test_orphans_are_forgotten(clock: Clock) -> None:
    """Spans whose root never comes do not pile up."""
    trees = SpanTrees(clock)
    trees.add(request()[1:])
    clock.now = 1000
    trees.finished()

    assert trees._children == {}


def test_spans_of_a_document() -> None:
    """All spans of all resources and scopes are found; an empty document has none."""
    scope = {"spans": request()}

    assert len(spans_of({"resourceSpans": [{"scopeSpans": [scope, scope]}]})) == 12
    assert spans_of({}) == []
