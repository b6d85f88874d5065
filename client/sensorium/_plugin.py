"""The command's verbs from other packages, imported only when they are used or listed."""

from collections.abc import Callable
from importlib.metadata import EntryPoint, entry_points
from typing import Any

import typer
from rich.markup import escape
from typer.core import TyperGroup
from typer.main import get_command

from sensorium.errors import SensoriumError

GROUP = "sensorium.commands"

EXTRAS = {
    "sensorium_server": "server",
    "sensorium_export": "export",
    "sensorium_training": "train",
}
"""The extra that installs what a package needs."""


class Verbs(TyperGroup):
    """A group of own verbs and plugins, which turns our errors into a message and exit code 1."""

    def list_commands(self, ctx: typer.Context) -> list[str]:  # type: ignore[override]
        """Name all verbs, our own first."""
        own = list(super().list_commands(ctx))
        return own + sorted(name for name in _plugins() if name not in own)

    def get_command(self, ctx: typer.Context, cmd_name: str) -> Any:  # type: ignore[override] # noqa: ANN401
        """Find a verb; import it if it is a plugin."""
        own = super().get_command(ctx, cmd_name)
        plugin = _plugins().get(cmd_name)
        return own if own is not None or plugin is None else _command(plugin)

    def invoke(self, ctx: typer.Context) -> Any:  # type: ignore[override] # noqa: ANN401
        """Run the verb."""
        try:
            return super().invoke(ctx)
        except SensoriumError as error:
            request = f" (request {error.request_id})" if error.request_id else ""
            typer.echo(f"error: {error}{request}", err=True)
            raise typer.Exit(1) from error


def _plugins() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=GROUP)}


def _command(plugin: EntryPoint) -> Any:  # noqa: ANN401 - Typer's own command type is private
    app = typer.Typer(add_completion=False)
    try:
        verb: Callable[..., object] = plugin.load()
    except ImportError as error:
        _add_missing(app, plugin, error)
    else:
        app.command(plugin.name, epilog=getattr(verb, "epilog", None))(verb)
    return get_command(app)


def _add_missing(app: typer.Typer, plugin: EntryPoint, error: ImportError) -> None:
    package = plugin.module.partition(".")[0]
    reason = f"{error.name!r} is not installed" if error.name else str(error)
    way_out = f"Install it with: pip install 'sensorium[{EXTRAS.get(package, package)}]'"

    @app.command(
        plugin.name,
        help=escape(f"Not available: {reason}. {way_out}"),
        context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
    )
    def missing() -> None:
        typer.echo(
            f"error: sensorium {plugin.name} is not available: {reason}. {way_out}", err=True
        )
        raise typer.Exit(1)
