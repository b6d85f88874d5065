"""Results as tables: on a terminal, and in Markdown for the page that shows them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.table import Table as RichTable

from harness.probe import PHASES
from harness.repository import last_encoder
from harness.rounds import ALL_CORES, RAW, RAW_WITH_PREPROCESSING
from harness.summary import AIM_ADDED_MS, AIM_BUNDLE, AIM_RATIO, BASELINES

_NAMES = {"vit-b-32": "ViT-B/32 size"}
_MODELS_SHOWN = 3


@dataclass(frozen=True, slots=True)
class Table:
    """A title, the heads of the columns and the rows; the first column is text."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def for_terminal(self) -> RichTable:
        """Return it for rich."""
        table = RichTable(title=self.title, title_justify="left")
        for number, column in enumerate(self.columns):
            table.add_column(column, justify="right" if number else "left")
        for row in self.rows:
            table.add_row(*row)
        return table

    def markdown(self) -> str:
        """Return it as Markdown."""
        lines = [
            self.columns,
            ("---", *("---:" for _ in self.columns[1:])),
            *self.rows,
        ]
        body = "\n".join(f"| {' | '.join(line)} |" for line in lines)
        return f"**{self.title}**\n\n{body}"


def tables(results: Mapping[str, Any]) -> list[Table]:
    """Return all tables of a run."""
    bundles = results["bundles"]
    return [
        _throughput(bundles),
        _latency(bundles),
        _stages(bundles),
        _processor(bundles),
        _server(bundles),
    ]


def markdown(results: Mapping[str, Any]) -> str:
    """Return a run as Markdown: where it ran, the tables, and whether the aims were met."""
    machine, versions = results["machine"], results["versions"]
    head = (
        f"`{results['command']}` on {machine['processor']}, {machine['cores']} cores, "
        f"{machine['memory_gib']} GiB; Triton {versions['triton']}, "
        f"ONNX Runtime {versions['onnxruntime']}, Python {versions['python']}; "
        f"{results['plan']['rounds']} alternating rounds of {results['plan']['seconds']:g} s "
        f"for each figure, median (least…greatest)."
    )
    aims = "\n".join(f"- {line}" for line in verdicts(results))
    return "\n\n".join([head, *(table.markdown() for table in tables(results)), aims])


def verdicts(results: Mapping[str, Any]) -> list[str]:
    """Say for each aim whether it was met, and by how much."""
    said = []
    for bundle, task, found in _each(results["bundles"]):
        ratio, added = found["ratio"][RAW]["median"], found["added_ms"]["median"]
        if bundle == AIM_BUNDLE:
            word = _word(met=ratio >= AIM_RATIO)
            said.append(
                f"{_label(bundle, task)}: {ratio:.2f} of raw throughput; "
                f"the aim of at least {AIM_RATIO:g} is {word}."
            )
        word = _word(met=added <= AIM_ADDED_MS)
        said.append(
            f"{_label(bundle, task)}: {added:.2f} ms added at concurrency 1; "
            f"the aim of at most {AIM_ADDED_MS:g} is {word}."
        )
    return said


def _word(*, met: bool) -> str:
    return "met" if met else "missed"


def _each(
    bundles: Sequence[Mapping[str, Any]],
) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    for bundle in bundles:
        for task, found in bundle["tasks"].items():
            yield bundle["name"], task, found


def _label(bundle: str, task: str) -> str:
    return f"{_NAMES.get(bundle, bundle)} {task}"


def _throughput(bundles: Sequence[Mapping[str, Any]]) -> Table:
    rows = []
    for bundle, task, found in _each(bundles):
        most = found["saturation"]
        served = _number(found["served"][str(most)]["rate"]["median"])
        rows.append(
            (
                _label(bundle, task),
                f"{_number(found[RAW]['median'])} · {found['raw_batch']}",
                _number(found[RAW_WITH_PREPROCESSING]["median"]),
                _number(found[ALL_CORES]["median"]),
                f"{served} · {most}",
                *(_spread(found["ratio"][name]) for name in BASELINES),
            )
        )
    columns = (
        "task", "raw · batch", "raw + pre", "all cores + pre", "served · concurrency",
        "served / raw", "/ raw + pre", "/ all cores + pre",
    )  # fmt: skip
    return Table("Throughput at saturation, requests per second", columns, tuple(rows))


