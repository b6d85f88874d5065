"""CUDA's own calls, on a GPU; what is around them runs everywhere in the other tests."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from tests.server.toy_graph import SIZES

from sensorium.contract import DECODER_GRAPHS, STAGES, Signature
from sensorium.errors import ConfigurationError, ServerError
from sensorium_export.engines import BuildPlan, GraphFile
from sensorium_export.engines.tensorrt import TENSORRT, TENSORRT_RTX, TensorRtProduct
from sensorium_server.cuda import CudaDevice, Timer
from sensorium_server.decoder_backend import decoder_from, engine_decoder
from sensorium_server.decoding import Decoder
from sensorium_server.device import DeviceArray, Pitched, on_host, zeros
from sensorium_server.engine_record import Ranges
from sensorium_server.generation import Generation
from sensorium_server.gpu import found_gpus
from sensorium_server.onnx_provider import CUDA, installed_providers
from sensorium_server.onnx_session import OnGpu, OnnxGraph
from sensorium_server.stages import StageConfig
from sensorium_server.tensorrt_backend import EngineModel
from sensorium_server.tensorrt_engine import TensorRtEngine


def why_no_gpu() -> str:
    """Say why there is no GPU; empty where there is one."""
    try:
        found_gpus()
    except ConfigurationError as error:
        return str(error)
    return ""


needs_gpu = pytest.mark.skipif(bool(why_no_gpu()), reason=f"needs a GPU: {why_no_gpu()}")


@pytest.fixture
def device() -> CudaDevice:
    """Return the first GPU."""
    return CudaDevice()


@pytest.mark.skipif(not why_no_gpu(), reason="this machine has a GPU")
def test_without_a_gpu_the_device_says_so() -> None:
    """Where there is no GPU, CUDA's own name of the error is told."""
    with pytest.raises(ServerError, match="cudaSetDevice: cudaError"):
        CudaDevice()


@pytest.mark.gpu
@needs_gpu
def test_bytes_go_there_and_back(device: CudaDevice) -> None:
    """Copies, rows with a pitch and zeros arrive in order."""
    source = np.arange(12, dtype=np.float32).reshape(3, 4)
    wide = zeros(device, (3, 6), source.dtype)

    device.copy_rows(Pitched(wide.pointer, 24), Pitched(source.ctypes.data, 16), 16, 3)

    expected = np.zeros((3, 6), np.float32)
    expected[:, :4] = source
    assert_array_equal(on_host(device, wide), expected)
    device.clear(wide.pointer, wide.nbytes)
    assert not on_host(device, wide).any()


@pytest.mark.gpu
@needs_gpu
def test_recorded_work_runs_again(device: CudaDevice) -> None:
    """A CUDA graph of a copy copies what is there at each launch, and events time it."""
    one, other = (zeros(device, (4,), np.dtype(np.float32)) for _ in range(2))
    launch = device.recorded(lambda: device.copy(other.pointer, one.pointer, one.nbytes))
    timer = Timer(device)
    for number in (1, 2):
        source = np.full(4, number, np.float32)
        device.copy(one.pointer, source.ctypes.data, source.nbytes)
        timer.start()
        launch()
        assert timer.stop() > 0
        assert_array_equal(on_host(device, other), source)


@pytest.fixture(params=[TENSORRT, TENSORRT_RTX], ids=lambda one: one.name)
def product(request: pytest.FixtureRequest) -> TensorRtProduct:
    """Return what builds plans here."""
    found: TensorRtProduct = request.param
    if reason := found.why_unavailable():
        pytest.skip(reason)
    return found


def engine_of(
    product: TensorRtProduct,
    path: Path,
    signature: Signature,
    ranges: Ranges,
    device: CudaDevice,
) -> TensorRtEngine:
    """Build a toy's graph on this GPU, and load it."""
    sizes = {str(axis): size for axis, size in SIZES.items() if isinstance(size, int)}
    graph = GraphFile(path.stem, signature, {path.name: path.read_bytes()}, sizes)
    with TemporaryDirectory() as folder:
        plan = Path(folder, "model.plan")
        plan.write_bytes(product.build(graph, BuildPlan("fp32", (ranges,))))
        return TensorRtEngine(plan, product.name, device)


