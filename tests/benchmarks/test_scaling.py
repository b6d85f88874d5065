import importlib
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from scaling.counter import rate
from scaling.hpa import Autoscaler
from scaling.service import Service, measured
from scaling.simulation import Cluster, Outcome, Signal, Simulation
from scaling.traffic import SHAPES, Shape, arrivals
from scaling.way import WAYS, fixed, queue_seconds, request_seconds

RESULTS = Path(__file__).parents[2] / "benchmarks/results"
SERVICE = Service("test", {1: 0.1, 2: 0.15, 4: 0.25}, busy_cores=1.0, cores=2)


def run(
    at: list[float], signal: Signal, replicas: int = 1, most: int = 1, duration_s: float = 600
) -> tuple[Simulation, Outcome]:
    """Serve arrivals; return the simulation and what it came to."""
    simulation = Simulation(SERVICE, at, Autoscaler(1, most), Cluster(), replicas)
    return simulation, simulation.run(duration_s, signal)


def test_rate_is_prometheus_own() -> None:
    """A steady counter has its rate; one that began within the window is not blown up to it."""
    steady = [(float(at), 3.0 * at) for at in range(0, 120, 15)]
    begun = [(75.0, 0.0), (90.0, 45.0), (105.0, 90.0)]

    assert rate(steady, 110, 60) == pytest.approx(3.0)
    assert rate(begun, 110, 60) == pytest.approx(90 * (30 + 0 + 5) / 30 / 60)
    assert rate(steady[:1], 10, 60) == 0.0


def test_batches_are_interpolated() -> None:
    """A batch size that was not measured takes what lies between its neighbours."""
    assert SERVICE.table() == pytest.approx([0, 0.1, 0.15, 0.2, 0.25])
    assert SERVICE.capacity == 16


def test_curve_is_the_measured_one() -> None:
    """The speed of a replica comes from the committed results of the server."""
    service = measured(RESULTS / "serving_efficiency.json", "vit-b-32", "image_embedding")

    assert service.max_batch == 32
    assert 10 < service.capacity < 13
    assert 1.0 < service.busy_cores < 1.2


def test_lonely_request_takes_one_batch() -> None:
    """A request that meets an idle replica is answered after the time of a batch of one."""
    simulation, outcome = run([10.0, 20.0], fixed(1))

    assert (outcome.late, outcome.rejected) == (0, 0)
    assert simulation.replicas[0].busy_s(600) == pytest.approx(0.2)


def test_what_waits_is_batched_and_counted() -> None:
    """Five at once on one replica: four in a batch, one after them, whose wait is counted."""
    simulation, outcome = run([10.0] * 5, fixed(1))
    (replica,) = simulation.replicas
    replica.settle(600)

    assert replica.queue.value == pytest.approx(0.25)
    assert replica.request.value == pytest.approx(4 * 0.25 + 0.25 + 0.1)
    assert outcome.missed == 0


def test_replicas_share_what_waits() -> None:
    """Of four at once on two replicas none takes more than its half, and both work."""
    simulation, _ = run([10.0] * 4, fixed(2), replicas=2, most=2)

    assert sorted(each.busy_s(600) for each in simulation.replicas) == pytest.approx([0.15, 0.2])


def test_late_and_refused() -> None:
    """A replica that cannot keep up answers late, and refuses what has waited past the deadline."""
    _, outcome = run([10.0] * 400, fixed(1))

    assert outcome.late + outcome.rejected + 64 >= 400
    assert outcome.rejected == 400 - 84
    assert outcome.missed > 0.8


def test_overload_grows_by_request_seconds() -> None:
    """Under twice its capacity a single replica gets company, and is paid for with it."""
    at = [index / 32 for index in range(32 * 600)]
    _, outcome = run(at, request_seconds(1), most=12)

    assert max(wanted for _, _, wanted in outcome.trace) > 2
    assert outcome.replica_s > 600
    assert outcome.trace[-1][1] > 1


def test_queue_seconds_swing_and_request_seconds_do_not() -> None:
    """Under steady traffic the queue alone takes replicas away that it then lacks."""
    shape = Shape(2400, lambda _: 1.0)
    at = arrivals(shape, 2 * SERVICE.capacity, 1)
    outcomes = {
        name: run(at, signal, 2, 12, shape.duration_s)[1]
        for name, signal in (("queue", queue_seconds(0.5)), ("request", request_seconds(0.8)))
    }

    assert outcomes["queue"].changes > 2 * outcomes["request"].changes
    assert outcomes["queue"].missed > 2 * outcomes["request"].missed


@pytest.mark.parametrize("shape", SHAPES)
def test_traffic_follows_its_shape(shape: str) -> None:
    """Shares lie between 0 and 1, and as many requests arrive as they say."""
    shares = [SHAPES[shape].share(at_s) for at_s in range(int(SHAPES[shape].duration_s))]
    at = arrivals(SHAPES[shape], 1.0, 3)

    assert min(shares) >= 0
    assert 0.98 <= max(shares) <= 1
    assert len(at) == pytest.approx(sum(shares), rel=0.1)
    assert at == sorted(at)


def test_traffic_is_of_its_seed() -> None:
    """The same seed gives the same requests, another one others."""
    first, again, other = (arrivals(SHAPES["spike"], 1.0, seed) for seed in (3, 3, 4))

    assert first == again != other


def test_script_draws_and_tells(tmp_path: Path) -> None:
    """The script writes JSON with its curve, a picture, and a table with each way."""
    script = importlib.import_module("autoscaling")
    ran = CliRunner().invoke(
        script.app, ["--shape", "spike", "--minutes", "3", "--output", str(tmp_path)]
    )
    found = json.loads((tmp_path / "autoscaling.json").read_text())

    assert ran.exit_code == 0, ran.output
    assert found["shapes"]["spike"]["service"]["batch_s"]["1"] == pytest.approx(0.104, abs=0.001)
    assert len(found["shapes"]["spike"]["runs"]) == sum(len(way.targets) for way in WAYS)
    assert all(f"| spike | {way.name} |" in ran.output for way in WAYS)
    assert (tmp_path / "autoscaling.png").stat().st_size > 10_000


def test_unknown_shape_is_refused() -> None:
    """A shape that there is not is misuse."""
    script = importlib.import_module("autoscaling")

    assert CliRunner().invoke(script.app, ["--shape", "square"]).exit_code == 2
