"""The gate of engines: which may serve, and what is said of those that may not."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from sensorium.errors import ConfigurationError
from sensorium_server.engine_gate import Compatibility, EngineRuntime, usable_engines
from sensorium_server.engine_record import (
    EngineParity,
    EngineRecord,
    Target,
    engines_path,
    read_records,
    write_records,
)
from sensorium_server.manifest import digest

ADA = Target("NVIDIA L4", "8.9", "580.65.06")
HERE = EngineRuntime({"tensorrt": "11.4.0.106", "tensorrt_rtx": "1.7.1.116"}, ADA)
PROVEN = EngineParity(passed=True, reference="pytorch", cases=7, cosine=0.9999, max_rel=0.001)
WRONG = replace(PROVEN, passed=False, failures=("profile 0 greatest, logits: cosine 0.2",))


@pytest.fixture
def record(tmp_path: Path) -> EngineRecord:
    """A proven engine for this very machine, with its files."""
    folder = tmp_path / "image_encoder/1"
    folder.mkdir(parents=True)
    (folder / "model.onnx").write_bytes(b"graph")
    (folder / "model.plan").write_bytes(b"engine")
    return EngineRecord(
        graph="image_encoder",
        file="image_encoder/1/model.plan",
        digest=digest(folder / "model.plan"),
        onnx={"image_encoder/1/model.onnx": digest(folder / "model.onnx")},
        product="tensorrt",
        version="11.4.0.106",
        target=ADA,
        compatibility=(),
        precision="fp16",
        stripped=False,
        profiles=({"batch": (1, 8, 64)},),
        kept=("node_softmax",),
        cost=1.1,
        build_s=12.5,
        command="sensorium compile --precision fp16",
        parity=PROVEN,
    )


def refusals(record: EngineRecord, repository: Path, runtime: EngineRuntime = HERE) -> list[str]:
    """Write a record; return what the gate says against its engine."""
    write_records(repository, "mine", [record])
    usable, refused = usable_engines(repository, "mine", runtime)
    assert len(usable) + len(refused) == 1
    return [str(one) for one in refused]


def test_proven_engine_may_serve(record: EngineRecord, tmp_path: Path) -> None:
    """What is proven, whole and for this machine is used."""
    assert refusals(record, tmp_path) == []


def test_records_are_read_as_they_were_written(record: EngineRecord, tmp_path: Path) -> None:
    """Nothing is lost on the way through the file, and records are in the order of their files."""
    other = replace(record, file="a/1/model.plan", parity=None)

    write_records(tmp_path, "mine", [record, other])

    assert read_records(tmp_path, "mine") == (other, record)
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["mine.engines.json"]


def test_bundle_without_engines_has_none(tmp_path: Path) -> None:
    """Nothing was compiled, so nothing is used and nothing refused."""
    assert usable_engines(tmp_path, "mine", HERE) == ((), ())


REFUSED: dict[str, tuple[Callable[[EngineRecord], EngineRecord], str]] = {
    "not compared": (lambda one: replace(one, parity=None), "has not been compared with PyTorch"),
    "wrong": (
        lambda one: replace(one, parity=WRONG),
        r"differs from PyTorch \(profile 0 greatest, logits: cosine 0.2\)",
    ),
    "another GPU": (
        lambda one: replace(one, target=Target("NVIDIA T4", "7.5")),
        r"built for NVIDIA T4 \(compute capability 7.5\), and this is NVIDIA L4 \(compute",
    ),
    "another GPU of the same kind": (
        lambda one: replace(one, target=Target("NVIDIA L40", "8.9")),
        r"built for NVIDIA L40",
    ),
    "another version": (
        lambda one: replace(one, version="10.16.1"),
        "built by tensorrt 10.16.1, and 11.4.0.106 is installed",
    ),
    "another product": (
        lambda one: replace(one, product="openvino"),
        "openvino is not installed",
    ),
    "another engine": (
        lambda one: replace(one, digest="sha256:0"),
        "model.plan is not the file that was proven",
    ),
    "no engine": (
        lambda one: replace(one, file="image_encoder/1/gone.plan"),
        "gone.plan is missing",
    ),
    "another graph": (
        lambda one: replace(one, onnx={"image_encoder/1/model.onnx": "sha256:0"}),
        "model.onnx is not what it was built from",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refusal_says_why_and_what_serves_instead(
    case: str, record: EngineRecord, tmp_path: Path
) -> None:
    """Each reason is told, with what serves meanwhile and the command that builds the engine."""
    change, reason = REFUSED[case]

    [message] = refusals(change(record), tmp_path)

    with pytest.raises(ConfigurationError, match=reason):
        raise ConfigurationError(message)
    assert "is not used: " in message
    assert "image_encoder is served by its ONNX file" in message
    assert message.endswith("Build it again: sensorium compile --precision fp16")


def test_all_reasons_are_told_at_once(record: EngineRecord, tmp_path: Path) -> None:
    """Who builds again shall not learn of the next reason afterwards."""
    [message] = refusals(replace(record, parity=None, version="10.0", digest="sha256:0"), tmp_path)

    assert message.count("; ") == 2


@pytest.mark.parametrize(
    ("compatibility", "changes", "is_used"),
    [
        ((Compatibility.VERSION,), {"version": "11.2.0"}, True),
        ((Compatibility.VERSION,), {"version": "11.5.0"}, False),
        ((Compatibility.VERSION,), {"version": "10.16.1"}, False),
        ((Compatibility.AMPERE_PLUS,), {"target": Target("NVIDIA A10", "8.6")}, True),
        ((Compatibility.AMPERE_PLUS,), {"version": "11.2.0"}, False),
        ((Compatibility.SAME_COMPUTE_CAPABILITY,), {"target": Target("NVIDIA L40", "8.9")}, True),
        ((Compatibility.SAME_COMPUTE_CAPABILITY,), {"target": Target("A10", "8.6")}, False),
        ((), {"target": Target("", "8.9")}, True),
        ((), {"target": Target("", "8.6")}, False),
    ],
)
def test_compatible_engines_run_on_more(
    record: EngineRecord,
    tmp_path: Path,
    compatibility: tuple[Compatibility, ...],
    changes: dict[str, object],
    is_used: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    """An engine runs where it was built to run, and one for any GPU of a kind on all of them."""
    changed = replace(record, compatibility=compatibility, **changes)  # type: ignore[arg-type]

    assert (refusals(changed, tmp_path) == []) is is_used


def test_machine_without_gpu_has_no_use_for_a_plan(record: EngineRecord, tmp_path: Path) -> None:
    """Also one for all later GPUs is for a GPU."""
    wide = replace(record, compatibility=(Compatibility.AMPERE_PLUS,))

    [message] = refusals(wide, tmp_path, EngineRuntime(HERE.versions, Target("")))

    assert "and this is no GPU" in message


def test_unreadable_records_are_told(tmp_path: Path) -> None:
    """A file that is no record stops with its name and the way out, not with a traceback."""
    engines_path(tmp_path, "mine").write_text('{"engines": [{"graph": "fusion"}]}')

    with pytest.raises(ConfigurationError, match=r"mine.engines.json cannot be read .* Remove it"):
        usable_engines(tmp_path, "mine", HERE)
