"""The pipeline: which stage is the limit, and what its runs look like."""

from panel import Panel, Row
from query import STAGE, WHERE, Query, mean, rate

_LIMIT = (
    Panel(
        "The limit",
        "The stage that most requests wait for. More instances or replicas help here, and nowhere "
        "else.",
        [Query(f"topk(1, stage:sensorium_waiting:mean5m{{{STAGE}}})", "{{stage}}")],
        kind="leader",
        width=6,
        limit=16,
    ),
    Panel(
        "Requests that wait, by stage",
        "Mean number in each queue: the seconds that requests wait in each second. "
        "SensoriumQueueLong warns at the line.",
        [Query(f"stage:sensorium_waiting:mean5m{{{STAGE}}}", "{{stage}}")],
        kind="stack",
        width=18,
        limit=16,
    ),
    Panel(
        "Busy instances, by stage",
        "Mean number of runs under way. A stage at its number of instances can do no more.",
        [Query(f"stage:sensorium_busy:mean5m{{{STAGE}}}", "{{stage}}")],
        kind="stack",
    ),
    Panel(
        "Wait for a stage",
        "Mean time that a request waits in a stage's queue; for a decoder, until it has a slot.",
        [Query(mean("sensorium_stage_queue_seconds", "stage", STAGE), "{{stage}}")],
        unit="s",
    ),
)

_RUNS = (
    Panel(
        "Time of a run, by stage",
        "p95 of one batch's computation.",
        [
            Query(
                "histogram_quantile(0.95, "
                + rate("sensorium_stage_seconds_bucket", "stage, le", STAGE)
                + ")",
                "{{stage}}",
            )
        ],
        unit="s",
    ),
    Panel(
        "Items in a run, by stage",
        "Mean batch: at 1 requests come one by one, and nothing is gained by batching.",
        [Query(mean("sensorium_batch_size", "stage", STAGE), "{{stage}}")],
    ),
    Panel(
        "Runs by stage",
        "Batches a second.",
        [Query(rate("sensorium_stage_seconds_count", "stage", STAGE), "{{stage}}")],
        unit="ops",
    ),
    Panel(
        "Tokens",
        "Tokens generated a second.",
        [Query(rate("sensorium_tokens_generated_total", "stage", STAGE), "{{stage}}")],
        unit="ops",
    ),
)

_MACHINE = (
    Panel(
        "Media",
        "Bytes a second that came to be decoded.",
        [Query(rate("sensorium_media_bytes_total", "modality", WHERE), "{{modality}}")],
        unit="Bps",
        width=8,
    ),
    Panel(
        "Processors",
        "Share of the machine's processors in use, as Triton sees it.",
        [Query(f"nv_cpu_utilization{{{WHERE}}}", "{{instance}}")],
        unit="percentunit",
        width=8,
        limit=1,
    ),
    Panel(
        "Memory",
        "Memory of the machine in use, as Triton sees it.",
        [Query(f"nv_cpu_memory_used_bytes{{{WHERE}}}", "{{instance}}")],
        unit="bytes",
        width=8,
    ),
)

ROWS = (Row("Which stage is the limit", _LIMIT), Row("Runs", _RUNS), Row("The machine", _MACHINE))
