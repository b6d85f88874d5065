import json
from typing import Any

import pytest

from sensorium_server.log_record import Level, Log

LINE = "E1130 10:35:36.123456 71 model_repository_manager.cc:12] failed to load 'x'"


def written(lines: list[str]) -> list[dict[str, Any]]:
    """Read JSON lines."""
    return [json.loads(line) for line in lines]


def test_triton_lines_become_records() -> None:
    """A line of Triton's has its level, place and message; one that goes on keeps the level."""
    lines: list[str] = []
    log = Log(lines.append, "json", "warning")
    log.triton_line(LINE)
    log.triton_line("  more of it")

    first, second = written(lines)
    assert (first["level"], first["source"]) == ("error", "triton")
    assert first["message"] == "failed to load 'x'"
    assert first["where"] == "model_repository_manager.cc:12"
    assert (second["level"], second["message"]) == ("error", "  more of it")
    assert first["time"].endswith("+00:00")


def test_text_stays_as_it_is() -> None:
    """As text, Triton's lines and the launcher's words are not touched."""
    lines: list[str] = []
    log = Log(lines.append, "text", "warning")
    log.triton_line(LINE)
    log.say("ready again", "info")

    assert lines == [LINE, "ready again"]


@pytest.mark.parametrize(("level", "shown"), [("info", False), ("warning", True), ("error", True)])
def test_records_below_the_level_are_not_written(level: Level, shown: bool) -> None:  # noqa: FBT001 - parametrised
    """A record is written from the level on that the setting names."""
    lines: list[str] = []
    Log(lines.append, "json", "warning").record(level, "request", {})

    assert bool(lines) == shown


def test_record_as_text() -> None:
    """As text a record is one line of key=value, and a traceback below it."""
    lines: list[str] = []
    facts = {"task": "a b", "duration_s": 0.25, "exception": "Traceback\n  line\n"}
    Log(lines.append, "text", "info").record("error", "request failed", facts)

    assert lines == ['request failed: task="a b" duration_s=0.250000\nTraceback\n  line']
