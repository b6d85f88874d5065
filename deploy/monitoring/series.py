"""What a dashboard's queries give: Grafana's variables filled in, Prometheus asked."""

import json
import math
import re
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sensorium.errors import ConfigurationError, InvalidInputError

_TIMEOUT_S = 60.0
_VARIABLE = re.compile(r"\$(\w+)")
_LABEL = re.compile(r"\{\{\s*(\w+)\s*\}\}")
_SCRAPES_PER_RATE = 4


@dataclass(frozen=True, slots=True)
class Window:
    """From when to when, in seconds since 1970, and how far points and scrapes lie apart."""

    start_s: float
    end_s: float
    step_s: float
    scrape_interval_s: float


@dataclass(frozen=True, slots=True)
class Series:
    """A line: its name in the legend, its times in seconds since 1970, its values."""

    name: str
    labels: Mapping[str, str]
    times_s: Sequence[float]
    values: Sequence[float]

    @property
    def last(self) -> float:
        """The newest value."""
        return self.values[-1]


Shown = tuple[Mapping[str, Any], Sequence[Series]]
"""A panel of Grafana's JSON, and what its queries gave."""


def filled(expression: str, window: Window) -> str:
    """Fill in Grafana's variables as Grafana does when everything is chosen.

    Raises:
        InvalidInputError: a variable is `$__something` that is not known here.
    """
    rate_s = max(window.step_s, 1) + window.scrape_interval_s
    rate_s = max(rate_s, _SCRAPES_PER_RATE * window.scrape_interval_s)

    def value(match: re.Match[str]) -> str:
        if match[1] == "__rate_interval":
            return f"{math.ceil(rate_s)}s"
        if match[1] == "__range":
            return f"{math.ceil(window.end_s - window.start_s)}s"
        if match[1].startswith("__"):
            raise InvalidInputError(f"${match[1]} in {expression!r} is not known here.")
        return ".*"

    return _VARIABLE.sub(lambda match: match[0] if match[1].isdigit() else value(match), expression)


class Prometheus:
    """A Prometheus server that is asked."""

    def __init__(self, url: str) -> None:
        self._url = url.rstrip("/")

    def series(self, expression: str, legend: str, window: Window) -> list[Series]:
        """Return what a dashboard's query gives over a window, but for what is no number.

        Raises:
            ConfigurationError: Prometheus cannot be reached.
            InvalidInputError: Prometheus refuses the query.
        """
        found = self._get(
            "query_range",
            query=filled(expression, window),
            start=str(window.start_s),
            end=str(window.end_s),
            step=str(window.step_s),
        )
        return [made for one in found["result"] if (made := _series(one, legend)).values]

    def _get(self, path: str, **arguments: str) -> Any:  # noqa: ANN401 - JSON
        address = f"{self._url}/api/v1/{path}?{urllib.parse.urlencode(arguments)}"
        if not address.startswith(("http://", "https://")):
            raise ConfigurationError(f"{self._url!r} is not the address of a Prometheus.")
        try:
            with urllib.request.urlopen(address, timeout=_TIMEOUT_S) as answer:  # noqa: S310
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            reason = json.loads(error.read() or b"{}").get("error", error.reason)
            raise InvalidInputError(f"Prometheus refuses {arguments}: {reason}") from error
        except OSError as error:
            raise ConfigurationError(
                f"no Prometheus answers at {self._url}: {error}. Name it with --prometheus."
            ) from error


def _series(found: Mapping[str, Any], legend: str) -> Series:
    labels = found["metric"]
    points = [(float(time), float(text)) for time, text in found["values"]]
    points = [point for point in points if math.isfinite(point[1])]
    return Series(
        _LABEL.sub(lambda match: labels.get(match[1], ""), legend),
        labels,
        [time for time, _ in points],
        [value for _, value in points],
    )
