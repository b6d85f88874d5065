"""The overview: how many, how well, how fast, and what goes wrong."""

from panel import Panel, Row
from query import TASK, WHERE, Query, seen_rate

_FAILED, _VALID = (
    f"sum(avg_over_time(job:sensorium_requests_{kind}:rate5m{{{WHERE}}}[30d]))"
    for kind in ("failed", "valid")
)

_NOW = (
    Panel(
        "Requests",
        "Requests a second, over all tasks and replicas.",
        [Query(f"sum(job:sensorium_requests:rate5m{{{WHERE}}})", "requests")],
        unit="reqps",
        kind="stat",
        width=4,
    ),
    Panel(
        "Failed",
        "The share of requests that failed in five minutes, without those of invalid input.",
        [Query(f"clamp_min(max(job:sensorium_error_ratio:rate5m{{{WHERE}}}), 0)", "failed")],
        unit="percentunit",
        kind="stat",
        width=4,
        limit=0.0144,
    ),
    Panel(
        "Error budget left",
        "Left of the 0.1 % of 30 days' requests that may fail; below 0 the objective is missed.",
        [Query(f"1 - clamp_min({_FAILED} / {_VALID}, 0) / 0.001", "left")],
        unit="percentunit",
        kind="stat",
        width=4,
        limit=0,
        is_floor=True,
    ),
    Panel(
        "Slowest task",
        "Mean time from a request to its answer, of the task where it is longest.",
        [Query(f"max(task:sensorium_request_seconds:mean5m{{{TASK}}})", "mean")],
        unit="s",
        kind="stat",
        width=4,
        limit=5,
    ),
    Panel(
        "Targets up",
        "Metrics ports that answer; each replica has two.",
        [Query(f"count(up{{{WHERE}}} == 1)", "up")],
        kind="stat",
        width=4,
        limit=1,
        is_floor=True,
    ),
    Panel(
        "Restarts in a day",
        "How often a Triton died by itself and was started again.",
        [Query(f"sum(increase(sensorium_server_restarts_total{{{WHERE}}}[1d]))", "restarts")],
        kind="stat",
        width=4,
        limit=1,
    ),
)

_TASKS = (
    Panel(
        "Requests by task",
        "Requests a second, failed ones too.",
        [Query(f"sum by (task) (task:sensorium_requests:rate5m{{{TASK}}})", "{{task}}")],
        unit="reqps",
        kind="stack",
    ),
    Panel(
        "Failed requests by task",
        "Requests a second that were answered by an error, invalid input included.",
        [
            Query(
                f'sum by (task) (task:sensorium_requests:rate5m{{{TASK},outcome="error"}})',
                "{{task}}",
            )
        ],
        unit="reqps",
    ),
    Panel(
        "Mean time to answer",
        "From a request to its answer, by Triton's counters.",
        [Query(f"max by (task) (task:sensorium_request_seconds:mean5m{{{TASK}}})", "{{task}}")],
        unit="s",
    ),
    Panel(
        "Time of the slowest hundredth",
        "p99 of answered requests, which `sensorium serve --request-metrics` alone measures. "
        "SensoriumLatencyHigh warns at the line, and at 10 s for video, drawing and long texts.",
        [Query(f"max by (task) (task:sensorium_request_seconds:p99_5m{{{TASK}}})", "{{task}}")],
        unit="s",
        limit=2,
    ),
)

_WRONG = (
    Panel(
        "How fast the error budget burns",
        "1 spends it in exactly 30 days; at 14.4, for an hour, SensoriumErrorBudgetBurn fires.",
        [
            Query(
                f"clamp_min(max(job:sensorium_error_ratio:rate{window}{{{WHERE}}}), 0) / 0.001",
                window,
            )
            for window in ("5m", "1h", "6h", "3d")
        ],
        limit=14.4,
    ),
    Panel(
        "Refused by stage and reason",
        "Requests a second that a stage answered by an error, by its class; `triton`: cancelled, "
        "or refused by a queue.",
        [
            Query(
                f"sum by (stage, reason) (stage:sensorium_refused:rate5m{{{WHERE}}}) > 0.001",
                "{{stage}}: {{reason}}",
            )
        ],
        unit="reqps",
    ),
    Panel(
        "Files that cannot be read",
        "Pictures, sounds and videos a second whose decoding failed.",
        [
            Query(
                seen_rate("sensorium_media_decode_errors_total", "modality, reason", WHERE),
                "{{modality}}: {{reason}}",
            )
        ],
        unit="reqps",
    ),
    Panel(
        "Alerts",
        "What fires or is about to; docs/operations.md says what to do.",
        [
            Query(
                'count by (alertname, severity, alertstate) (ALERTS{alertname=~"Sensorium.+"})',
                "{{alertname}} ({{alertstate}})",
            )
        ],
        kind="table",
    ),
)

ROWS = (Row("Now", _NOW), Row("Tasks", _TASKS), Row("What goes wrong", _WRONG))
