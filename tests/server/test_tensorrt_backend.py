"""Engines run on batches of requests; here a device of the host's memory stands for the GPU."""

from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from tests.server.host_device import HostDevice, OnnxEngine

from sensorium.errors import ConfigurationError, InvalidInputError, ServerError
from sensorium_server import dlpack, tensorrt_backend, tensorrt_engine
from sensorium_server.device import DeviceArray, on_host
from sensorium_server.onnx_session import OnnxGraph
from sensorium_server.onnxruntime_backend import OnnxModel
from sensorium_server.stages import StageConfig
from sensorium_server.tensorrt_backend import EngineModel, TritonPythonModel
from sensorium_server.tensorrt_engine import planned

WANTED = {"text_tokens", "text_embedding"}
SHORT = {"batch": (1, 4), "sequence": (1, 8)}
LONG = {"batch": (1, 4), "sequence": (9, 16)}
PARAMETERS = {"buckets.sequence": "8,16", "cuda_graphs": "2"}


@pytest.fixture
def device() -> HostDevice:
    """Return a device."""
    return HostDevice()


@pytest.fixture
def engine(toy_repository: Path) -> OnnxEngine:
    """Return the toy's text encoder with two profiles."""
    return OnnxEngine(toy_repository / "text_encoder/1/model.onnx", [SHORT, LONG])


@pytest.fixture
def model(engine: OnnxEngine, device: HostDevice) -> EngineModel:
    """Return it as a model with buckets."""
    return EngineModel(engine, device, StageConfig("text_encoder", Path(), PARAMETERS))


@pytest.fixture
def plain(toy_repository: Path) -> OnnxModel:
    """Return the same graph by ONNX Runtime."""
    graph = OnnxGraph(toy_repository / "text_encoder/1/model.onnx")
    return OnnxModel(graph, StageConfig("text_encoder", Path(), PARAMETERS))


def text(*ids: int) -> dict[str, Any]:
    """Return a request of one text."""
    return {
        "input_ids": np.array([ids], np.int64),
        "attention_mask": np.ones((1, len(ids)), np.int64),
    }


def arrays(answer: Mapping[str, Any] | Exception, device: HostDevice) -> dict[str, Any]:
    """Return an answer's arrays on the host."""
    assert not isinstance(answer, Exception), answer
    return {
        name: on_host(device, part) if isinstance(part, DeviceArray) else part
        for name, part in answer.items()
    }


def test_engine_answers_as_onnx_runtime_does(
    model: EngineModel, plain: OnnxModel, engine: OnnxEngine, device: HostDevice
) -> None:
    """Unequal requests share one run, padded to buckets of batch and length, and stay apart."""
    requests = [text(5), text(4, 6, 7), text(9, 8)]

    answers = model.answer(requests, [WANTED] * 3)

    assert engine.runs == [{"input_ids": (4, 8), "attention_mask": (4, 8)}]
    for answer, expected in zip(answers, plain.answer(requests, [WANTED] * 3), strict=True):
        assert not isinstance(expected, Exception)
        for name, array in arrays(answer, device).items():
            assert array.shape == expected[name].shape
            assert_allclose(array, expected[name], rtol=1e-6)


def test_narrowest_profile_runs(model: EngineModel, engine: OnnxEngine) -> None:
    """A long text runs by the profile for long ones; `OnnxContext` refuses any other."""
    answers = model.answer([text(*range(4, 16))], [WANTED])

    assert not isinstance(answers[0], Exception)
    assert engine.runs[0]["input_ids"] == (1, 16)


def test_what_no_profile_holds_is_refused(model: EngineModel) -> None:
    """A text beyond every profile fails with what was sent and what is allowed."""
    (answer,) = model.answer([text(*range(4, 24))], [WANTED])

    assert isinstance(answer, InvalidInputError)
    assert "input_ids [1, 20]" in str(answer)
    assert "input_ids [1, 9] to [4, 16]" in str(answer)


def test_work_is_recorded_and_the_oldest_forgotten(
    model: EngineModel, device: HostDevice, engine: OnnxEngine
) -> None:
    """Shapes that come again are launched as recorded; only so many recordings are kept."""
    lengths = [3, 3, 12, 3]
    for length in lengths:
        model.answer([text(*range(4, 4 + length))], [WANTED])
    assert device.launched == 2
    assert model._runner.recorded == 2

    model.answer([text(4), text(5)], [WANTED] * 2)
    model.answer([text(*range(4, 16))], [WANTED])

    assert model._runner.recorded == 2
    assert device.launched == 2
    assert engine.runs[-1]["input_ids"] == (1, 16)


def test_device_that_records_nothing_runs_plainly(toy_repository: Path) -> None:
    """An engine that cannot be recorded is queued call by call."""
    device = HostDevice(can_record=False)
    engine = OnnxEngine(toy_repository / "text_encoder/1/model.onnx", [SHORT])
    model = EngineModel(engine, device, StageConfig("text_encoder", Path(), PARAMETERS))

    for _ in range(3):
        model.answer([text(4, 5)], [WANTED])

    assert len(engine.runs) == 3
    assert model._runner.recorded == 0


