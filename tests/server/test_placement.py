"""What runs each stage, by what is there."""

from dataclasses import replace
from pathlib import Path

import pytest
from tests.server import toy

from sensorium.errors import ConfigurationError
from sensorium_server.engine_record import EngineParity, EngineRecord, Target, write_records
from sensorium_server.gpu import Gpu, found_gpus
from sensorium_server.manifest import digest
from sensorium_server.onnx_provider import CUDA
from sensorium_server.placement import (
    NATIVE_LIBRARY,
    NATIVE_VARIANT,
    WHEEL_VARIANT,
    Hardware,
    hardware,
    placed,
    placements,
)
from sensorium_server.settings import load

CARD = Gpu(0, "NVIDIA H200", "9.0", "13.0", 150 * 2**30)
FULL = Hardware((CARD,), products={"tensorrt": "11.4.0"}, providers=(CUDA,))
ONNX, PLAN = "text_encoder/1/model.onnx", "text_encoder/1/model.plan"


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Return a toy repository of which one stage has a proven plan."""
    made = toy.build(tmp_path / "models")
    for model, backend in (
        ("text_encoder", "tensorrt"),
        ("fusion", "tensorrt"),
        ("text_decoder", "decoder"),
    ):
        path = made / model / f"configs/{WHEEL_VARIANT}.pbtxt"
        path.parent.mkdir()
        path.write_text(f'backend: "{backend}"\n')
    (made / PLAN).write_bytes(b"a plan")
    write_records(made, "toy", [record(made)])
    return made


def record(repository: Path) -> EngineRecord:
    """Return what is known of the plan."""
    return EngineRecord(
        graph="text_encoder",
        file=PLAN,
        digest=digest(repository / PLAN),
        onnx={ONNX: digest(repository / ONNX)},
        product="tensorrt",
        version="11.4.0",
        target=CARD.target,
        compatibility=(),
        precision="fp16",
        profiles=(),
        kept=(),
        cost=1,
        stripped=False,
        build_s=1,
        command="sensorium compile",
        parity=EngineParity(True, "pytorch", 3, 1.0, 0.0),
    )


def engines(repository: Path, here: Hardware) -> dict[str, str]:
    """Return what runs each stage."""
    return {one.model: one.engine for one in placements(repository, here)}


def reasons(repository: Path, here: Hardware) -> dict[str, str]:
    """Return why nothing faster does."""
    return {one.model: one.reason for one in placements(repository, here)}


def test_each_stage_gets_the_fastest_that_is_there(repository: Path) -> None:
    """A proven plan runs by TensorRT, all else by ONNX Runtime on CUDA."""
    assert engines(repository, FULL) == {
        "fusion": "ONNX Runtime on CUDA",
        "text_decoder": "ONNX Runtime on CUDA",
        "text_encoder": "tensorrt 11.4.0, fp16",
    }
    assert "it was not compiled" in reasons(repository, FULL)["fusion"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"parity": None}, "it has not been compared with PyTorch"),
        ({"version": "10.9.0"}, "it was built by tensorrt 10.9.0, and 11.4.0 is installed"),
        ({"target": Target("NVIDIA L4", "8.9")}, "it was built for NVIDIA L4"),
        ({"digest": "0"}, "not the file that was proven"),
        ({"product": "tensorrt_rtx"}, "tensorrt_rtx is not installed"),
    ],
)
def test_plan_that_may_not_serve_is_named(
    repository: Path, change: dict[str, object], reason: str
) -> None:
    """A plan that is unproven or of elsewhere is refused with the reason; its ONNX file serves."""
    write_records(repository, "toy", [replace(record(repository), **change)])  # type: ignore[arg-type]

    assert engines(repository, FULL)["text_encoder"] == "ONNX Runtime on CUDA"
    assert reason in reasons(repository, FULL)["text_encoder"]


def test_decoder_runs_by_the_plans_of_both_graphs(repository: Path) -> None:
    """Each graph has its own; where one is missing, ONNX Runtime runs both."""
    plans = []
    for graph, precision in (("cross", "fp16"), ("step", "bf16")):
        onnx, plan = (f"text_decoder/1/{graph}.{kind}" for kind in ("onnx", "plan"))
        (repository / plan).write_bytes(b"another plan")
        own = replace(record(repository), graph=f"text_decoder/{graph}", precision=precision)
        found = {"digest": digest(repository / plan), "onnx": {onnx: digest(repository / onnx)}}
        plans.append(replace(own, file=plan, **found))  # type: ignore[arg-type]

    write_records(repository, "toy", plans[:1])
    alone = engines(repository, FULL)["text_decoder"]
    reason = reasons(repository, FULL)["text_decoder"]
    write_records(repository, "toy", plans)

    assert alone == "ONNX Runtime on CUDA"
    assert "text_decoder/1/step.plan is not used: nothing is recorded of it" in reason
    assert engines(repository, FULL)["text_decoder"] == (
        "tensorrt 11.4.0, fp16 and tensorrt 11.4.0, bf16"
    )


def test_plan_without_a_record_is_named(repository: Path) -> None:
    """A file that nothing is recorded of is not used."""
    write_records(repository, "toy", [])

    assert "nothing is recorded of it" in reasons(repository, FULL)["text_encoder"]


def test_without_cuda_in_onnx_runtime(repository: Path) -> None:
    """With a GPU but the usual onnxruntime, stages without a plan run on the processor."""
    here = replace(FULL, providers=())

    assert engines(repository, here)["fusion"] == "ONNX Runtime on the processor"
    assert "onnxruntime-gpu is not installed" in reasons(repository, here)["text_decoder"]


def test_configs_are_chosen_by_what_is_there(repository: Path) -> None:
    """Triton's own TensorRT takes one set of configs, the packaged Triton the other."""
    settings = load({"repository": repository, "profile": "gpu"})

    by_wheel = placed(settings, FULL)
    assert by_wheel.settings.model_config_name == WHEEL_VARIANT
    assert by_wheel.lines[0].startswith("GPU 0: NVIDIA H200, compute capability 9.0, 150 GiB")
    assert "tensorrt 11.4.0, fp16: text_encoder" in by_wheel.lines

    native = placed(settings, replace(FULL, native=True))
    assert native.settings.model_config_name == NATIVE_VARIANT
    assert "TensorRT of Triton: fusion, text_encoder" in native.lines

    own = settings.model_copy(update={"model_config_name": "mine"})
    assert placed(own, FULL).settings.model_config_name == "mine"


