"""The verbs `sensorium export` and `sensorium verify`."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from sensorium_export.parity_card import Card

for _package in ("torch", "onnx", "onnxscript", "safetensors", "onnxruntime", "tokenizers"):
    # Found, not imported: `sensorium --help` shows these verbs and shall not wait for PyTorch.
    if find_spec(_package) is None:
        raise ModuleNotFoundError(f"No module named {_package!r}", name=_package)

DEFAULT_REPOSITORY = Path("model_repository")
DEFAULT_CHECKPOINT = Path("checkpoints/playroom")
DEFAULT_PICTURES = Path("docs/images")

Repository = Annotated[Path, typer.Option(help="The model repository.", file_okay=False)]
Bundle = Annotated[
    str,
    typer.Option(
        envvar="SENSORIUM_BUNDLE",
        help="What to call the bundle; needed where another one has the repository's plain names.",
        show_default=False,
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def _checked_checkpoint(path: Path) -> Path:
    """Refuse what is neither a directory nor a function in a Python file."""
    if ".py:" not in path.name and not path.is_dir():
        raise typer.BadParameter(f"Directory '{path}' does not exist.")
    return path


def checkpoint_of(path: Path) -> Path:
    """Return the checkpoint; a bundle's name stands for the directory that it was called after."""
    if path.is_dir() or path.name != str(path):
        return _checked_checkpoint(path)
    from sensorium_export.families import bundle_named_like  # noqa: PLC0415 - imports PyTorch

    places = (Path(), DEFAULT_CHECKPOINT.parent)
    children = (child for place in places if place.is_dir() for child in sorted(place.iterdir()))
    named = (one for one in children if one.is_dir() and bundle_named_like(one) == path.name)
    return next(named, None) or _checked_checkpoint(path)


def export(
    checkpoint: Annotated[
        Path,
        typer.Argument(
            callback=_checked_checkpoint,
            show_default=False,
            help="A checkpoint's directory, or a function of your own, my_model.py:build.",
        ),
    ],
    *,
    repository: Repository = DEFAULT_REPOSITORY,
    bundle: Bundle = "",
    precision: Annotated[
        list[str] | None,
        typer.Option(
            help="Serve encoders and fusion in bf16 (by OpenVINO) or int8, or one of them: "
            "image_encoder=int8. May be given several times. What it does to the answers is for "
            "sensorium verify to say.",
            show_default=False,
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Export a checkpoint to ONNX, prove every graph against PyTorch, and publish the models."""
    from sensorium_export.bundle import export_bundle  # noqa: PLC0415 - imports PyTorch

    with _progress(f"exporting {checkpoint.name}") as advance:
        exported = export_bundle(
            checkpoint, repository, advance, bundle=bundle, precision=precision or ()
        )
    manifest = exported.manifest
    if as_json:
        typer.echo(manifest.to_json(), nl=False)
        return
    for parity in exported.parities:
        worst = parity.worst
        typer.echo(
            f"{parity.graph}: {len(parity.found)} outputs like PyTorch's, "
            f"at most {worst.max_rel:.1e} apart (tolerance {worst.tolerance:g})"
        )
    for drift in exported.drifts:
        typer.echo(f"{drift.stage} in {drift.precision}: cosine {drift.cosine:.6f} on noise")
    typer.echo(f"{manifest.bundle}: {len(manifest.models)} models in {repository}")


def verify(
    checkpoint: Annotated[
        Path,
        typer.Argument(
            callback=checkpoint_of,
            help="What PyTorch runs: a directory, a function of your own, or a bundle's name.",
        ),
    ] = DEFAULT_CHECKPOINT,
    *,
    repository: Repository = DEFAULT_REPOSITORY,
    bundle: Bundle = "",
    grpc: Annotated[
        str | None,
        typer.Option(help="Ask this server instead of starting one.", show_default=False),
    ] = None,
    http: Annotated[
        str | None,
        typer.Option(help="Its HTTP address; without both, one is started.", show_default=False),
    ] = None,
    count: Annotated[int, typer.Option(min=1, help="How many inputs to draw.")] = 200,
    pictures: Annotated[
        Path, typer.Option(help="A folder of real pictures to use as well.")
    ] = DEFAULT_PICTURES,
    seed: Annotated[int, typer.Option(min=0, help="Another seed draws other inputs.")] = 0,
    card: Annotated[
        Path | None, typer.Option(help="Write the card there as Markdown.", show_default=False)
    ] = None,
    engines: Annotated[
        bool,
        typer.Option(
            "--engines",
            help="Ask a server with the bundle's compiled engines, judged by their precisions; "
            "what serves without them stays proven as it is.",
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Prove that the served answers are PyTorch's, from raw bytes; exit code 1 if they are not."""
    if (grpc is None) != (http is None):
        raise typer.BadParameter("give both --grpc and --http, or neither to start a server.")

    from sensorium_export import parity_card  # noqa: PLC0415 - only here
    from sensorium_export import verify as verification  # noqa: PLC0415 - imports PyTorch

    options = verification.Options(
        checkpoint, repository, count, seed, pictures, grpc, http, bundle, engines
    )
    with _status() as advance:
        found = verification.verify(options, advance)
    if card is not None:
        card.write_text(parity_card.markdown_from(found), encoding="utf-8")
    if as_json:
        typer.echo(json.dumps(found.to_dict(), ensure_ascii=False))
    else:
        _print_tables(found)
    for line in parity_card.failure_lines(found):
        typer.echo(line, err=True)
    if not found.has_passed:
        raise typer.Exit(1)


def _print_tables(card: "Card") -> None:
    from rich.console import Console  # noqa: PLC0415 - only who prints pays for it

    from sensorium_export import parity_card  # noqa: PLC0415

    console = Console(width=None if Console().is_terminal else 160)
    console.print(parity_card.table_from("Each stage", *parity_card.stage_rows(card)))
    console.print(parity_card.table_from("Each task", *parity_card.task_rows(card)))


@contextmanager
def _progress(title: str) -> Iterator[Callable[[str, int], None]]:
    """Show a progress bar on stderr; what it is given tells what is done, of how many steps."""
    from rich.console import Console  # noqa: PLC0415
    from rich.progress import MofNCompleteColumn, Progress, TimeElapsedColumn  # noqa: PLC0415

    columns = (*Progress.get_default_columns(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(title, total=None)
        yield lambda done, steps: bar.update(
            task, advance=1, total=steps, description=f"{title}: {done}"
        )


@contextmanager
def _status() -> Iterator[Callable[[str], None]]:
    """Show on stderr what is going on."""
    from rich.console import Console  # noqa: PLC0415

    console = Console(stderr=True)
    with console.status("verifying") as status:
        yield lambda doing: status.update(f"verifying: {doing} …")


export.epilog = "Example: sensorium export checkpoints/playroom --repository model_repository"  # type: ignore[attr-defined]
verify.epilog = "Example: sensorium verify checkpoints/playroom --card card.md"  # type: ignore[attr-defined]