def test_buffers_are_made_once(model: EngineModel, device: HostDevice) -> None:
    """Answering allocates nothing but, once for each output, room for what is cut."""
    model.answer([text(4, 5), text(6)], [WANTED] * 2)
    before = device.allocated

    for length in (1, 5, 8, 12):
        model.answer([text(*range(4, 4 + length)), text(5)], [WANTED] * 2)

    assert device.allocated == before


def test_requests_that_cannot_share_a_run_keep_their_answers(
    toy_repository: Path, device: HostDevice
) -> None:
    """The answers of one run are safe from the next run of the same call."""
    config = StageConfig("text_encoder", Path(), {})
    path = toy_repository / "text_encoder/1/model.onnx"
    model = EngineModel(OnnxEngine(path, [{**SHORT, "sequence": (1, 16)}]), device, config)
    plain = OnnxModel(OnnxGraph(path), config)
    requests = [text(4), text(5, 6), text(7, 8, 9)]

    answers = model.answer(requests, [WANTED] * 3)

    for answer, expected in zip(answers, plain.answer(requests, [WANTED] * 3), strict=True):
        assert not isinstance(expected, Exception)
        for name, array in arrays(answer, device).items():
            assert_allclose(array, expected[name], rtol=1e-6)


def test_embeddings_do_not_visit_the_host(toy_repository: Path, device: HostDevice) -> None:
    """What is on the device goes into the next stage from there, whatever its length."""
    path = toy_repository / "fusion/1/model.onnx"
    sizes = {"batch": (1, 4), "sequence": (1, 8), "media": (1, 8)}
    config = StageConfig("fusion", Path(), {"buckets.sequence": "8", "buckets.media": "8"})
    model = EngineModel(OnnxEngine(path, [sizes]), device, config)
    random = np.random.default_rng(3)

    def request(length: int, media: int) -> dict[str, Any]:
        return {
            "text_tokens": random.normal(size=(1, length, 8)).astype(np.float32),
            "attention_mask": np.ones((1, length), np.int64),
            "media_tokens": random.normal(size=(1, media, 8)).astype(np.float32),
            "media_mask": np.ones((1, media), np.int64),
        }

    requests = [request(3, 4), request(5, 2)]
    model.answer([request(8, 8), request(8, 8)], [{"fused_tokens"}] * 2)
    expected = OnnxModel(OnnxGraph(path), config).answer(requests, [{"fused_tokens"}] * 2)
    device.copied.clear()

    answers = model.answer(
        [{name: device.placed(array) for name, array in one.items()} for one in requests],
        [{"fused_tokens"}] * 2,
    )

    assert device.copied == []
    for answer, wanted in zip(answers, expected, strict=True):
        assert not isinstance(wanted, Exception)
        assert_allclose(
            arrays(answer, device)["fused_tokens"], wanted["fused_tokens"], rtol=1e-5, atol=1e-6
        )


def test_plan_of_another_model_is_refused(toy_repository: Path, device: HostDevice) -> None:
    """A plan whose tensors are not the stage's is refused with their names."""
    engine = OnnxEngine(toy_repository / "text_encoder/1/model.onnx", [SHORT])

    with pytest.raises(ConfigurationError, match="input_ids"):
        EngineModel(engine, device, StageConfig("image_encoder", Path(), {}))
    with pytest.raises(ConfigurationError, match="the engine has no input pixel_values"):
        engine.layout.check(["pixel_values"], [])


def test_triton_model_serves_the_onnx_file_without_a_proven_plan(
    toy_repository: Path, stub: SimpleNamespace, triton_args: Callable[..., dict[str, str]]
) -> None:
    """Where no plan may serve, the stage answers by its ONNX file and the log says why."""
    served = TritonPythonModel()
    served.initialize(triton_args(toy_repository, "text_encoder"))

    (answer,) = served.execute([stub.Request(text(4, 5), {"text_embedding"})])

    assert answer.arrays["text_embedding"].shape == (1, 8)
    assert stub.logged == [
        "text_encoder serves its ONNX file: the instance is not on a GPU",
    ]


def test_triton_model_hands_over_by_dlpack(
    toy_repository: Path,
    stub: SimpleNamespace,
    triton_args: Callable[..., dict[str, str]],
    monkeypatch: pytest.MonkeyPatch,
    device: HostDevice,
) -> None:
    """Inputs on the device are taken by address, and outputs are handed over by address."""
    engine = OnnxEngine(toy_repository / "text_encoder/1/model.onnx", [SHORT])
    monkeypatch.setattr(
        tensorrt_backend, "planned", lambda *given: given[-1](device, {"model": engine})
    )
    served = TritonPythonModel()
    served.initialize(triton_args(toy_repository, "text_encoder", gpu=0))
    tensors = {name: device.placed(array) for name, array in text(4, 5, 6).items()}

    (answer,) = served.execute([stub.Request(tensors, {"text_tokens"})])

    handed = answer.arrays["text_tokens"]
    assert isinstance(handed, DeviceArray)
    expected = engine.graph.run(["text_tokens"], text(4, 5, 6))["text_tokens"]
    assert_array_equal(np.from_dlpack(handed), expected)


