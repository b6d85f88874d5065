"""The verb `sensorium rollback`: serve a stage, or a bundle, as it was exported."""

import json
from pathlib import Path
from typing import Annotated

import typer

from sensorium.errors import ConfigurationError
from sensorium_server.manifest import SUFFIX
from sensorium_server.settings import load
from sensorium_server.swap.engine_cache import EngineCache
from sensorium_server.swap.exchange import Exchange
from sensorium_server.swap.model_control import ModelControl
from sensorium_server.swap.serving_copy import ServingCopy, living


def rollback(
    target: Annotated[
        str, typer.Argument(help="A stage, as in image_encoder, or a bundle.", show_default=False)
    ],
    *,
    repository: Annotated[
        Path | None,
        typer.Option(help="Only the servers of this repository.", show_default=False),
    ] = None,
    cache_dir: Annotated[
        Path | None, typer.Option(help="That of the servers.", show_default=False)
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Take engines back on the running servers of this machine, with no failed request.

    The engines are not used again, until others are built. Exit code 1 if none was in use.
    """
    folder = load({"cache_dir": cache_dir}).cache_dir
    copies = [copy for copy in living(folder) if _is_meant(copy, repository)]
    if not copies:
        raise ConfigurationError(
            f"no server with engines is running whose files are in {folder}. Name the servers' "
            f"--cache-dir, or start one: sensorium serve --engines auto"
        )
    done = [model for copy in copies for model in _rolled_back(copy, target)]
    if not done:
        served = sorted({name for copy in copies for name in _exchange(copy).swapped()})
        raise ConfigurationError(
            f"{target} is not served by an engine; those that are: {', '.join(served) or 'none'}"
        )
    typer.echo(json.dumps({"rolled_back": done}) if as_json else "\n".join(done))


def _is_meant(copy: ServingCopy, repository: Path | None) -> bool:
    told = copy.told()
    return bool(told) and repository in {None, Path(told["repository"])}


def _rolled_back(copy: ServingCopy, target: str) -> list[str]:
    told = copy.told()
    control = ModelControl(told["address"], told["secret"])
    reason = "told to by sensorium rollback"
    exchange = _exchange(copy)
    return [
        model
        for model in _models(copy, target)
        if model in exchange.swapped() and exchange.roll_back(model, reason, control)
    ]


def _exchange(copy: ServingCopy) -> Exchange:
    cache = EngineCache(Path(copy.told()["cache"]))
    return Exchange(copy, cache, lambda line: typer.echo(line, err=True))


def _models(copy: ServingCopy, target: str) -> list[str]:
    """Return the models of a bundle, or the one stage."""
    manifest = copy.repository / f"{target}{SUFFIX}"
    if not manifest.is_file():
        return [target]
    files = json.loads(manifest.read_text(encoding="utf-8"))["files"]
    return sorted({Path(name).parts[0] for name in files})


rollback.epilog = "Example: sensorium rollback image_encoder"  # type: ignore[attr-defined]
