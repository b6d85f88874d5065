"""Which engine of each network is fastest on this processor and still answers alike.

What `sensorium compile --profile cpu --search` finds for the default bundle and for CLIP ViT-B/32
with random weights, and nothing published. All figures are ratios of processor time, measured side
by side in one run. See README.md beside this file.
"""

import json
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from harness import machine
from harness.page import update_page
from sensorium_export.bundle import export_bundle
from sensorium_export.engines.search_cli import facts, searched
from sensorium_export.engines.search_report import markdown, plot_search, table_from

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results" / "cpu_engines.json"
DEFAULT = "playroom"
WIDTH = 150
WRITERS = {"clip_vit_b32": "clip_vit_b32", "tiny": "clip"}
"""Checkpoints of `tests.families`, by the name of their case."""

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command(epilog="Example: python benchmarks/cpu_engines.py --case tiny --count 2")
def main(
    cases: Annotated[
        list[str] | None,
        typer.Option("--case", help=f"Only this one of: {', '.join((DEFAULT, *WRITERS))}."),
    ] = None,
    *,
    count: Annotated[int, typer.Option(min=1, help="Inputs of the proof.")] = 12,
    output: Annotated[Path | None, typer.Option(help="Where to write the JSON.")] = None,
) -> None:
    """Search the fastest engines of each network."""
    names = cases or [DEFAULT, "clip_vit_b32"]
    if unknown := [name for name in names if name not in {DEFAULT, *WRITERS}]:
        raise typer.BadParameter(
            f"{', '.join(unknown)} is none of {', '.join((DEFAULT, *WRITERS))}"
        )
    target = output or (RESULTS if cases is None else None)
    console, told, tables = Console(stderr=True), {}, []
    for name in names:
        with _repository(name) as repository:
            bundle = "" if name == DEFAULT else name
            found, evidence = searched(repository, bundle, None, count, console.print)
        table = Console()
        table.width = max(table.width, WIDTH)
        table.print(table_from(found))
        told[name] = facts(found, evidence)
        tables.append(f"### {name}\n\n{markdown(found)}")
        if target is not None:
            plot_search(found, target.with_name(f"{target.stem}_{name}.png"))
    results = {
        "command": machine.command(),
        "commit": machine.commit(),
        "machine": machine.machine(),
        "versions": machine.versions("not run", "openvino"),
        "cases": told,
    }
    if target is not None:
        target.write_text(json.dumps(results, indent=2) + "\n")
    if target == RESULTS:
        where = f"{machine.machine()['processor']}, {machine.machine()['cores']} cores, shared"
        head = f"`{machine.command()}` on {where}; {count} inputs."
        update_page("cpu_engines", "\n\n".join([head, *tables]))


@contextmanager
def _repository(name: str) -> Iterator[Path]:
    """Give the repository of a case, exported where it is not committed."""
    if name == DEFAULT:
        yield ROOT / "model_repository"
        return
    sys.path.insert(0, str(ROOT))
    from tests import families  # noqa: PLC0415 - where small and large checkpoints are written

    with tempfile.TemporaryDirectory() as scratch:
        checkpoint = getattr(families, WRITERS[name])(Path(scratch) / name)
        repository = Path(scratch) / "models"
        export_bundle(checkpoint, repository, bundle=name)
        yield repository


if __name__ == "__main__":
    app()