def _latency(bundles: Sequence[Mapping[str, Any]]) -> Table:
    rows: list[tuple[str, ...]] = []
    for bundle, task, found in _each(bundles):
        chain = _percentiles(found["in_process_ms"])
        encoder = last_encoder(found["in_process_stages_ms"])
        rows.append((_label(bundle, task), "in process", "", *chain, "", "", "", ""))
        rows += [
            (
                "",
                concurrency,
                _number(served["rate"]["median"]),
                *_percentiles(served["latency_ms"]),
                _spread(found["added_ms"]) if concurrency == "1" else "",
                f"{served['stages'][encoder]['batch']:.1f}",
                f"{served['server_cpu_share']:.0%}",
                f"{served['client_cpu_share']:.0%}",
            )
            for concurrency, served in found["served"].items()
        ]
    columns = (
        "task", "concurrency", "per s", "p50 ms", "p95 ms", "p99 ms", "added ms",
        "batch", "server CPU", "client CPU",
    )  # fmt: skip
    title = "Latency; batch is the last encoder's, CPU the share of all cores"
    return Table(title, columns, tuple(rows))


def _stages(bundles: Sequence[Mapping[str, Any]]) -> Table:
    """Show each stage at concurrency 1, beside the same stage without a server."""
    rows: list[tuple[str, ...]] = []
    for bundle, task, found in _each(bundles):
        served = found["served"]["1"]["stages"]
        alone = {**found["in_process_stages_ms"], task: found["in_process_ms"]["p50"]}
        for stage in (*found["in_process_stages_ms"], task):
            times = served[stage]
            rows.append(
                (
                    "" if rows and stage != next(iter(alone)) else _label(bundle, task),
                    "whole" if stage == task else stage,
                    _number(alone[stage]),
                    *(_number(times[phase]) for phase in PHASES),
                )
            )
    columns = ("task", "stage", "in process", "queue", "input", "compute", "output")
    title = "Where the time goes at concurrency 1, ms; from queue to output by Triton's statistics"
    return Table(title, columns, tuple(rows))


def _processor(bundles: Sequence[Mapping[str, Any]]) -> Table:
    """Show who uses the processor at saturation."""
    rows = []
    for bundle, task, found in _each(bundles):
        spent = found["served"][str(found["saturation"])]["cpu_ms_per_item"]
        models = sorted(
            ((ms, name) for name, ms in spent.items() if name not in {"client", "tritonserver"}),
            reverse=True,
        )
        shown = [f"{name} {ms:.2f}" for ms, name in models[:_MODELS_SHOWN]]
        rest = sum(ms for ms, _ in models[_MODELS_SHOWN:])
        rows.append(
            (
                _label(bundle, task), f"{sum(spent.values()):.2f}", ", ".join(shown),
                f"{rest:.2f}", f"{spent['tritonserver']:.2f}", f"{spent['client']:.2f}",
            )
        )  # fmt: skip
    columns = ("task", "all", "largest models", "other models", "Triton", "client")
    return Table("Processor time at saturation, ms per request", columns, tuple(rows))


def _server(bundles: Sequence[Mapping[str, Any]]) -> Table:
    rows = [
        (
            _NAMES.get(bundle["name"], bundle["name"]),
            bundle["weights"],
            _spread(bundle["startup_s"]),
            _memory(bundle["memory_mib"]["ready"]),
            _memory(bundle["memory_mib"]["after_load"]),
        )
        for bundle in bundles
    ]
    columns = ("server", "weights", "start to ready, s", "MiB when ready", "MiB after load")
    return Table("Server; memory as PSS (RSS), with its Python processes", columns, tuple(rows))


def _memory(memory: Mapping[str, Mapping[str, float]]) -> str:
    return f"{memory['total']['pss']:,.0f} ({memory['total']['rss']:,.0f})"


def _percentiles(values: Mapping[str, float]) -> tuple[str, ...]:
    return tuple(_number(value) for value in values.values())


def _spread(values: Mapping[str, float]) -> str:
    return f"{_number(values['median'])} ({_number(values['min'])}…{_number(values['max'])})"


def _number(value: float) -> str:
    """Write three digits, and no more."""
    if abs(value) >= 100:  # noqa: PLR2004 - three digits
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"  # noqa: PLR2004 - three digits
