"""Which engines may serve a bundle's models, of those in its repository or in the cache."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from sensorium_server.engine_gate import Refusal, reasons_against
from sensorium_server.engine_record import EngineRecord, read_records
from sensorium_server.manifest import SUFFIX
from sensorium_server.placement import NATIVE_VARIANT, graphs_in
from sensorium_server.swap.device import CPU_PRODUCTS, runtime_of
from sensorium_server.swap.link import link

Engines = Mapping[str, tuple[EngineRecord, ...]]
"""The engines of each model that has some: one for every graph of it that was compiled."""


def selected_engines(
    repository: Path,
    bundle: str,
    source: Path,
    refused: Mapping[str, str],
    log: Callable[[str], None],
    *,
    variant: str = NATIVE_VARIANT,
) -> Engines:
    """Return a bundle's engines that may serve here; say of all others why not.

    Args:
        repository: The serving copy. Engines of another source are linked into it.
        bundle: The name of the bundle's manifest.
        source: Where records and engines are: the copy itself, or an entry of the cache.
        refused: Why engines are not to be taken, by their digests.
        log: Told what is refused.
        variant: The name of the configs for engines on a GPU.

    Raises:
        ConfigurationError: The records cannot be read.
    """
    found = defaultdict[str, list[EngineRecord]](list)
    for record in read_records(source, bundle):
        if source != repository:
            _bring(source / record.file, repository / record.file)
        reasons = [refused[record.digest]] if record.digest in refused else []
        reasons += reasons_against(record, repository, runtime_of(record.product))
        if not _has_config(repository, record, variant):
            reasons.append(f"{_model(record)} has no configs/{variant}.pbtxt to serve it by")
        if reasons:
            log(str(Refusal(record, "; ".join(reasons))))
        else:
            found[_model(record)].append(record)
    engines = {}
    for model, records in found.items():
        own = _for_one_device(records)
        if lacking := _lacking(repository, model, own):
            log(f"{model}: its plans are not used, {', '.join(lacking)} has none")
        else:
            engines[model] = own
    return engines


def _for_one_device(records: Iterable[EngineRecord]) -> tuple[EngineRecord, ...]:
    """Return a model's engines for the GPU, or those for the processor where there are none."""
    on_gpu = tuple(record for record in records if record.product not in CPU_PRODUCTS)
    return on_gpu or tuple(records)


def _lacking(repository: Path, model: str, records: Iterable[EngineRecord]) -> list[str]:
    """Return the graphs without an engine of a model that would run on a GPU: it needs them all."""
    has = {Path(one.file).stem for one in records if one.product not in CPU_PRODUCTS}
    graphs = graphs_in(repository / model / "1")
    return [graph for graph in graphs if graph not in has] if has else []


def named_config(repository: Path, model: str, variant: str) -> str:
    """Return the config that was written for a model's engines on a GPU; empty if there is none."""
    path = repository / model / "configs" / f"{variant}.pbtxt"
    return path.read_text(encoding="utf-8") if path.is_file() else ""


def bundles_of(repository: Path) -> Iterable[str]:
    """Return the names of a repository's bundles."""
    return [path.name.removesuffix(SUFFIX) for path in sorted(repository.glob(f"*{SUFFIX}"))]


def _model(record: EngineRecord) -> str:
    return Path(record.file).parts[0]


def _has_config(repository: Path, record: EngineRecord, variant: str) -> bool:
    if record.product in CPU_PRODUCTS:
        return True
    return bool(named_config(repository, _model(record), variant))


def _bring(source: Path, target: Path) -> None:
    if source.is_file() and target.parent.is_dir():
        target.unlink(missing_ok=True)
        link(source, target)
