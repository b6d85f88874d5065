"""What bf16 and int8 gain, and what of the answers they keep, at the size of real checkpoints.

CLIP ViT-B/32 and BLIP-VQA-base with random weights, each exported in fp32, bf16 and int8 into one
repository that one Triton serves, and asked in alternating rounds beside transformers in eager
PyTorch. See README.md beside this file.
"""

import json
import os
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from harness import job, machine
from harness.inputs import Inputs, Sources
from harness.job import LibraryJob, LoadJob
from harness.page import update_page
from harness.precision_report import HEADER, markdown, plot, rows
from harness.probe import Statistics
from harness.sources import photo
from harness.window import percentiles_ms, spread
from sensorium_export.bundle import export_bundle
from sensorium_export.tolerance import BF16, PRECISIONS
from sensorium_export.verify import Options, verify
from sensorium_server.launch import Server
from sensorium_server.openvino_graph import computes_bf16
from sensorium_server.settings import FREE_PORTS, load

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results" / "precision.json"
LIBRARY = "transformers"
PACKAGES = ("openvino", "torch", LIBRARY)
QUESTIONS = ("what is red", "is it a star?", "what is she holding?", "how many stars are there")

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@dataclass(frozen=True, slots=True)
class Case:
    """A checkpoint of `tests.families`, the task to ask, and with what."""

    writer: str
    task: str
    sources: Sources


def _question(number: int) -> bytes:
    return QUESTIONS[number % len(QUESTIONS)].encode()


CASES = {
    "clip_vit_b32": Case("clip_vit_b32", "image_embedding", {"image": photo}),
    "blip_vqa_base": Case(
        "blip_vqa_base", "visual_question_answering", {"image": photo, "question": _question}
    ),
    "tiny": Case("clip", "image_embedding", {"image": photo}),
}


@app.command(epilog="Example: python benchmarks/precision.py --case clip_vit_b32 --rounds 3")
def main(
    cases: Annotated[
        list[str] | None, typer.Option("--case", help=f"Only this one of: {', '.join(CASES)}.")
    ] = None,
    *,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds of all measurements.")] = 3,
    seconds: Annotated[float, typer.Option(help="Length of one measurement.")] = 6.0,
    count: Annotated[int, typer.Option(help="Inputs of each proof.")] = 12,
    concurrency: Annotated[int, typer.Option(help="Requests under way at saturation.")] = 8,
    output: Annotated[Path | None, typer.Option(help="Where to write the JSON.")] = None,
) -> None:
    """Compare fp32, bf16 and int8, served, with transformers in eager PyTorch."""
    names = cases or ["clip_vit_b32", "blip_vqa_base"]
    if unknown := [name for name in names if name not in CASES]:
        raise typer.BadParameter(f"{', '.join(unknown)} is none of {', '.join(CASES)}")
    plan = {"rounds": rounds, "seconds": seconds, "count": count, "concurrency": concurrency}
    console = Console(stderr=True)
    measured = {}
    for name in names:
        with tempfile.TemporaryDirectory() as scratch:
            measured[name] = _measured(name, Path(scratch), plan, console)
        _print({name: measured[name]})
    results = {
        "command": machine.command(),
        "commit": machine.commit(),
        "machine": machine.machine(),
        "versions": machine.versions(measured[names[0]]["triton"], *PACKAGES),
        "plan": plan,
        "cases": measured,
    }
    target = output or (RESULTS if cases is None else None)
    if target is not None:
        target.write_text(json.dumps(results, indent=2) + "\n")
        plot(results, target.with_suffix(".png"))
    if target == RESULTS:
        update_page("precision", markdown(results))


