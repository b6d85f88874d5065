"""The verb `sensorium compile`: published graphs become engines for a device, proven before use."""

import json
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sensorium_export.cli import (
    DEFAULT_CHECKPOINT,
    DEFAULT_REPOSITORY,
    AsJson,
    Bundle,
    Repository,
    checkpoint_of,
)
from sensorium_export.engines import PROFILES, Profile
from sensorium_export.engines.search_cli import Count, IsSearch, Plot, search_engines
from sensorium_server.engine_gate import Compatibility

if TYPE_CHECKING:
    from sensorium_export.engines import Product
    from sensorium_export.engines.compilation import Compiled
    from sensorium_export.engines.profile import Limits
    from sensorium_export.source import Source
    from sensorium_server.engine_record import EngineRecord
    from sensorium_server.stages import Tensors

USUAL = "fp16"
"""The precision of graphs for which none is asked."""

_MIB = 2**20
Report = Callable[[str, int, int], None]


def _checkpoint(path: Path) -> Path:
    """Return the checkpoint; a search does without, so the default one need not be there."""
    return path if path == DEFAULT_CHECKPOINT else checkpoint_of(path)


Checkpoint = Annotated[
    Path,
    typer.Argument(
        callback=_checkpoint,
        help="What PyTorch runs: a directory, a function of your own, or a bundle's name.",
    ),
]
ForProfile = Annotated[
    Profile,
    typer.Option(help="gpu for TensorRT, rtx for TensorRT-RTX, cpu for ONNX Runtime."),
]
Precisions = Annotated[
    list[str] | None,
    typer.Option(
        help="fp32, tf32, fp16 (the default), bf16 or fp8, or that of one graph: "
        "text_decoder/step=bf16. May be given several times.",
        show_default=False,
    ),
]
Graphs = Annotated[
    list[str] | None,
    typer.Option(help="Compile this graph only. May be given several times.", show_default=False),
]
Capability = Annotated[
    str,
    typer.Option(
        help="Build for another GPU than this machine's, as 8.6; rtx only. What is built so is not "
        "proven, and not used until it is.",
        show_default=False,
    ),
]
Compatibilities = Annotated[
    list[Compatibility] | None,
    typer.Option(
        help="Let the engine run on more than this version and this GPU; it is slower for it.",
        show_default=False,
    ),
]
Workspace = Annotated[
    int, typer.Option(min=0, help="The most memory for intermediate results, MiB; 0: all.")
]
TimingCache = Annotated[
    Path | None,
    typer.Option(
        help="A directory that keeps what was measured of kernels, for the next build.",
        file_okay=False,
        show_default=False,
    ),
]
StripWeights = Annotated[
    bool, typer.Option("--strip-weights", help="Leave the weights to the ONNX file.")
]
Rebuilds = Annotated[
    int, typer.Option(min=1, help="The most engines built to find nodes that need fp32.")
]
Adopt = Annotated[
    bool,
    typer.Option(
        "--adopt",
        help="Build nothing; prove the engine files that are there, as trtexec made them.",
    ),
]
Trtexec = Annotated[
    Path | None,
    typer.Option(
        help="Build nothing; write the graphs there in their precision, and print a trtexec "
        "command for each.",
        file_okay=False,
        show_default=False,
    ),
]


def compile_engines(
    ctx: typer.Context,
    checkpoint: Checkpoint = DEFAULT_CHECKPOINT,
    *,
    repository: Repository = DEFAULT_REPOSITORY,
    bundle: Bundle = "",
    profile: ForProfile = Profile.GPU,
    precision: Precisions = None,
    graph: Graphs = None,
    compute_capability: Capability = "",
    compatibility: Compatibilities = None,
    workspace_mib: Workspace = 0,
    timing_cache: TimingCache = None,
    strip_weights: StripWeights = False,
    rebuilds: Rebuilds = 40,
    adopt: Adopt = False,
    trtexec: Trtexec = None,
    search: IsSearch = False,
    count: Count = 24,
    plot: Plot = None,
    as_json: AsJson = False,
) -> None:
    """Compile published graphs into engines, and prove each; exit code 1 if one has none."""
    if search:
        _search(ctx, count, plot, as_json=as_json)
        return
    from sensorium_export.engines import BuildPlan, compilation, product_named  # noqa: PLC0415
    from sensorium_export.engines.choice import chosen_graphs  # noqa: PLC0415

    source = _source(checkpoint, repository, bundle)
    product = product_named(PROFILES[profile])
    chosen = chosen_graphs(precision or (), graph or (), source.recipe, product, _usual(product))
    options = compilation.CompileOptions(
        repository=repository.resolve(),
        precision=chosen,
        command=_command(ctx),
        plan=BuildPlan(
            _usual(product),
            (),
            compute_capability=compute_capability,
            compatibility=tuple(compatibility or ()),
            workspace_bytes=workspace_mib * _MIB,
            strip_weights=strip_weights,
        ),
        timing_caches=timing_cache,
        rebuilds=rebuilds,
        adopt=adopt,
        limits=_limits(repository),
        calibration=_calibration(chosen, repository, bundle, count),
    )
    if trtexec is not None:
        from sensorium_export.engines.trtexec import commands  # noqa: PLC0415

        typer.echo("\n".join(commands(source.recipe, product, options, trtexec)))
        return
    with _progress() as (report, done):
        compiled = compilation.compile_bundle(source, product, options, report, done)
    _show(compiled, as_json=as_json)
    if any(one.record is None for one in compiled):
        raise typer.Exit(1)


