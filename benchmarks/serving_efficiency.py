"""How much of ONNX Runtime's speed is left when a model is served.

In one run and in alternating rounds: the served task from file bytes over gRPC, against plain ONNX
Runtime on the same graphs. See README.md beside this file for what each figure means.
"""

import json
import tempfile
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from harness import machine, report
from harness.bundles import RECIPES, Tuning, bundle, tuned
from harness.page import update_page
from harness.plot import plot
from harness.rounds import FULL, QUICK, Plan, measure_bundle
from harness.summary import summary_of

HERE = Path(__file__).parent
REPOSITORY = HERE.parent / "model_repository"
CACHE = HERE.parent / ".cache" / "benchmarks"
RESULTS = HERE / "results"
NAME = "serving_efficiency"
DEFAULT_BUNDLES = ("playroom", "vit-b-32")
WIDTH = 150
"""Columns that the tables need; a narrower terminal wraps them."""

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command(epilog="Example: python benchmarks/serving_efficiency.py --bundle vit-b-32 --rounds 3")
def main(
    bundles: Annotated[
        list[str] | None,
        typer.Option("--bundle", help=f"Measure only this one of: {', '.join(RECIPES)}."),
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds of all measurements.")] = FULL.rounds,
    seconds: Annotated[float, typer.Option(help="Length of one measurement.")] = FULL.seconds,
    *,
    quick: Annotated[
        bool, typer.Option("--quick", help="A tiny model for seconds: does it run at all?")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the results as JSON.")] = False,
    output: Annotated[
        Path | None,
        typer.Option(
            help="Directory for the JSON file and the plot. Without it, a run of the default "
            "bundles as they are written goes to benchmarks/results and benchmarks/README.md."
        ),
    ] = None,
    cache: Annotated[Path, typer.Option(help="Where random-weight bundles are kept.")] = CACHE,
    threads: Annotated[
        int | None, typer.Option(help="Serve the encoders with that many threads a run.")
    ] = None,
    instances: Annotated[
        int | None, typer.Option(help="Serve the encoders with that many instances.")
    ] = None,
    queue_delay_us: Annotated[
        int | None, typer.Option(help="Serve the encoders with that queue delay.")
    ] = None,
) -> None:
    """Compare a served task, from file bytes over gRPC, with plain ONNX Runtime on its graphs."""
    names = tuple(bundles or (("tiny",) if quick else DEFAULT_BUNDLES))
    if unknown := [name for name in names if name not in RECIPES]:
        raise typer.BadParameter(f"{', '.join(unknown)} is not one of {', '.join(RECIPES)}")
    plan = QUICK if quick else replace(FULL, rounds=rounds, seconds=seconds)
    tuning = Tuning(threads, instances, queue_delay_us)
    results = measured(names, plan, tuning, cache)
    publishing = output is None and names == DEFAULT_BUNDLES and not (quick or tuning.changes)
    if target := output or (RESULTS if publishing else None):
        write(results, target)
    if publishing:
        update_page("results", report.markdown(results))
    if as_json:
        print(json.dumps(results, indent=2))
        return
    console = Console()
    console.width = max(console.width, WIDTH)
    for table in report.tables(results):
        console.print(table.for_terminal())
    for line in report.verdicts(results):
        console.print(line, highlight=False)


def measured(names: tuple[str, ...], plan: Plan, tuning: Tuning, cache: Path) -> dict[str, Any]:
    """Measure bundles and return everything that belongs to the result."""
    made = [bundle(name, _published(name), cache) for name in names]
    steps = sum(plan.starts + len(one.tasks) * plan.steps_of_task for one in made)
    with tempfile.TemporaryDirectory(dir=cache) as scratch, _progress() as progress:
        bar = progress.add_task("", total=steps)

        def advance(what: str) -> None:
            progress.update(bar, advance=1, description=what)

        found = [measure_bundle(tuned(one, tuning, Path(scratch)), plan, advance) for one in made]
    where = machine.machine()
    return {
        "command": machine.command(),
        "commit": machine.commit(),
        "machine": where,
        "versions": machine.versions(found[0]["triton"]),
        "plan": asdict(plan),
        "tuning": asdict(tuning),
        "bundles": [summary_of(one, int(str(where["cores"]))) for one in found],
    }


def write(results: dict[str, Any], target: Path) -> None:
    """Write the JSON file and the plot."""
    target.mkdir(parents=True, exist_ok=True)
    (target / f"{NAME}.json").write_text(json.dumps(results, indent=2) + "\n")
    plot(results, target / f"{NAME}.png")


def _published(name: str) -> Path | None:
    """Return where the default bundle is published; None for all others."""
    return REPOSITORY if (REPOSITORY / f"{name}.manifest.json").is_file() else None


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=Console(stderr=True),
    )


if __name__ == "__main__":
    app()
