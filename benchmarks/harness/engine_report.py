"""What `engines.py` found, as cells of a table and as a picture."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

HEADER = ("network", "batch", "way", "ms", "time / baseline", "of the matrix rate",
          "of the roofline")  # fmt: skip


def rows(cases: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    """Return a row for each way of each batch of each case."""
    for name, case in cases.items():
        for batch, ways in case["batches"].items():
            for way, found in ways.items():
                yield (
                    name,
                    str(batch),
                    way,
                    f"{found['ms']['median']:.3g}",
                    _spread(found["over_baseline"]),
                    f"{found['matrix_fraction']:.0%}",
                    f"{found['roofline_fraction']:.0%}",
                )


def markdown(results: Mapping[str, Any]) -> str:
    """Return tables as Markdown, with where it was measured and what was left out and why."""
    where, roof, plan = results["machine"], results["roofline"], results["plan"]
    rates = ", ".join(f"{name} {rate / 1e12:.3g} TFLOP/s" for name, rate in roof["flops"].items())
    lines = [
        (
            f"`{results['command']}` on {results['device']}, {where['cores']} cores; measured at "
            f"best: {rates}, copies {roof['bytes_per_s'] / 1e9:.3g} GB/s; {plan['rounds']} "
            f"alternating rounds, median (least…greatest)."
        ),
        "",
        f"| {' | '.join(HEADER)} |",
        "|" + " --- |" * len(HEADER),
        *(f"| {' | '.join(row)} |" for row in rows(results["cases"])),
        "",
    ]
    for name, case in results["cases"].items():
        lines.append(f"- {name}: {case['gflops']:.3g} GFLOP a row; baseline {case['baseline']}.")
        lines += [f"- {name}, {way}: left out, {why}." for way, why in case["left_out"].items()]
        if served := case.get("serving"):
            lines.append(
                f"- {name}, {served['task']} served from raw bytes: p50 {served['p50_ms']:.3g} ms, "
                f"of which {served['preprocess_ms']:.3g} are preprocessing and "
                f"{served['graph_ms']:.3g} the graph; {served['added_ms']:.3g} are added."
            )
    return "\n".join(lines).rstrip()


def plot(results: Mapping[str, Any], path: Path) -> None:
    """Draw rows per second by batch for each way, a panel for each network."""
    cases = results["cases"]
    figure = Figure(figsize=(4.6 * len(cases), 3.8), layout="constrained")
    panels = figure.subplots(1, len(cases), squeeze=False)[0]
    for axes, (name, case) in zip(panels, cases.items(), strict=True):
        ways = dict.fromkeys(way for found in case["batches"].values() for way in found)
        for way in ways:
            points = [
                (int(batch), 1e3 * int(batch) / found[way]["ms"]["median"])
                for batch, found in case["batches"].items()
                if way in found
            ]
            axes.plot(*zip(*points, strict=True), marker="o", markersize=3, label=way)
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        axes.set_title(name, fontsize=10)
        axes.set_xlabel("batch")
        axes.grid(visible=True, alpha=0.3)
    panels[0].set_ylabel("rows per second")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, fontsize=8)
    figure.savefig(path, dpi=120)


def _spread(found: Mapping[str, float]) -> str:
    return f"{found['median']:.2f} ({found['min']:.2f}…{found['max']:.2f})"