def _source(checkpoint: Path, repository: Path, bundle: str) -> "Source":
    """Open the checkpoint that the repository's bundle was made of."""
    from sensorium_export.manifest import check_origin  # noqa: PLC0415
    from sensorium_export.source import open_source  # noqa: PLC0415 - imports PyTorch

    source = open_source(checkpoint, bundle)
    check_origin(repository, source.recipe.name, source.path)
    return source


def _limits(repository: Path) -> "Limits":
    """Return what the server lets in."""
    from sensorium_export.engines.profile import Limits  # noqa: PLC0415
    from sensorium_server import settings as server_settings  # noqa: PLC0415

    return Limits(server_settings.load({"repository": repository}).max_audio_s)


def _calibration(
    chosen: "Mapping[str, str]", repository: Path, bundle: str, count: int
) -> "dict[str, list[Tensors]]":
    """Return what the stages in fp8 are given when the published bundle reads real media."""
    wanted = [graph for graph, precision in chosen.items() if precision == "fp8"]
    if not wanted:
        return {}
    from sensorium_export.engines.evidence import evidence_from  # noqa: PLC0415 - imports PyTorch
    from sensorium_server import settings as server_settings  # noqa: PLC0415

    settings = server_settings.load({"repository": repository})
    evidence = evidence_from(repository.resolve(), bundle, settings, count)
    return {graph: [run.inputs for run in evidence.of_stage(graph)] for graph in wanted}


def _search(ctx: typer.Context, count: int, plot: Path | None, *, as_json: bool) -> None:
    """Search, against the checkpoint if the caller named one."""
    given = ctx.get_parameter_source("checkpoint")
    is_named = given is not None and given.name == "COMMANDLINE"
    search_engines(
        ctx.params["repository"],
        ctx.params["bundle"],
        ctx.params["checkpoint"] if is_named else None,
        count=count,
        command=_command(ctx),
        plot=plot,
        as_json=as_json,
    )


def _usual(product: "Product") -> str:
    """Return the precision of a product's graphs for which none is asked."""
    return USUAL if USUAL in product.precisions else product.precisions[0]


def _command(ctx: typer.Context) -> str:
    """Return what was typed, without what only shows the outcome otherwise."""
    words = ["sensorium", "compile"]
    for parameter in ctx.command.params:
        name = parameter.name or ""
        source = ctx.get_parameter_source(name)
        if source is None or source.name != "COMMANDLINE" or name == "as_json":
            continue
        value = ctx.params[name]
        option = parameter.opts[0] if parameter.param_type_name == "option" else ""
        for one in value if isinstance(value, (list, tuple)) else [value]:
            words += [word for word in (option, "" if one is True else str(one)) if word]
    return shlex.join(words)


def _show(compiled: "Sequence[Compiled]", *, as_json: bool) -> None:
    records = [one.record for one in compiled if one.record is not None]
    if as_json:
        typer.echo(json.dumps([asdict(record) for record in records], ensure_ascii=False))
    for record in records:
        if not as_json:
            typer.echo(f"{record.file}: {_summary(record)}")
    for one in compiled:
        if one.record is None:
            typer.echo(f"{one.graph} has no engine: {one.problem}", err=True)


def _summary(record: "EngineRecord") -> str:
    words = [record.precision]
    if record.kept:
        words.append(f"{len(record.kept)} nodes in fp32 for {record.cost:g} × the time")
    if record.parity is None:
        words.append("not proven, as it cannot run here: see sensorium compile --adopt")
    else:
        words.append(
            f"like PyTorch in {record.parity.cases} cases, cosine {record.parity.cosine:.6f}"
        )
    return ", ".join(words)


@contextmanager
def _progress() -> Iterator[tuple[Report, Callable[[str, int], None]]]:
    """Show on stderr which graphs are done, and what the builder does."""
    from rich.console import Console  # noqa: PLC0415 - only who compiles pays for it
    from rich.progress import (  # noqa: PLC0415
        MofNCompleteColumn,
        Progress,
        TaskID,
        TimeElapsedColumn,
    )

    columns = (*Progress.get_default_columns(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        graphs = bar.add_task("compiling", total=None)
        phases: dict[str, TaskID] = {}

        def report(phase: str, steps: int, total: int) -> None:
            if phase not in phases:
                phases[phase] = bar.add_task(f"  {phase}", total=total)
            bar.update(phases[phase], completed=steps, total=total, visible=steps < total)

        def done(graph: str, count: int) -> None:
            bar.update(graphs, advance=1, total=count, description=f"compiled {graph}")

        yield report, done


compile_engines.epilog = "Example: sensorium compile --profile gpu --precision fp16"  # type: ignore[attr-defined]
