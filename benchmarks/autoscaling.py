"""Which signal should replicas be scaled by?

A simulation of one replica set under traffic of three shapes: the speed of a replica is what
serving_efficiency.py has measured, the rule is that of Kubernetes. See README.md beside this file.
"""

import json
import math
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import track

from harness import machine
from harness.page import update_page
from scaling.hpa import Autoscaler
from scaling.picture import draw
from scaling.service import Service, measured
from scaling.simulation import Cluster, Outcome, Simulation
from scaling.traffic import SHAPES, Shape, arrivals
from scaling.way import WAYS, Way

RESULTS = Path(__file__).parent / "results"
NAME = "autoscaling"
BATCHED = "sawtooth, batches pay"
SCENES = (*SHAPES, BATCHED)
PEAK_REPLICAS = 5.0
LEAST, MOST, FIRST = 1, 12, 2
SEED = 1
POINTS = 240
GOOD = 0.01

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command(epilog="Example: python benchmarks/autoscaling.py --shape spike --json")
def main(
    shapes: Annotated[
        list[str] | None, typer.Option("--shape", help=f"Only this one of: {', '.join(SCENES)}.")
    ] = None,
    minutes: Annotated[
        float | None, typer.Option(help="Only so much of each shape: does it run at all?")
    ] = None,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print the results as JSON.")] = False,
    output: Annotated[
        Path | None,
        typer.Option(
            help="Directory for the JSON file and the picture. Without it, a run of everything "
            "goes to benchmarks/results and benchmarks/README.md."
        ),
    ] = None,
) -> None:
    """Compare signals to scale by: replica-hours against requests that are late or refused."""
    if unknown := set(shapes or ()) - set(SCENES):
        raise typer.BadParameter(f"{', '.join(unknown)} is not one of {', '.join(SCENES)}")
    results = simulated(
        {
            name: replace(scene, shape=scene.shape.cut(60 * (minutes or math.inf)))
            for name, scene in scenes().items()
            if name in (shapes or SCENES)
        }
    )
    publishing = output is None and not shapes and minutes is None
    if target := output or (RESULTS if publishing else None):
        target.mkdir(parents=True, exist_ok=True)
        (target / f"{NAME}.json").write_text(json.dumps(results, indent=1) + "\n")
        draw(results, target / f"{NAME}.png")
    if publishing:
        update_page(NAME, markdown(results))
    print(json.dumps(results, indent=1) if as_json else markdown(results))


@dataclass(frozen=True)
class Scene:
    """A shape of traffic, the replicas that it meets, and what is asked of them."""

    shape: Shape
    service: Service
    cluster: Cluster


def scenes() -> dict[str, Scene]:
    """Return all: a stage that gains nothing by batches, and a slower one that gains much."""
    curves = RESULTS / "serving_efficiency.json"
    encoder = measured(curves, "vit-b-32", "image_embedding")
    decoder = measured(curves, "playroom", "image_captioning").slower(10)
    plain = {name: Scene(shape, encoder, Cluster()) for name, shape in SHAPES.items()}
    patient = Cluster(objective_s=4.0, deadline_s=20.0)
    return {**plain, BATCHED: Scene(SHAPES["sawtooth"], decoder, patient)}


def simulated(chosen: dict[str, Scene]) -> dict[str, Any]:
    """Run every way at every target in every scene."""
    return {
        "command": machine.command(),
        "commit": machine.commit(),
        "peak_replicas": PEAK_REPLICAS,
        "replicas": {"least": LEAST, "most": MOST, "first": FIRST},
        "ways": {way.name: asdict(way.behavior) for way in WAYS},
        "seed": SEED,
        "shapes": {name: _played(name, scene) for name, scene in chosen.items()},
    }


def _played(name: str, scene: Scene) -> dict[str, Any]:
    shape, service = scene.shape, scene.service
    at = arrivals(shape, PEAK_REPLICAS * service.capacity, SEED)
    jobs = [(way, target) for way in WAYS for target in way.targets]
    bar = track(jobs, name, console=Console(stderr=True))
    step_s = shape.duration_s / POINTS
    moments = [step_s * index for index in range(POINTS)]
    return {
        "service": {**asdict(service), "capacity": service.capacity},
        "cluster": asdict(scene.cluster),
        "requests": len(at),
        "demand": {
            "at_s": moments,
            "replicas": [round(PEAK_REPLICAS * shape.share(each), 3) for each in moments],
        },
        "runs": [_run(way, target, at, scene) for way, target in bar],
    }


def _run(way: Way, target: float, at: list[float], scene: Scene) -> dict[str, Any]:
    least, most, first = (round(target),) * 3 if way.is_fixed else (LEAST, MOST, FIRST)
    scaler = Autoscaler(least, most, way.behavior)
    simulation = Simulation(scene.service, at, scaler, scene.cluster, first)
    duration_s = scene.shape.duration_s
    outcome = simulation.run(duration_s, way.signal(target))
    trace = {"trace": _thinned(outcome, duration_s / POINTS)} if target == way.shown else {}
    return {
        "way": way.name,
        "target": target,
        "replica_hours": round(outcome.replica_s / 3600, 3),
        "missed": round(outcome.missed, 6),
        "refused": round(outcome.rejected / max(outcome.requests, 1), 6),
        "most": max(wanted for _, _, wanted in outcome.trace),
        "changes": outcome.changes,
        **trace,
    }


def _thinned(outcome: Outcome, step_s: float) -> dict[str, list[float]]:
    """Return the replicas wanted at moments a step apart."""
    kept: dict[str, list[float]] = {"at_s": [], "replicas": []}
    for at_s, _, wanted in outcome.trace:
        if not kept["at_s"] or at_s >= kept["at_s"][-1] + step_s:
            kept["at_s"].append(at_s)
            kept["replicas"].append(wanted)
    return kept


def markdown(results: dict[str, Any]) -> str:
    """Return each way's best target under each shape: the cheapest of those that are good."""
    heading = (
        f"`{results['command']}`; at the peak {results['peak_replicas']:g} times as many requests "
        "as one replica can answer."
    )
    lines = [
        heading,
        "",
        "| traffic | way | target | replica-hours | missed | refused | changes | most |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name, shape in results["shapes"].items():
        for way in results["ways"]:
            run = _best([each for each in shape["runs"] if each["way"] == way])
            lines.append(
                f"| {name} | {way} | {run['target']:g} | {run['replica_hours']:.1f} "
                f"| {run['missed']:.2%} | {run['refused']:.2%} | {run['changes']} | {run['most']} |"
            )
    return "\n".join(lines)


def _best(runs: list[dict[str, Any]]) -> dict[str, Any]:
    good = [run for run in runs if run["missed"] <= GOOD]
    if good:
        return min(good, key=lambda run: float(run["replica_hours"]))
    return min(runs, key=lambda run: float(run["missed"]))


if __name__ == "__main__":
    app()
