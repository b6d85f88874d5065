"""Dashboards as pictures, by the very queries that Grafana would send; Grafana is not needed.

    python deploy/monitoring/pictures.py --prometheus http://localhost:9090 --out pictures

It needs the extra `plot` (matplotlib).
"""

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from sensorium.errors import ConfigurationError, SensoriumError
from series import Prometheus, Shown, Window

DASHBOARDS = Path(__file__).parent / "dashboards"
_POINTS = 240

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command(epilog="python deploy/monitoring/pictures.py --prometheus http://localhost:9090")
def pictures(
    prometheus: Annotated[str, typer.Option(help="Address of a Prometheus.")],
    out: Annotated[Path, typer.Option(help="Directory to write to.")] = Path(),
    minutes: Annotated[float, typer.Option(min=0.1, help="How far to look back.")] = 60,
    ago_minutes: Annotated[float, typer.Option(min=0, help="How long ago that was.")] = 0,
    scrape_interval_s: Annotated[float, typer.Option(help="That of prometheus.yml.")] = 15,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print the paths as JSON.")] = False,
) -> None:
    """Draw each dashboard as NAME.png."""
    end_s = time.time() - ago_minutes * 60
    step_s = max(scrape_interval_s, minutes * 60 / _POINTS)
    window = Window(end_s - minutes * 60, end_s, step_s, scrape_interval_s)
    source = Prometheus(prometheus)
    written = []
    try:
        out.mkdir(parents=True, exist_ok=True)
        for path in sorted(DASHBOARDS.glob("*.json")):
            typer.echo(f"drawing {path.stem}", err=True)
            dashboard = json.loads(path.read_text())
            shown = [asked(panel, source, window) for panel in dashboard["panels"]]
            written.append(str(_draw(dashboard["title"], shown, window, out / f"{path.stem}.png")))
    except (SensoriumError, OSError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from error
    typer.echo(json.dumps(written) if as_json else "\n".join(written))


def _draw(title: str, shown: Sequence[Shown], window: Window, path: Path) -> Path:
    try:
        from drawing import draw  # noqa: PLC0415 - heavy and optional
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"drawing dashboards needs {error.name}, which is not installed. "
            "Install it with: pip install 'sensorium[plot]'"
        ) from error
    return draw(title, shown, window, path)


def asked(panel: dict[str, Any], source: Prometheus, window: Window) -> Shown:
    """Return a panel with what its queries give."""
    return panel, [
        series
        for target in panel.get("targets", [])
        for series in source.series(target["expr"], target["legendFormat"], window)
    ]


if __name__ == "__main__":
    app()
