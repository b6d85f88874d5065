"""The verb `sensorium inspect`; unlike export and verify it needs no PyTorch."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from sensorium_server.placement import Placed

Repository = Annotated[Path, typer.Option(help="The model repository.", file_okay=False)]


def inspect(
    *,
    repository: Repository = Path("model_repository"),
    bundle: Annotated[
        str,
        typer.Option(
            envvar="SENSORIUM_BUNDLE",
            help="Show this bundle only, by the name of its manifest.",
            show_default=False,
        ),
    ] = "",
    task: Annotated[str, typer.Option(help="Show this task only.", show_default=False)] = "",
    plot: Annotated[
        Path | None,
        typer.Option(help="Draw the tasks into this picture as well.", show_default=False),
    ] = None,
    gpu: Annotated[
        bool, typer.Option(help="Say what runs each stage on this machine with --profile gpu.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show tasks, stages and tensors of a model repository; exit code 1 if its files are wrong."""
    from rich.console import Console  # noqa: PLC0415 - only who inspects pays for it

    from sensorium_export.inspect_plot import plot_tasks  # noqa: PLC0415
    from sensorium_export.inspect_repository import inspected, only  # noqa: PLC0415
    from sensorium_export.inspect_view import tree_from, values_from  # noqa: PLC0415

    bundles = inspected(repository, bundle)
    if task:
        bundles = only(bundles, task)
    here = _placed(repository) if gpu else None
    if as_json:
        values = values_from(repository, bundles)
        if here is not None:
            values["engines"] = [asdict(one) for one in here.placements]
        typer.echo(json.dumps(values, ensure_ascii=False))
    else:
        console = Console(width=None if Console().is_terminal else 160)
        console.print(tree_from(repository, bundles), highlight=False)
        for line in here.lines if here is not None else ():
            typer.echo(line)
    problems = [problem for one in bundles for problem in one.problems]
    for problem in problems:
        typer.echo(f"problem: {problem}", err=True)
    if plot is not None:
        plot_tasks(bundles, plot)
    if problems:
        raise typer.Exit(1)


def _placed(repository: Path) -> "Placed":
    from sensorium_server.placement import placed  # noqa: PLC0415 - only who asks pays for it
    from sensorium_server.settings import load  # noqa: PLC0415

    return placed(load({"repository": repository, "device": "gpu"}))


inspect.epilog = "Example: sensorium inspect --task image_captioning --plot pipeline.png"  # type: ignore[attr-defined]
