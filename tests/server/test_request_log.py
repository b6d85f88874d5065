import json
from typing import Any

import pytest

from sensorium_server.log_record import Log
from sensorium_server.request_log import REFUSED, RequestLog
from sensorium_server.spans import FinishedRequest, StageTime

SAID = {
    "event": "stage failed",
    "request_id": "r-1",
    "stage": "see",
    "outcome": "invalid_input",
    "trace_id": "t",
    "span_id": "s-1",
}
STEPS = ("see", "say")


class Lines(list[str]):
    """A log's lines and the records that they are."""

    now = 0.0

    def log(self) -> RequestLog:
        """Return a request log that writes here, by a clock that a test moves."""
        return RequestLog(Log(self.append, "json", "info"), lambda: self.now)

    def read(self) -> list[dict[str, Any]]:
        """Return the records without what every record has."""
        common = ("time", "source")
        return [{k: v for k, v in json.loads(x).items() if k not in common} for x in self]


def finished(*stages: str, span_id: str = "s-1") -> FinishedRequest:
    """Return a finished request that has begun these stages."""
    times = [StageTime(stage, 0.001, 0.002) for stage in stages]
    return FinishedRequest("ask", "r-1", "t", False, 0.5, times, [{"spanId": span_id}])


@pytest.fixture
def lines() -> Lines:
    """Return no lines."""
    return Lines()


def test_stage_and_spans_make_one_record(lines: Lines) -> None:
    """A failure that a stage told of and the spans of its request are one record."""
    log = lines.log()
    request = finished("see")

    assert log.take(json.dumps(SAID))
    failure = log.failure_of(request, STEPS)
    log.write(request, failure, is_task=True)
    log.write_unjoined(at_once=True)

    assert failure is not None
    assert failure.reason == "invalid_input"
    assert lines.read() == [
        {
            "level": "warning",
            "message": "request failed",
            "request_id": "r-1",
            "task": "ask",
            "stage": "see",
            "outcome": "invalid_input",
            "trace_id": "t",
            "duration_s": 0.5,
        }
    ]


def test_without_spans_the_stage_is_enough(lines: Lines) -> None:
    """When requests are not traced, what the stage says is the record, at once."""
    lines.log().take(json.dumps({key: SAID[key] for key in SAID if key != "span_id"}))

    assert lines.read()[0]["outcome"] == "invalid_input"


def test_spans_that_do_not_come(lines: Lines) -> None:
    """A failure is not lost when its spans are."""
    log = lines.log()
    log.take(json.dumps(SAID))
    log.write_unjoined()
    early = list(lines)
    lines.now = 100
    log.write_unjoined()

    assert early == []
    assert [record["stage"] for record in lines.read()] == ["see"]


def test_a_queue_that_refused(lines: Lines) -> None:
    """A request that no stage has failed, but did not reach them all, was refused by a queue."""
    failure = lines.log().failure_of(finished("see"), STEPS)

    assert failure is not None
    assert failure.facts == {"stage": "say", "outcome": REFUSED}


def test_success_is_info(lines: Lines) -> None:
    """A request that was answered is a record of the level info; a stage alone has no task."""
    log = lines.log()
    request = finished(*STEPS)

    assert log.failure_of(request, STEPS) is None
    assert log.failure_of(request, None) is None
    log.write(request, None, is_task=False)

    (record,) = lines.read()
    assert (record["level"], record["outcome"]) == ("info", "ok")
    assert "task" not in record


def test_our_own_failures_are_errors(lines: Lines) -> None:
    """What is no fault of the caller is an error, with the traceback."""
    said = {"event": "stage failed", "request_id": "", "stage": "see", "outcome": "server"}
    lines.log().take(json.dumps({**said, "exception": "Traceback …"}))

    assert (lines.read()[0]["level"], lines.read()[0]["exception"]) == ("error", "Traceback …")


@pytest.mark.parametrize("line", ["I0101 x", "{not json", '{"event": "other"}', "{}"])
def test_other_lines_are_left(lines: Lines, line: str) -> None:
    """A line that no stage wrote is not taken."""
    assert not lines.log().take(line)