def test_dlpack_goes_both_ways() -> None:
    """NumPy reads what we hand over, we read what NumPy hands over, and nothing is kept alive."""
    array = np.arange(12, dtype=np.float32).reshape(3, 4)
    ours = DeviceArray(array.ctypes.data, array.shape, array.dtype, (dlpack.HOST, 0), array)

    taken = np.from_dlpack(ours)
    assert_array_equal(taken, array)
    assert np.shares_memory(taken, array)
    assert len(dlpack._alive) == 1
    del taken
    assert not dlpack._alive

    capsule = array.__dlpack__()
    assert dlpack.described(capsule) == (array.ctypes.data, (3, 4), array.dtype, (1, 0))
    with pytest.raises(ValueError, match="not contiguous"):
        dlpack.described(array.T.__dlpack__())
    ours.__dlpack__()
    assert not dlpack._alive


def kept(device: Any, engines: Any) -> tuple[Any, Any]:  # noqa: ANN401 - whatever was loaded
    """Make nothing of plans."""
    return device, engines


@pytest.mark.parametrize("named", ["", "tensorrt"])
def test_plan_that_does_not_fit_its_model_is_no_obstacle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: str
) -> None:
    """The ONNX files serve and the log says why; but one that the config names must fit."""
    monkeypatch.setattr(tensorrt_engine, "usable_plans", lambda *_: {})
    monkeypatch.setattr(tensorrt_engine, "_loaded", lambda *_: (None, {}))
    folder = tmp_path / "text_decoder/2"
    folder.mkdir(parents=True)
    config = StageConfig("text_decoder", folder, {"engine": named})
    told = list[str]()

    def refuse(_device: Any, _engines: Any) -> None:  # noqa: ANN401 - whatever was loaded
        raise ConfigurationError("it takes 4 rows")

    if named:
        with pytest.raises(ConfigurationError, match="it takes 4 rows"):
            planned(config, 0, told.append, refuse)
    else:
        planned(config, 0, told.append, refuse)

    assert told == ([] if named else ["text_decoder serves its ONNX files: it takes 4 rows"])


@pytest.mark.parametrize("engine", ["onnxruntime", "tensorrt_rtx"])
def test_config_may_say_what_serves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, engine: str
) -> None:
    """The ONNX files, or the plans beside them, with the weights of which those are stripped."""
    folder = tmp_path / "text_decoder/2"
    folder.mkdir(parents=True)
    for name in ("cross.onnx", "cross.rtx", "step.onnx", "step.rtx", "tokenizer.json"):
        (folder / name).touch()
    loaded: list[Any] = []

    def load(plans: Any, gpu: int) -> tuple[None, dict[str, Any]]:  # noqa: ANN401 - its own
        loaded.append((plans, gpu))
        return None, {}

    monkeypatch.setattr(tensorrt_engine, "_loaded", load)
    config = StageConfig("text_decoder", folder, {"engine": engine, "stripped": "true"})

    found = planned(config, 1, pytest.fail, kept)

    if engine == "onnxruntime":
        assert found is None
        assert not loaded
    else:
        [(plans, gpu)] = loaded
        assert gpu == 1
        assert plans == {
            name: (folder / f"{name}.rtx", "tensorrt_rtx", True) for name in ("cross", "step")
        }


def test_plan_that_its_config_names_must_be_there(tmp_path: Path) -> None:
    """Such a version does not load, so that the one before serves on."""
    folder = tmp_path / "text_decoder/2"
    folder.mkdir(parents=True)
    for name in ("cross.onnx", "cross.plan", "step.onnx"):
        (folder / name).touch()

    with pytest.raises(ConfigurationError, match="text_decoder has no plan of step"):
        planned(StageConfig("text_decoder", folder, {"engine": "tensorrt"}), 0, pytest.fail, kept)


def test_numbers_that_are_none_are_refused_where_that_is_checked(
    engine: OnnxEngine, device: HostDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An engine that is new to a server answers with an error, and not with NaN."""
    config = StageConfig("text_encoder", Path(), {**PARAMETERS, "check_finite": "true"})
    checked = EngineModel(engine, device, config)
    (well,) = checked.answer([text(5)], [WANTED])
    run = engine.graph.run
    monkeypatch.setattr(
        engine.graph,
        "run",
        lambda *given: {name: one * np.nan for name, one in run(*given).items()},
    )

    (answer,) = checked.answer([text(6, 7)], [WANTED])

    assert not isinstance(well, Exception)
    assert isinstance(answer, ServerError)
    assert "text_encoder put out NaN or infinity in text_tokens" in str(answer)