def _measured(name: str, scratch: Path, plan: dict[str, Any], console: Console) -> dict[str, Any]:
    """Export, prove, serve and ask one checkpoint."""
    sys.path.insert(0, str(ROOT))
    from tests import families  # noqa: PLC0415 - where small and large checkpoints are written

    case = CASES[name]
    directory = getattr(families, case.writer)(scratch / name)
    inputs = scratch / "inputs.json"
    Inputs.made(case.task, case.sources, 16).save(inputs)
    proofs = {}
    ways, left_out = _ways_here()
    for precision in ways:
        console.print(f"{name}: export and proof in {precision}")
        own = scratch / precision
        export_bundle(directory, own, bundle=precision, precision=[precision])
        proofs[precision] = _proof(directory, own, precision, case.task, plan["count"])
        for entry in own.iterdir():
            (scratch / "models").mkdir(exist_ok=True)
            entry.rename(scratch / "models" / entry.name)
    settings = load({"repository": scratch / "models", **FREE_PORTS})
    samples: dict[str, list[dict[str, Any]]] = {}
    with Server(settings) as server:
        triton = Statistics(server.endpoints.grpc).triton
        for number in range(plan["rounds"]):
            for way in (*ways, LIBRARY)[:: -1 if number % 2 else 1]:
                console.print(f"{name}: round {number + 1}, {way}")
                sample = (
                    _library(case, directory, inputs, plan)
                    if way == LIBRARY
                    else _served(case, inputs, server, way, plan)
                )
                samples.setdefault(way, []).append(sample)
    return {
        "task": case.task,
        "triton": triton,
        "proofs": proofs,
        "left_out": left_out,
        "ways": _ways(samples),
    }


def _ways_here() -> tuple[tuple[str, ...], dict[str, str]]:
    """Return the precisions that this processor has, and why the others are left out."""
    left_out = {} if computes_bf16() else {BF16: "this CPU does not compute bf16"}
    return tuple(one for one in PRECISIONS if one not in left_out), left_out


def _proof(directory: Path, own: Path, precision: str, task: str, count: int) -> dict[str, Any]:
    """Verify one precision; return what became of the task's answers over gRPC."""
    card = verify(Options(directory, own, count, bundle=precision))
    figures = card.tasks[task]["gRPC"]
    return {
        "passed": card.has_passed,
        "inputs": figures.inputs,
        "equal": figures.equal,
        "min_cosine": figures.min_cosine,
        "agreement": figures.agreement,
        "stage_cosines": {
            stage: ways["alone"].min_stage_cosine
            for stage, ways in card.stages.items()
            if ways["alone"].min_stage_cosine is not None
        },
    }


def _served(
    case: Case, inputs: Path, server: Server, precision: str, plan: dict[str, Any]
) -> dict[str, Any]:
    """Ask a bundle one by one, and with many requests under way."""
    found = {}
    for concurrency in (1, plan["concurrency"]):
        address, seconds = server.endpoints.grpc, plan["seconds"]
        (result,) = job.run(
            [
                LoadJob(
                    address, case.task, str(inputs), concurrency, 1.0, seconds,
                    least_calls=2 * concurrency, server_pid=server.pid, bundle=precision,
                )
            ]
        )  # fmt: skip
        found[concurrency] = result
    alone, many = found[1], found[plan["concurrency"]]
    return {"rate": many["rate"], "p50_ms": percentiles_ms(alone["latencies_ms"])["p50"]}


def _library(case: Case, directory: Path, inputs: Path, plan: dict[str, Any]) -> dict[str, Any]:
    """Call transformers with all cores."""
    cores = os.cpu_count() or 1
    wanted = LibraryJob(str(directory), case.task, str(inputs), cores, plan["seconds"], 3)
    (result,) = job.run([wanted])
    return {"rate": result["rate"], "p50_ms": percentiles_ms(result["latencies_ms"])["p50"]}


def _ways(samples: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Sum up; ratios are taken within a round."""
    base = samples[PRECISIONS[0]]
    return {
        way: {figure: spread([one[figure] for one in own]) for figure in ("rate", "p50_ms")}
        | {
            "rate_over_fp32": spread(
                [one["rate"] / other["rate"] for one, other in zip(own, base, strict=True)]
            ),
            "p50_over_fp32": spread(
                [one["p50_ms"] / other["p50_ms"] for one, other in zip(own, base, strict=True)]
            ),
        }
        for way, own in samples.items()
    }


def _print(cases: dict[str, Any]) -> None:
    table = Table(*HEADER)
    for row in rows(cases):
        table.add_row(*row)
    console = Console()
    console.width = max(console.width, 150)
    console.print(table)


if __name__ == "__main__":
    app()
