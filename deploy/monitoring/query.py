"""PromQL as the dashboards need it again and again."""

from dataclasses import dataclass

WHERE = 'job="sensorium",namespace=~"$namespace"'
"""Labels of everything that one installation, or all of them, export."""
TASK = f'{WHERE},task=~"$task"'
STAGE = f'{WHERE},stage=~"$stage"'


@dataclass(frozen=True, slots=True)
class Query:
    """PromQL, and what a series is called: `{{label}}` stands for a label's value."""

    expression: str
    legend: str


def rate(counter: str, labels: str, where: str) -> str:
    """Sum a counter's growth a second by labels (`"stage"`, `"stage, reason"`)."""
    return f"sum by ({labels}) (rate({counter}{{{where}}}[$__rate_interval]))"


def seen_rate(counter: str, labels: str, where: str) -> str:
    """Do the same, but only for what has grown at all in the time that is looked at."""
    grown = f"sum by ({labels}) (increase({counter}{{{where}}}[$__range])) > 0"
    return f"{rate(counter, labels, where)} and {grown}"


def mean(histogram: str, labels: str, where: str) -> str:
    """Return the mean of what a histogram has observed, by labels."""
    total, count = (rate(f"{histogram}_{part}", labels, where) for part in ("sum", "count"))
    return f"{total} / {count}"
