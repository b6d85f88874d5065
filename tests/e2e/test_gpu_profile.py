"""`--profile gpu` on a machine without a GPU, and the choice of configs by name, on one Triton."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from tests.e2e.conftest import TIMEOUT_S, bytes_tensor
from tests.server import toy, toy_graph

from sensorium._config import address_from_url
from sensorium._transports.base import Request, Transport, transport_for
from sensorium_export.model_config import config_from_pbtxt
from sensorium_export.pbtxt import pbtxt_from_config
from sensorium_export.variant_config import variants_of
from sensorium_server.gpu import found_gpus
from sensorium_server.launch import Server
from sensorium_server.onnx_session import OnnxGraph
from sensorium_server.settings import FREE_PORTS, load

pytestmark = pytest.mark.triton

OTHER = "other"


def has_gpu() -> bool:
    """Tell whether there is one."""
    try:
        return bool(found_gpus())
    except Exception:  # noqa: BLE001 - no GPU, or nothing that could find one
        return False


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the toy's repository with configs on a GPU, and two of a name of their own.

    By that name `text_encoder` runs another file, and `image_encoder` by the backend `tensorrt`.
    """
    made = toy.build(tmp_path_factory.mktemp("gpu"))
    for path in made.glob("*/config.pbtxt"):
        config = config_from_pbtxt(path.read_text(), str(path))
        config.name = path.parent.name
        for variant, own in variants_of(config).items():
            target = path.parent / "configs" / f"{variant}.pbtxt"
            target.parent.mkdir(exist_ok=True)
            target.write_text(pbtxt_from_config(own))
    text, image = made / "text_encoder", made / "image_encoder"
    doubled = toy_graph.text_encoder()
    words = doubled.graph.initializer[0]
    words.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(words)[:, ::-1], words.name))
    onnx.save(doubled, text / "1/other.onnx")
    (text / f"configs/{OTHER}.pbtxt").write_text(
        'default_model_filename: "other.onnx"\n' + (text / "config.pbtxt").read_text()
    )
    (image / f"configs/{OTHER}.pbtxt").write_text(
        (image / "configs/gpu_wheel.pbtxt").read_text().replace("KIND_GPU", "KIND_CPU")
    )
    return made


@pytest.fixture(scope="module")
def log() -> list[str]:
    """Return what the launcher says."""
    return []


@pytest.fixture(scope="module")
def server(
    repository: Path, tmp_path_factory: pytest.TempPathFactory, log: list[str]
) -> Iterator[Server]:
    """Serve it by the profile for a GPU, and by those configs."""
    if has_gpu():
        pytest.skip("this machine has a GPU; what happens without one is tested elsewhere")
    settings = load(
        {
            **FREE_PORTS,
            "repository": repository,
            "profile": "gpu",
            "model_config_name": OTHER,
            "cache_dir": tmp_path_factory.mktemp("cache"),
        }
    )
    with Server(settings, log.append) as running:
        yield running


@pytest.fixture(scope="module")
def transport(server: Server) -> Iterator[Transport]:
    """Return a way to call it."""
    made = transport_for(address_from_url(server.endpoints.grpc), None, {})
    yield made
    made.close()


def test_the_start_says_what_runs_where(server: Server, log: list[str]) -> None:
    """Without a GPU the start says so and why, and that every stage runs on the processor."""
    assert server.placements
    assert {one.engine for one in server.placements} == {"ONNX Runtime on the processor"}
    assert "no GPU was found (CUDA says " in log[0]
    assert log[1] == (
        "ONNX Runtime on the processor: fusion, image_encoder, text_decoder, text_encoder"
    )


def test_configs_are_chosen_by_name_inside_of_ensembles(
    transport: Transport, repository: Path
) -> None:
    """A task answers by the file that the chosen config of its stage names."""
    request = Request("text_embedding", (bytes_tensor("text", b"a red star"),), ("embedding",), "")
    (found,) = transport.infer(request, TIMEOUT_S).outputs

    ids = np.array([[toy.VOCABULARY[word] for word in ("a", "red", "star")]], np.int64)
    graphs = (OnnxGraph(repository / f"text_encoder/1/{name}.onnx") for name in ("other", "model"))
    other, usual = (
        graph.run(["text_embedding"], {"input_ids": ids, "attention_mask": np.ones_like(ids)})
        for graph in graphs
    )
    array = np.frombuffer(found.data, np.float32).reshape(1, -1)
    assert np.allclose(array, other["text_embedding"], atol=1e-6)
    assert not np.allclose(array, usual["text_embedding"], atol=1e-2)


def test_stage_without_a_plan_serves_its_onnx_file(transport: Transport) -> None:
    """The backend `tensorrt` answers inside of a task, though there is neither plan nor GPU."""
    from tests.e2e import picture  # noqa: PLC0415 - beside this file

    image = bytes_tensor("image", picture.noise())
    (found,) = transport.infer(
        Request("image_embedding", (image,), ("embedding",), ""), TIMEOUT_S
    ).outputs

    vector = np.frombuffer(found.data, np.float32)
    assert vector.shape == (8,)
    assert np.isclose(np.linalg.norm(vector), 1, atol=1e-5)


def test_repository_on_a_gpu_is_checked(repository: Path, tmp_path: Path) -> None:
    """`variants_of` is what the static check compares with: an edited tensor is a problem."""
    from sensorium_export.repository_check import gpu_problems  # noqa: PLC0415

    model = "text_encoder"
    shutil.copytree(repository / model, tmp_path / model)
    text = (tmp_path / model / "config.pbtxt").read_text()
    config = config_from_pbtxt(text, "config.pbtxt")
    config.name = model
    assert list(gpu_problems(tmp_path, model, config)) == []

    path = tmp_path / model / "configs/gpu.pbtxt"
    path.write_text(path.read_text().replace("KIND_GPU", "KIND_CPU").replace("[8]", "[9]"))

    assert list(gpu_problems(tmp_path, model, config)) == [
        "text_encoder/configs/gpu.pbtxt: output text_embedding is not as config.pbtxt asks for",
        "text_encoder/configs/gpu.pbtxt: every instance group must be of KIND_GPU",
    ]
