"""`sensorium compile --profile cpu --search`: its options, its way, its output."""

import json
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sensorium.errors import ConfigurationError
from sensorium_server import gate, manifest

if TYPE_CHECKING:
    from sensorium_export.engines.evidence import Evidence
    from sensorium_export.engines.search import Candidate, StageSearch
    from sensorium_server.engine_record import EngineRecord

IsSearch = Annotated[
    bool,
    typer.Option(
        "--search",
        help="For cpu: measure every engine and precision side by side, and keep of each network "
        "the fastest that answers like the reference: PyTorch, if a checkpoint is named, else "
        "what was exported and verified.",
    ),
]
Count = Annotated[int, typer.Option(min=1, help="For --search and fp8: how many inputs to draw.")]
Plot = Annotated[
    Path | None,
    typer.Option(help="For --search: write the bars there, as .png or .svg.", show_default=False),
]


def search_engines(
    repository: Path,
    bundle: str,
    checkpoint: Path | None,
    *,
    count: int,
    command: str,
    plot: Path | None = None,
    as_json: bool = False,
) -> None:
    """Search the fastest engines of a bundle's networks, and publish them with their records.

    Args:
        repository: Where the bundle is published.
        bundle: The name that its models share; empty for plain names.
        checkpoint: What PyTorch runs; None to compare with what was exported.
        count: How many inputs to draw.
        command: What to call to do it again.
        plot: Where to draw what was measured.
        as_json: Print JSON in the place of a table.

    Raises:
        ConfigurationError: The bundle is missing or not proven, or matplotlib is missing.
    """
    # Imports PyTorch.
    from sensorium_export.engines.search_report import plot_search, table_from  # noqa: PLC0415

    repository = repository.resolve()
    name = manifest_of(repository, bundle)
    manifest.check(repository)
    gate.check_verified(repository)
    with _status() as status:
        found, evidence = searched(
            repository, bundle, checkpoint, count, lambda doing: status.update(f"{doing} …")
        )
    records = [_published(repository, name, one, command) for one in found if one.chosen]
    if plot is not None:
        plot_search(found, plot)
    if as_json:
        listed = {"engines": [asdict(record) for record in records]}
        typer.echo(json.dumps(facts(found, evidence) | listed, ensure_ascii=False))
    else:
        from rich.console import Console  # noqa: PLC0415 - only who prints pays for it

        Console(width=None if Console().is_terminal else 160).print(table_from(found))


def searched(
    repository: Path,
    bundle: str,
    checkpoint: Path | None,
    count: int,
    advance: Callable[[str], None],
) -> "tuple[list[StageSearch], Evidence]":
    """Search the engines of a bundle without publishing any; `advance` is told what comes next."""
    from sensorium_export.engines.evidence import evidence_from  # noqa: PLC0415
    from sensorium_export.engines.search import Search  # noqa: PLC0415
    from sensorium_export.serving_chain import ServingChain  # noqa: PLC0415
    from sensorium_export.source import open_source  # noqa: PLC0415
    from sensorium_server import settings as server_settings  # noqa: PLC0415

    settings = server_settings.load({"repository": repository})
    source = None if checkpoint is None else open_source(checkpoint, bundle)
    advance(f"the reference on {count} inputs")
    evidence = evidence_from(repository, bundle, settings, count, source)
    with (
        tempfile.TemporaryDirectory() as scratch,
        ServingChain(repository, settings, bundle) as chain,
    ):
        search = Search(repository, bundle, chain, evidence, Path(scratch), advance=advance)
        return [search.of_stage(stage) for stage in search.stages()], evidence


def manifest_of(repository: Path, bundle: str) -> str:
    """Return the name of the manifest of the bundle whose models share this prefix.

    Raises:
        ConfigurationError: There is none.
    """
    names = []
    for path in sorted(repository.glob(f"*{manifest.SUFFIX}")):
        files = json.loads(path.read_text(encoding="utf-8"))["files"]
        names.append(path.name.removesuffix(manifest.SUFFIX))
        if any(Path(one).parts[0].rpartition(".")[0] == bundle for one in files):
            return names[-1]
    raise ConfigurationError(
        f"{repository.name} has no bundle {bundle!r}; those that it has: {', '.join(names) or '-'}"
    )


def _published(repository: Path, name: str, found: "StageSearch", command: str) -> "EngineRecord":
    from sensorium_export.engines.publication import publish_engine  # noqa: PLC0415
    from sensorium_server.engine_record import EngineRecord  # noqa: PLC0415

    chosen = found.chosen
    if chosen is None:
        raise RuntimeError("nothing was chosen")
    return publish_engine(
        repository,
        name,
        found.graph,
        chosen.engine,
        lambda digest, onnx: EngineRecord(
            graph=found.stage,
            file=found.graph.engine_path(chosen.product.suffix),
            digest=digest,
            onnx=onnx,
            product=chosen.product.name,
            version=chosen.product.version(),
            target=chosen.product.target(),
            compatibility=(),
            precision=chosen.precision,
            stripped=False,
            profiles=(),
            kept=(),
            cost=1.0,
            build_s=round(chosen.build_s, 1),
            command=command,
            parity=chosen.parity,
        ),
    )


def facts(found: "list[StageSearch]", evidence: "Evidence") -> dict[str, Any]:
    """Return what was found as JSON has it."""
    return {
        "reference": evidence.reference,
        "inputs": len(evidence.inputs),
        "stages": {one.stage: [_candidate(each) for each in one.candidates] for one in found},
    }


def _candidate(candidate: "Candidate") -> dict[str, Any]:
    told: dict[str, Any] = {
        "product": candidate.product.name,
        "precision": candidate.precision,
        "chosen": candidate.is_chosen,
    }
    if candidate.problem:
        return {**told, "problem": candidate.problem}
    return {
        **told,
        "speed": {str(size): round(one, 3) for size, one in candidate.speed.items()},
        "start": round(candidate.start, 3),
        "bytes": len(candidate.engine),
        "parity": None if candidate.parity is None else asdict(candidate.parity),
        "shares": {task: round(share, 4) for task, share in candidate.shares.items()},
    }


@contextmanager
def _status() -> Iterator[Any]:
    """Show on stderr what is going on."""
    from rich.console import Console  # noqa: PLC0415

    with Console(stderr=True).status("searching") as status:
        yield status
