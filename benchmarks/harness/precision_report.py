"""What `precision.py` found, as cells of a table and as a picture."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

HEADER = ("checkpoint, task", "way", "per s / fp32", "p50 / fp32", "equal", "cosine", "agreement",
          "proof")  # fmt: skip
_BLUE, _GREY = "#1f6feb", "#57606a"


def rows(cases: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    """Return a row for each way of each case."""
    for name, case in cases.items():
        for way, figures in case["ways"].items():
            speed = (_ratio(figures["rate_over_fp32"]), _ratio(figures["p50_over_fp32"]))
            yield f"{name} {case['task']}", way, *speed, *_proof(case["proofs"].get(way))


def markdown(results: Mapping[str, Any]) -> str:
    """Return the table as Markdown, with where it was measured."""
    where = results["machine"]
    lines = [
        (
            f"`{results['command']}` on {where['processor']}, {where['cores']} cores; "
            f"Triton {results['versions']['triton']}; "
            f"{results['plan']['rounds']} alternating rounds, median (least…greatest)."
        ),
        "",
        f"| {' | '.join(HEADER)} |",
        "|" + " --- |" * len(HEADER),
        *(f"| {' | '.join(row)} |" for row in rows(results["cases"])),
    ]
    left_out = [
        f"- {name}, {way}: left out, {why}."
        for name, case in results["cases"].items()
        for way, why in case.get("left_out", {}).items()
    ]
    return "\n".join([*lines, *([""] if left_out else []), *left_out])


def plot(results: Mapping[str, Any], path: Path) -> None:
    """Draw throughput over that of fp32, a panel for each checkpoint."""
    cases = results["cases"]
    figure = Figure(figsize=(4.2 * len(cases), 3.2), layout="constrained")
    panels = figure.subplots(1, len(cases), squeeze=False)[0]
    for axes, (name, case) in zip(panels, cases.items(), strict=True):
        found = [one["rate_over_fp32"] for one in case["ways"].values()]
        medians = [one["median"] for one in found]
        spreads = (
            [one["median"] - one["min"] for one in found],
            [one["max"] - one["median"] for one in found],
        )
        colors = [_GREY if way not in case["proofs"] else _BLUE for way in case["ways"]]
        axes.bar(list(case["ways"]), medians, yerr=spreads, capsize=4, color=colors)
        axes.axhline(1, color="0.4", linewidth=0.8, linestyle=":")
        axes.set_title(f"{name}\n{case['task']}", fontsize=10)
        axes.set_ylabel("requests per second / fp32")
    figure.savefig(path, dpi=120)


def _proof(proof: Mapping[str, Any] | None) -> tuple[str, ...]:
    if proof is None:
        return ("",) * 4
    cosine = proof["min_cosine"]
    return (
        f"{proof['equal']} of {proof['inputs']}",
        "" if cosine is None else f"{cosine:.6f}",
        ", ".join(f"{kind} {one:.1%}" for kind, one in proof["agreement"].items()),
        "pass" if proof["passed"] else "FAIL",
    )


def _ratio(found: Mapping[str, float]) -> str:
    return f"{found['median']:.2f} ({found['min']:.2f}…{found['max']:.2f})"
