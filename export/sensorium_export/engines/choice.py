"""Which graphs of a bundle are compiled, and in which precision each."""

from collections.abc import Iterable

from sensorium.errors import ConfigurationError
from sensorium_export.engines import Product
from sensorium_export.graphs import graphs_of
from sensorium_export.recipe import Recipe


def chosen_graphs(
    wanted: Iterable[str], only: Iterable[str], recipe: Recipe, product: Product, usual: str
) -> dict[str, str]:
    """Return the precision of every graph that is compiled.

    Args:
        wanted: `bf16` for all graphs, `image_encoder=bf16` for one or for those of a stage; the
            later one counts.
        only: The graphs or stages to compile; all if there is none.
        recipe: The bundle's.
        product: What compiles.
        usual: The precision of graphs that none is wanted for.

    Raises:
        ConfigurationError: Graphs or precisions are unknown; all are listed.
    """
    names = [graph.name for graph in graphs_of(recipe)]
    problems = []

    def named(name: str, where: str) -> list[str]:
        found = [one for one in names if name in {one, one.partition("/")[0]}]
        if not found:
            problems.append(
                f"{where}: {name} is no graph of this bundle; those are: {', '.join(names)}"
            )
        return found

    chosen = dict.fromkeys(names, usual)
    for text in wanted:
        name, _, precision = text.rpartition("=")
        if precision not in product.precisions:
            problems.append(
                f'precision "{text}": {product.name} builds {", ".join(product.precisions)}'
            )
        chosen |= dict.fromkeys(named(name, f'precision "{text}"') if name else names, precision)
    kept = [one for name in only for one in named(name, "graph")]
    if problems:
        raise ConfigurationError("\n".join(problems))
    return {name: one for name, one in chosen.items() if not kept or name in kept}
