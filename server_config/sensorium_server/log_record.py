"""The server's log: one line for each record, as text or as JSON.

Triton's lines (`E1130 10:35:36.123456 71 model.cc:12] what`) become records too.
"""

import json
import re
import threading
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Literal

Level = Literal["debug", "info", "warning", "error"]
LEVELS: tuple[Level, ...] = ("debug", "info", "warning", "error")

_TRITON = re.compile(r"^([EWIV])\d{4} \d\d:\d\d:\d\d\.\d+ \d+ (\S+:\d+)\] (.*)$")
_TRITON_LEVELS: Mapping[str, Level] = {"E": "error", "W": "warning", "I": "info", "V": "debug"}


class Log:
    """Writes records as lines to `write`; safe to use from many threads."""

    def __init__(
        self,
        write: Callable[[str], None],
        style: Literal["text", "json"],
        level: Level,
        name: str = "",
    ) -> None:
        """`name` says which of several servers in this process it is of."""
        self._write = write
        self._name = name
        self._style = style
        self._least = LEVELS.index(level)
        self._lock = threading.Lock()
        self._triton_level: Level = "info"

    def is_shown(self, level: Level) -> bool:
        """Tell whether records of a level are written."""
        return LEVELS.index(level) >= self._least

    def record(self, level: Level, message: str, facts: Mapping[str, object]) -> None:
        """Write what happened to a request, if the level is shown."""
        if self.is_shown(level):
            self._put(level, "request", message, facts)

    def say(self, message: str, level: Level = "warning") -> None:
        """Write what the launcher has to say, whatever the level: it is little."""
        self._put(level, "launcher", message, {})

    def triton_line(self, line: str) -> None:
        """Write a line of Triton's own log, which knows the level already."""
        if self._style == "text":
            self._write_whole(line)
            return
        found = _TRITON.match(line)
        if found:
            self._triton_level = _TRITON_LEVELS[found[1]]
            self._put(self._triton_level, "triton", found[3], {"where": found[2]})
        else:
            # A record of many lines goes on.
            self._put(self._triton_level, "triton", line, {})

    def _put(self, level: Level, source: str, message: str, facts: Mapping[str, object]) -> None:
        if self._style == "json":
            now = datetime.now(UTC).isoformat(timespec="milliseconds")
            head = {"time": now, "level": level, "source": source, "message": message}
            if self._name:
                head["server"] = self._name
            self._write_whole(json.dumps({**head, **facts}, ensure_ascii=False))
            return
        block = str(facts.get("exception", "")).rstrip()
        words = [f"{key}={_shown(value)}" for key, value in facts.items() if key != "exception"]
        line = f"{message}: {' '.join(words)}" if words else message
        self._write_whole(f"{line}\n{block}" if block else line)

    def _write_whole(self, line: str) -> None:
        named = self._name and self._style == "text"
        with self._lock:
            self._write(f"{self._name}: {line}" if named else line)


def _shown(value: object) -> str:
    text = f"{value:.6f}" if isinstance(value, float) else str(value)
    return json.dumps(text) if " " in text else text