def test_without_a_gpu_the_wish_is_dropped(repository: Path) -> None:
    """No config on a GPU is chosen and no metric of one is asked for; the first line says why."""
    wish = {"repository": repository, "profile": "gpu", "model_config_name": WHEEL_VARIANT}

    found = placed(load(wish), Hardware(why_no_gpu="CUDA lists no device"))

    assert found.settings.model_config_name == ""
    assert not found.settings.gpu_metrics
    assert found.lines[0].startswith("no GPU was found (CUDA lists no device)")


def test_by_default_nothing_is_looked_for(repository: Path) -> None:
    """The profile for the processor neither asks for a GPU nor says anything."""
    settings = load({"repository": repository})

    assert placed(settings).settings == settings
    assert placed(settings).lines == ()


def test_this_machine_is_looked_at() -> None:
    """A machine has GPUs, or a reason why not."""
    found = hardware(load({"profile": "gpu"}))

    assert bool(found.gpus) != bool(found.why_no_gpu)
    if not found.gpus:
        with pytest.raises(ConfigurationError, match="CUDA"):
            found_gpus()


def test_triton_with_its_own_tensorrt_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An installed Triton is native where its TensorRT backend lies."""
    monkeypatch.setattr("sensorium_server.placement.found_gpus", lambda: (CARD,))
    settings = load({"triton_dir": tmp_path})
    assert not hardware(settings).native

    (tmp_path / NATIVE_LIBRARY).parent.mkdir(parents=True)
    (tmp_path / NATIVE_LIBRARY).touch()

    assert hardware(settings).native
