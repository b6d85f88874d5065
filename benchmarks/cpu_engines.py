"""Which engine of each network is fastest on this processor and still answers alike.

What `sensorium compile --profile cpu --search` finds for the default bundle, and nothing published.
All figures are ratios of processor time, measured side by side in one run. See README.md beside
this file.
"""

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from harness import machine
from harness.page import update_page
from sensorium_export.engines.search_cli import facts, searched
from sensorium_export.engines.search_report import markdown, plot_search, table_from

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results" / "cpu_engines.json"

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command(epilog="Example: python benchmarks/cpu_engines.py --count 4 --output found.json")
def main(
    repository: Annotated[Path, typer.Option(help="What to search.")] = ROOT / "model_repository",
    *,
    count: Annotated[int, typer.Option(min=1, help="Inputs of the proof.")] = 12,
    output: Annotated[Path | None, typer.Option(help="Where to write the JSON.")] = None,
) -> None:
    """Search the fastest engines of a repository's plain-named bundle."""
    console = Console(stderr=True)
    found, evidence = searched(repository.resolve(), "", None, count, console.print)
    Console().print(table_from(found))
    results = {
        "command": machine.command(),
        "commit": machine.commit(),
        "machine": machine.machine(),
        "versions": machine.versions("not run", "openvino"),
        **facts(found, evidence),
    }
    target = output or RESULTS
    target.write_text(json.dumps(results, indent=2) + "\n")
    plot_search(found, target.with_suffix(".png"))
    if target == RESULTS:
        where = f"{machine.machine()['processor']}, {machine.machine()['cores']} cores, shared"
        update_page(
            "cpu_engines", f"`{machine.command()}` on {where}; {count} inputs.\n\n{markdown(found)}"
        )


if __name__ == "__main__":
    app()
