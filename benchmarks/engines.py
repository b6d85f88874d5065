"""How fast every engine runs a network, how near to what the device can do, and what serving adds.

One network at a time, by every way that this machine has, in alternating rounds of one run. See
README.md beside this file.
"""

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.table import Table

from harness import job, machine
from harness.engine_report import HEADER, markdown, plot, rows
from harness.engine_way import DTYPES, Run, Way, cpu_ways
from harness.inputs import Inputs
from harness.job import LoadJob
from harness.page import update_page
from harness.raw import RawTask
from harness.roofline import least_ms, roofline
from harness.subject import CASES, ROOT, Subject, subject
from harness.window import percentiles_ms, spread
from sensorium.errors import ConfigurationError
from sensorium_export.bundle import export_bundle
from sensorium_server.gpu import found_gpus
from sensorium_server.launch import Server
from sensorium_server.settings import FREE_PORTS, load

RESULTS = Path(__file__).parent / "results"
BATCHES = {"cpu": (1, 4, 8), "gpu": (1, 2, 4, 8, 16, 32, 64, 128, 256)}
BASELINES = ("torch.compile fp16", "PyTorch eager fp32")
"""What ratios are taken over: the first one that was measured."""

REAL = ("playroom", "clip_vit_b32", "clip_vit_l14", "blip_vqa_base", "blip_vqa_base_question")
_WARM = 3
_LOAD_S = 3.0

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command(epilog="Example: python benchmarks/engines.py --device cpu --quick")
def main(
    cases: Annotated[
        list[str] | None, typer.Option("--case", help=f"Only this one of: {', '.join(CASES)}.")
    ] = None,
    chosen: Annotated[
        list[str] | None, typer.Option("--way", help="Only ways whose name begins like this.")
    ] = None,
    *,
    device: Annotated[str, typer.Option(help="cpu or gpu.")] = "gpu",
    quick: Annotated[bool, typer.Option(help="A tiny network, small batches.")] = False,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds of all measurements.")] = 5,
    seconds: Annotated[float, typer.Option(help="Length of one measurement.")] = 1.0,
    threads: Annotated[int, typer.Option(min=1, help="Threads of each engine on a CPU.")] = 1,
    serving: Annotated[bool, typer.Option(help="Serve each network and ask it as well.")] = True,
    output: Annotated[Path | None, typer.Option(help="Where to write the JSON.")] = None,
) -> None:
    """Compare the engines of one machine on the same networks."""
    if device not in BATCHES:
        raise typer.BadParameter(f"--device {device} is none of {', '.join(BATCHES)}")
    names = cases or (["tiny"] if quick else list(REAL))
    if unknown := [name for name in names if name not in CASES]:
        raise typer.BadParameter(f"{', '.join(unknown)} is none of {', '.join(CASES)}")
    console = Console(stderr=True)
    where = _device(device)
    torch.set_num_threads(threads)
    plan = {"rounds": rounds, "seconds": seconds, "threads": threads}
    batches = (1, 4) if quick else BATCHES[device]
    roof = roofline({"cpu": "cpu", "gpu": "cuda"}[device], _precisions(device))
    measured = {}
    for name in names:
        with tempfile.TemporaryDirectory() as scratch:
            bench = _Bench(
                device,
                chosen=chosen or [""],
                batches=batches,
                plan=plan,
                roof=roof,
                console=console,
            )
            measured[name] = bench.case(name, Path(scratch), serving=serving)
    results = {
        "command": machine.command(),
        "commit": machine.commit(),
        "machine": machine.machine(),
        "device": where,
        "versions": machine.versions("2.51.0", "torch", "transformers"),
        "plan": plan,
        "roofline": roof,
        "cases": measured,
    }
    _write(results, output, is_whole=cases is None and chosen is None and not quick)


def _write(results: dict[str, Any], output: Path | None, *, is_whole: bool) -> None:
    table = Table(*HEADER)
    for row in rows(results["cases"]):
        table.add_row(*row)
    console = Console()
    console.width = max(console.width, 150)
    console.print(table)
    target = output or (RESULTS / "engines.json" if is_whole else None)
    if target is None:
        return
    target.write_text(json.dumps(results, indent=2) + "\n")
    plot(results, target.with_suffix(".png"))
    text = markdown(results)
    if target.resolve().parent == RESULTS:
        update_page("engines", text)
    else:
        target.with_suffix(".md").write_text(text + "\n")


def _device(device: str) -> str:
    """Name what is measured.

    Raises:
        typer.Exit: There is no GPU.
    """
    if device == "cpu":
        return str(machine.machine()["processor"])
    try:
        return str(found_gpus()[0])
    except ConfigurationError as error:
        typer.echo(f"error: --device gpu: {error}. Measure the processor: --device cpu", err=True)
        raise typer.Exit(1) from error


def _precisions(device: str) -> dict[str, torch.dtype]:
    names = ("fp32",) if device == "cpu" else ("fp16", "bf16")
    return {name: DTYPES[name] for name in names}


