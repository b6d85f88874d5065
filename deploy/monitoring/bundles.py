"""Bundles and parity: what is served, whether it is proven, and how it fares."""

from panel import Panel, Row
from query import WHERE, Query

_REQUESTS = f"rate(sensorium_request_seconds_count{{{WHERE}}}[$__rate_interval])"
_NAMED = f'label_replace({_REQUESTS}, "bundle", "the first", "", "")'

_SERVED = (
    Panel(
        "Proven",
        "Whether the served answers were compared with the checkpoint's and agreed.",
        [Query(f"min by (bundle) (sensorium_parity_passed{{{WHERE}}})", "{{bundle}}")],
        kind="stat",
        width=6,
        limit=1,
        is_floor=True,
        words={0: "no", 1: "yes"},
    ),
    Panel(
        "Compared on",
        "Inputs on which they were compared.",
        [Query(f"min by (bundle) (sensorium_parity_inputs{{{WHERE}}})", "{{bundle}}")],
        kind="stat",
        width=6,
    ),
    Panel(
        "Different contents",
        "Manifests of one bundle over all replicas: more than 1 outside a rollout is wrong.",
        [
            Query(
                "count by (bundle) "
                f"(count by (bundle, manifest) (sensorium_bundle_info{{{WHERE}}}))",
                "{{bundle}}",
            )
        ],
        kind="stat",
        width=6,
        limit=2,
    ),
    Panel(
        "Replicas",
        "Servers that have a bundle.",
        [Query(f"count by (bundle) (sensorium_bundle_info{{{WHERE}}})", "{{bundle}}")],
        kind="stat",
        width=6,
    ),
    Panel(
        "Bundles",
        "What each replica serves: manifest is the start of its digest.",
        [
            Query(
                f"sensorium_bundle_info{{{WHERE}}}",
                "{{instance}}: {{bundle}}, {{manifest}}, {{precision}}",
            )
        ],
        kind="table",
        width=24,
        height=5,
    ),
)

_FARES = (
    Panel(
        "Requests by bundle",
        "Requests a second; tasks without a prefix are those of the first bundle.",
        [
            Query(
                f'sum by (bundle) (label_replace({_NAMED}, "bundle", "$1", "task", "(.+)[.].+"))',
                "{{bundle}}",
            )
        ],
        unit="reqps",
        kind="stack",
    ),
    Panel(
        "Restarts",
        "Tritons that died by themselves, in 15 minutes.",
        [Query(f"increase(sensorium_server_restarts_total{{{WHERE}}}[15m])", "{{instance}}")],
    ),
)

ROWS = (Row("What is served", _SERVED), Row("How it fares", _FARES))
