"""From a checkpoint to a published bundle: export every graph, prove it, write, check, publish."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from sensorium.contract import checked_bundle, model_name
from sensorium.errors import ConfigurationError
from sensorium_export.graphs import graphs_of
from sensorium_export.manifest import Manifest, manifest_from_build, manifest_path
from sensorium_export.onnx_graph import files_from_onnx, onnx_from_module
from sensorium_export.precision import Drift, chosen_precisions, drift, lowered
from sensorium_export.publish import check_names, publish, staging_beside
from sensorium_export.repository import write_repository
from sensorium_export.repository_check import check_repository
from sensorium_export.runners import session_from_files
from sensorium_export.source import Source, open_source
from sensorium_export.stage_parity import GraphParity, graph_parity

Advance = Callable[[str, int], None]
"""Told after each step what is done, and how many steps the whole export has."""


@dataclass(frozen=True, slots=True)
class ExportedBundle:
    """What an export left: the manifest, the parity of every graph, the drift of lowered ones."""

    repository: Path
    manifest: Manifest
    parities: tuple[GraphParity, ...]
    drifts: tuple[Drift, ...]


def export_bundle(
    checkpoint: Path,
    repository: Path,
    advance: Advance = lambda _done, _steps: None,
    *,
    bundle: str = "",
    precision: Sequence[str] = (),
) -> ExportedBundle:
    """Export a checkpoint's graphs and publish them as a model repository.

    Args:
        checkpoint: The directory that holds weights, config and tokenizer: Sensorium's own, or that
            of a family of models (`sensorium_export.families`).
        repository: The model repository; other bundles in it stay.
        advance: Told after each graph and the publication, for a progress bar.
        bundle: What to call the bundle and, in front, its models, so that several share the
            repository; without it, those of a family are called like the directory, and those
            of Sensorium's own format have no name in front.
        precision: Those of stages that shall not be served in fp32; see `chosen_precisions`.

    Raises:
        ConfigurationError: The checkpoint cannot be exported, or a graph disagrees with PyTorch.
            The repository is then as it was.
    """
    source = open_source(checkpoint, checked_bundle(bundle))
    chosen = chosen_precisions(precision, source.recipe)
    recipe = replace(source.recipe, precision=chosen)
    repository = repository.resolve()
    with staging_beside(repository) as staging:
        # Now, and not after minutes; of the names that are not those of graphs it is checked then.
        names = {model_name(graph.path, recipe.bundle) for graph in graphs_of(recipe)}
        check_names(repository, recipe.name, {Path(name).parts[0] for name in names})
        graphs, parities = _graphs(source, advance)
        drifts = _lower(graphs, source, chosen)
        write_repository(staging, recipe, graphs, source.tokenizer_path)
        check_repository(staging, recipe)
        manifest = manifest_from_build(source, staging, parities, drifts)
        manifest_path(staging, recipe.name).write_text(manifest.to_json(), encoding="utf-8")
        publish(staging, repository, recipe.name)
        advance("published", len(parities) + 1)
    return ExportedBundle(repository, manifest, parities, drifts)


def _graphs(source: Source, advance: Advance) -> tuple[dict[str, bytes], tuple[GraphParity, ...]]:
    recipe = source.recipe
    wanted = graphs_of(recipe)
    graphs: dict[str, bytes] = {}
    parities = []
    for graph in wanted:
        module = graph.module_in(source.model)
        onnx = onnx_from_module(
            module, graph.signature, recipe.sizes, name=graph.name, method=graph.method
        )
        files = files_from_onnx(onnx, graph.path)
        graphs |= files
        session = session_from_files(files)
        parities.append(graph_parity(graph, source.model, session, recipe))
        advance(graph.name, len(wanted) + 1)
    failures = [failure for parity in parities for failure in parity.failures]
    if failures:
        listed = "".join(f"\n  {failure}" for failure in failures)
        raise ConfigurationError(
            f"{len(failures)} outputs differ from PyTorch; nothing was published:{listed}"
        )
    return graphs, tuple(parities)


def _lower(
    graphs: dict[str, bytes], source: Source, precision: Mapping[str, str]
) -> tuple[Drift, ...]:
    """Put the graphs of some stages into a lower precision, and measure what that does."""
    drifts = []
    for graph in graphs_of(source.recipe):
        if graph.name not in precision:
            continue
        own = {path: data for path, data in graphs.items() if path.startswith(graph.path)}
        files = lowered(own, precision[graph.name])
        graphs |= files
        drifts.append(drift(graph, source.model, files, source.recipe, precision[graph.name]))
    return tuple(drifts)