class _Bench:
    """Measures networks on one device."""

    def __init__(
        self,
        device: str,
        *,
        chosen: list[str],
        batches: tuple[int, ...],
        plan: dict[str, Any],
        roof: dict[str, Any],
        console: Console,
    ) -> None:
        self._device, self._chosen, self._batches = device, chosen, batches
        self._plan, self._roof, self._console = plan, roof, console

    def case(self, name: str, scratch: Path, *, serving: bool) -> dict[str, Any]:
        """Measure one network by every way."""
        network = subject(name, scratch)
        ways, left_out = self._loaded(network, scratch)
        if not ways:
            raise typer.BadParameter(f"no way is left: {left_out}")
        baseline = next((one for one in BASELINES if one in ways), next(iter(ways)))
        found = {batch: self._batch(network, batch, ways, baseline) for batch in self._batches}
        result: dict[str, Any] = {
            "gflops": network.flops / 1e9,
            "parameters": network.parameters,
            "baseline": baseline,
            "left_out": left_out,
            "batches": found,
        }
        if serving and CASES[name].task:
            self._console.print(f"{name}: served")
            result["serving"] = self._served(name, network, scratch, found[1])
        return result

    def _loaded(self, network: Subject, scratch: Path) -> tuple[dict[str, Way], dict[str, str]]:
        """Load every way that there is; say of the others why they are left out."""
        ways: dict[str, Way] = {}
        left_out: dict[str, str] = {}
        for name, way in self._ways().items():
            if not name.startswith(tuple(self._chosen)):
                continue
            self._console.print(f"{network.name}: {name}")
            if why := way.why_not():
                left_out[name] = why
                continue
            try:
                way.load(network, max(self._batches), scratch)
                way.prepared(network, 1)()
            except Exception as error:  # noqa: BLE001 - one engine's failure is a result
                left_out[name] = str(error).splitlines()[0] if str(error) else repr(error)
                continue
            ways[name] = way
        return ways, left_out

    def _ways(self) -> dict[str, Way]:
        if self._device == "cpu":
            return cpu_ways(self._plan["threads"])
        from harness.engine_way_gpu import gpu_ways  # noqa: PLC0415 - imports what a GPU needs

        return gpu_ways()

    def _batch(
        self, network: Subject, batch: int, ways: dict[str, Way], baseline: str
    ) -> dict[str, Any]:
        """Measure one batch by every way, in alternating rounds."""
        runs = {name: way.prepared(network, batch) for name, way in ways.items()}
        repeats = {name: self._repeats(ways[name], run) for name, run in runs.items()}
        samples: dict[str, list[float]] = {name: [] for name in ways}
        for number in range(self._plan["rounds"]):
            for name in list(ways)[:: -1 if number % 2 else 1]:
                samples[name].append(ways[name].ms(runs[name], repeats[name]))
        flops = batch * network.flops
        found = {}
        for name, own in samples.items():
            precision = ways[name].precision
            rate = self._roof["flops"].get(precision, max(self._roof["flops"].values()))
            size = {"int8": 1, "fp16": 2, "bf16": 2}.get(precision, 4)
            least = least_ms(flops, network.parameters * size, rate, self._roof["bytes_per_s"])
            ratios = [one / other for one, other in zip(own, samples[baseline], strict=True)]
            ms = spread(own)
            found[name] = {
                "ms": ms,
                "over_baseline": spread(ratios),
                "matrix_fraction": flops / (ms["median"] / 1e3) / rate,
                "roofline_fraction": least / ms["median"],
            }
        return found

    def _repeats(self, way: Way, run: Run) -> int:
        """Return how many runs fill a measurement."""
        for _ in range(_WARM):
            run()
        fitting: float = 1e3 * self._plan["seconds"] / way.ms(run, 2)
        return max(1, round(fitting))

    def _served(
        self, name: str, network: Subject, scratch: Path, alone: dict[str, Any]
    ) -> dict[str, Any]:
        """Serve the network and ask it, one request after the other, from the bytes of a file."""
        wanted = CASES[name]
        assert wanted.sources is not None  # noqa: S101 - every case with a task has some
        repository = scratch / "models"
        bundle = export_bundle(network.checkpoint, repository).manifest.bundle
        task = wanted.task if (repository / wanted.task).is_dir() else f"{bundle}.{wanted.task}"
        inputs = scratch / "inputs.json"
        Inputs.made(wanted.task, wanted.sources, 8).save(inputs)
        settings = load({**FREE_PORTS, "repository": repository, "profile": self._device})
        with Server(settings) as server:
            (load_job,) = job.run(
                [
                    LoadJob(
                        server.endpoints.grpc, wanted.task, str(inputs), 1, 1.0, _LOAD_S,
                        least_calls=3, server_pid=server.pid,
                        bundle="" if task == wanted.task else bundle,
                    )
                ]
            )  # fmt: skip
            engines = {one.model: one.engine for one in server.placements}
        p50 = percentiles_ms(load_job["latencies_ms"])["p50"]
        preprocess = _preprocess_ms(repository, task, Inputs.load(wanted.task, inputs))
        graph = min(found["ms"]["median"] for found in alone.values())
        if "ONNX Runtime fp32" in alone:
            graph = alone["ONNX Runtime fp32"]["ms"]["median"]
        return {
            "task": wanted.task,
            "engines": engines,
            "p50_ms": p50,
            "preprocess_ms": preprocess,
            "graph_ms": graph,
            "added_ms": p50 - preprocess - graph,
        }


def _preprocess_ms(repository: Path, task: str, inputs: Inputs) -> float:
    """Return how long the server's own preprocessing takes in this process, the median."""
    raw = RawTask(repository, task, threads=1, batch=1)
    times = []
    for batch in inputs.batches(1) * 3:
        begin = time.perf_counter()
        raw.preprocess(batch)
        times.append(1e3 * (time.perf_counter() - begin))
    return spread(times)["median"]


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    app()