@pytest.mark.gpu
@needs_gpu
def test_decoder_s_plans_say_what_its_onnx_files_do(
    product: TensorRtProduct, toy_repository: Path, device: CudaDevice
) -> None:
    """Rows that join and leave, greedy and with beams, with the cache on the device."""
    folder = toy_repository / "text_decoder/1"
    ranges = {"batch": (1, 4, 8), "past": (0, 6, 11), "memory": (1, 4, 12)}
    engines = [
        engine_of(product, folder / f"{name}.onnx", signature, ranges, device)
        for name, signature in DECODER_GRAPHS.items()
    ]
    parameters = {"bos_id": "2", "eos_id": "3", "max_new_tokens": "12", "slots": "8"}
    config = StageConfig("text_decoder", folder, parameters)
    random = np.random.default_rng(1)
    memories = [random.normal(size=(length, 8)).astype(np.float32) for length in (5, 3, 9)]
    wishes = [None, Generation((2,), (3,), 9, num_beams=3), None]
    texts = []
    decoders: list[Decoder[Any]] = [
        decoder_from(config),
        engine_decoder(config, engines[0], engines[1], device),
    ]
    for decoder in decoders:
        ended: dict[Any, list[int]] = {}
        for number, (memory, wish) in enumerate(zip(memories, wishes, strict=True)):
            decoder.join([number], [memory], [np.ones(len(memory), np.int64)], [wish])
            ended |= {one.key: one.tokens for one in decoder.step()}
        while decoder.running:
            ended |= {one.key: one.tokens for one in decoder.step()}
        texts.append(ended)

    assert texts[0] == texts[1]


@pytest.mark.gpu
@needs_gpu
def test_plan_answers_as_its_onnx_file(
    product: TensorRtProduct, toy_repository: Path, tmp_path: Path, device: CudaDevice
) -> None:
    """A plan that is built here answers ragged requests as ONNX Runtime does, on the device."""
    path = toy_repository / "text_encoder/1/model.onnx"
    ranges = {"batch": (1, 4, 8), "sequence": (1, 8, 16)}
    engine = engine_of(product, path, STAGES["text_encoder"], ranges, device)
    config = StageConfig("text_encoder", tmp_path, {"buckets.sequence": "8,16"})
    model = EngineModel(engine, device, config)
    onnx = OnnxGraph(path)
    for _ in range(3):
        requests = [
            {"input_ids": ids, "attention_mask": np.ones_like(ids)}
            for ids in (np.arange(4, 4 + length)[None] for length in (1, 5, 3))
        ]
        for request, answer in zip(
            requests, model.answer(requests, [{"text_tokens"}] * 3), strict=True
        ):
            assert not isinstance(answer, Exception), answer
            found = answer["text_tokens"]
            assert isinstance(found, DeviceArray)
            expected = onnx.run(["text_tokens"], request)["text_tokens"]
            assert_allclose(on_host(device, found), expected, rtol=1e-4, atol=1e-5)
    assert model._runner.recorded <= 1


@pytest.mark.gpu
@needs_gpu
@pytest.mark.skipif(CUDA not in installed_providers(), reason="onnxruntime-gpu is not installed")
def test_onnx_runtime_runs_on_cuda(toy_repository: Path) -> None:
    """A graph on the GPU gives what it gives on the processor; so does a decoder with its cache."""
    path = toy_repository / "image_encoder/1/model.onnx"
    pixels = {"pixel_values": np.random.default_rng(0).normal(size=(2, 3, 6, 6)).astype("f4")}
    on_gpu, plain = OnnxGraph(path, gpu=OnGpu()), OnnxGraph(path)
    assert on_gpu.provider == CUDA
    for name, array in on_gpu.run(list(plain.outputs), pixels).items():
        assert_allclose(array, plain.run([name], pixels)[name], rtol=1e-4, atol=1e-5)

    parameters = {"bos_id": "2", "eos_id": "3", "max_new_tokens": "12", "slots": "4"}
    config = StageConfig("text_decoder", toy_repository / "text_decoder/1", parameters)
    memory = np.random.default_rng(1).normal(size=(5, 8)).astype(np.float32)
    texts = []
    for gpu in (None, 0):
        decoder: Decoder[Any] = decoder_from(config, gpu)
        decoder.join(["one"], [memory], [np.ones(5, np.int64)])
        ended = []
        while decoder.running:
            ended += decoder.step()
        texts.append(ended[0].tokens)
    assert texts[0] == texts[1]
