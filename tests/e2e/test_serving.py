import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import tritonclient.grpc
from numpy.testing import assert_allclose
from tests.e2e import picture
from tests.e2e.conftest import Caller
from tests.server import toy

from sensorium import Client, Generation, Retry
from sensorium.contract import TASKS
from sensorium.errors import (
    ConfigurationError,
    DeadlineExceededError,
    InvalidInputError,
    SensoriumError,
    ServerError,
    ServerUnreachableError,
)
from sensorium_server.launch import Endpoints, Server
from sensorium_server.process import SHARED_MEMORY

pytestmark = pytest.mark.triton

QUESTIONS = [
    b"star",
    b"what color is the large star",
    b"how many red square things are there left of the blue circle",
    b"is there a green circle right of the small red square and a star left of a thing",
]


def statistics(endpoints: Endpoints, model: str) -> tuple[int, int]:
    """Return how many requests and how many executions a model has had."""
    with urllib.request.urlopen(f"{endpoints.http}/v2/models/{model}/stats") as answer:
        (stats,) = json.load(answer)["model_stats"]
    return stats["inference_count"], stats["execution_count"]


def floats(items: list[bytes]) -> list[Any]:
    """Read raw little-endian numbers."""
    return [np.frombuffer(item, "<f4") for item in items]


def test_every_task_answers(caller: Caller) -> None:
    """Each task answers over each protocol with its outputs and nothing else."""
    image, text = picture.noise(), b"a red star"
    answer = caller.ask("visual_question_answering", image=image, question=text)
    caption = caller.ask("image_captioning", image=image)
    seen = caller.ask("image_embedding", image=image)
    read = caller.ask("text_embedding", text=text)

    assert set(answer) == {"answer", "score"}
    assert set(caption) == {"caption", "score"}
    assert caption["caption"][0].decode().split()
    assert 0 < floats(answer["score"])[0][0] <= 1
    for embedding in (seen["embedding"], read["embedding"]):
        assert_allclose(np.linalg.norm(floats(embedding)[0]), 1, rtol=1e-5)


@pytest.mark.parametrize("scheme", ["grpc", "http"])
def test_a_call_says_how_words_are_chosen(endpoints: Endpoints, scheme: str) -> None:
    """What a call says about generation reaches the decoder through the whole ensemble."""
    image = picture.noise(3)
    with Client(getattr(endpoints, scheme), retry=Retry(attempts=1)) as client:
        plain = client.caption(image)
        short = client.caption(image, generation=Generation(max_new_tokens=1, num_beams=3))
        drawn = [
            client.caption(image, generation=Generation(do_sample=True, temperature=5.0, seed=seed))
            for seed in (1, 1, 2)
        ]
        with pytest.raises(InvalidInputError, match=r"num_beams = 99 .* 1 to 8"):
            client.caption(image, generation=Generation(num_beams=99))
        again = client.caption(image)

    assert len(short.text.split()) <= 1 < len(plain.text.split())
    assert drawn[0].text == drawn[1].text != drawn[2].text
    assert again.text == plain.text


def test_the_client_answers(endpoints: Endpoints) -> None:
    """The SDK's client gets the same answer over both protocols."""
    image = picture.noise(3)
    with Client(endpoints.grpc) as grpc, Client(endpoints.http) as http:
        first, second = (each.ask(image, "what color is the star") for each in (grpc, http))

    assert (first.text, first.score) == (second.text, second.score)


def test_batches_equal_single_requests(caller: Caller) -> None:
    """A request with several items is answered item by item as if each came alone."""
    images = [picture.noise(seed) for seed in range(4)]

    together = caller.ask("visual_question_answering", image=images, question=QUESTIONS)

    for index, (image, question) in enumerate(zip(images, QUESTIONS, strict=True)):
        alone = caller.ask("visual_question_answering", image=image, question=question)
        assert alone["answer"] == together["answer"][index : index + 1]
        assert_allclose(floats(alone["score"])[0], floats(together["score"])[index], rtol=1e-3)


def test_concurrent_requests_equal_single_ones(caller: Caller) -> None:
    """Under load every request gets what it gets alone, whoever shares its batches."""
    work = [(picture.noise(seed % 5), QUESTIONS[seed % 4]) for seed in range(60)]

    def ask(pair: tuple[bytes, bytes]) -> tuple[bytes, float]:
        image, question = pair
        answer = caller.ask("visual_question_answering", image=image, question=question)
        return answer["answer"][0], float(floats(answer["score"])[0][0])

    expected = {pair: ask(pair) for pair in set(work)}
    with ThreadPoolExecutor(24) as pool:
        answers = list(pool.map(ask, work))

    for pair, (text, score) in zip(work, answers, strict=True):
        assert text == expected[pair][0]
        assert score == pytest.approx(expected[pair][1], rel=1e-3)


def test_unequal_lengths_share_a_batch(start_server: Callable[..., Server], tmp_path: Path) -> None:
    """Texts of unequal length that wait together are run together, by one `session.run`."""
    repository = toy.build(tmp_path)
    config = repository / "text_encoder" / "config.pbtxt"
    config.write_text(
        config.read_text().replace(
            "dynamic_batching {", "dynamic_batching { max_queue_delay_microseconds: 300000"
        )
    )
    with start_server(repository) as server, Client(server.endpoints.grpc) as client:
        texts = [question.decode() for question in QUESTIONS]
        with ThreadPoolExecutor(len(texts)) as pool:
            vectors = list(pool.map(lambda text: client.embed_text(text).vector, texts))
        inferences, executions = statistics(server.endpoints, "text_encoder")
        alone = [client.embed_text(text).vector for text in texts]

    assert inferences == 4
    assert executions < 4
    assert_allclose(vectors, alone, rtol=1e-4, atol=1e-6)


def test_outputs_that_nobody_wants_are_not_sent(endpoints: Endpoints) -> None:
    """A client may ask for one output only."""
    client = tritonclient.grpc.InferenceServerClient(endpoints.grpc)
    image = tritonclient.grpc.InferInput("image", [1, 1], "BYTES")
    image.set_data_from_numpy(np.array([[picture.noise()]], np.object_))

    result = client.infer(
        "image_captioning", [image], outputs=[tritonclient.grpc.InferRequestedOutput("caption")]
    )

    assert result.as_numpy("score") is None
    assert result.as_numpy("caption").shape == (1, 1)
    client.close()


def test_metadata_is_the_contract(endpoints: Endpoints) -> None:
    """What the server says about each task's tensors is what the contract says."""
    for task in toy.ENSEMBLES:
        signature = TASKS[task]
        with urllib.request.urlopen(f"{endpoints.http}/v2/models/{task}") as answer:
            told = json.load(answer)
        assert [(each["name"], each["datatype"]) for each in told["inputs"]] == [
            (spec.name, spec.dtype) for spec in signature.inputs
        ]
        assert {each["name"] for each in told["outputs"]} == {
            spec.name for spec in signature.outputs
        }


def test_metrics_count_every_stage(endpoints: Endpoints, caller: Caller) -> None:
    """Prometheus metrics are served and name every model."""
    caller.ask("visual_question_answering", image=picture.noise(), question=b"star")

    with urllib.request.urlopen(endpoints.metrics) as answer:
        text = answer.read().decode()

    for model in (*toy.BACKENDS, "visual_question_answering"):
        assert f'nv_inference_request_success{{model="{model}"' in text


def test_deadline(caller: Caller) -> None:
    """A deadline that cannot be met ends in its own error, and the server goes on."""
    with pytest.raises(DeadlineExceededError):
        caller.infer("image_captioning", *_image(), timeout_s=0.001)

    assert caller.ask("image_captioning", image=picture.noise())


def _image() -> list[Any]:
    from tests.e2e.conftest import bytes_tensor  # noqa: PLC0415

    return [bytes_tensor("image", picture.noise())]


@pytest.fixture
def served(toy_repository: Path, tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Return `sensorium serve` as a process of its own, before its ready line."""
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("SENSORIUM_")},
        "SENSORIUM_CACHE_DIR": str(tmp_path),
    }
    free = [
        "--http-port",
        "0",
        "--grpc-port",
        "0",
        "--metrics-port",
        "0",
        "--service-metrics-port",
        "0",
    ]
    process = subprocess.Popen(
        [
            *(str(Path(sys.executable).with_name("sensorium")), "serve", "--json", *free),
            *("--repository", str(toy_repository)),
        ],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    yield process
    process.kill()
    process.communicate()


def ready_line(process: "subprocess.Popen[str]") -> dict[str, Any]:
    """Wait for the ready line and return its facts."""
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line, process.stderr and process.stderr.read()
    return dict(json.loads(line))


def test_serve_is_ready_within_seconds_and_drains(served: "subprocess.Popen[str]") -> None:
    """`sensorium serve` tells where it serves, answers, and on SIGTERM leaves nothing behind."""
    facts = ready_line(served)
    family = psutil.Process(facts["pid"]).children(recursive=True)
    with Client(facts["grpc"]) as client:
        assert client.caption(picture.noise()).text
    served.send_signal(signal.SIGTERM)

    assert served.wait(30) == 0
    assert facts["tasks"] == list(toy.ENSEMBLES)
    assert facts["ready_s"] < 30
    assert family
    assert not [each for each in family if each.is_running() and each.status() != "zombie"]


def test_running_requests_are_answered_while_draining(
    start_server: Callable[..., Server], tmp_path: Path
) -> None:
    """Told to stop, the server finishes tasks that are half done, and then is not reached."""
    with start_server(slow_repository(tmp_path)) as server, Client(server.endpoints.grpc) as client:
        pool = ThreadPoolExecutor(4)
        answers = [pool.submit(client.embed_text, "star") for _ in range(4)]
        time.sleep(0.2)
        server.request_stop()
        vectors = [answer.result().vector for answer in answers]
        server.wait()

        assert [len(vector) for vector in vectors] == [8] * 4
        with pytest.raises(ServerUnreachableError):
            client.embed_text("star", timeout_s=1)


def slow_repository(path: Path) -> Path:
    """Return a toy repository whose text takes a while to preprocess, and has no manifest."""
    repository = toy.build(path)
    (repository / "toy.manifest.json").unlink()
    (repository / "text_preprocess/1/model.py").write_text(
        "import time\n"
        "from sensorium_server.stages import text\n"
        "from sensorium_server.triton import as_model\n\n"
        "def slow(config, settings):\n"
        "    run = text.stage(config, settings)\n"
        "    def busy(inputs):\n"
        "        end = time.process_time() + 0.3\n"
        "        while time.process_time() < end: pass\n"
        "        return run(inputs)\n"
        "    return busy\n\n"
        "TritonPythonModel = as_model(slow)\n"
    )
    return repository


def test_server_dies_with_its_launcher(served: "subprocess.Popen[str]") -> None:
    """When the launcher is killed outright, Triton and its Python processes end too."""
    facts = ready_line(served)
    triton = psutil.Process(facts["pid"])
    family = [triton, *triton.children(recursive=True)]
    served.kill()

    _, alive = psutil.wait_procs(family, timeout=15)

    assert [each for each in alive if each.status() != "zombie"] == []
    assert len(family) > len(toy.BACKENDS)


def test_killed_triton_is_started_again(served: "subprocess.Popen[str]") -> None:
    """When Triton dies, `serve` starts it again on the same ports, and nothing old stays behind."""
    facts = ready_line(served)
    family = psutil.Process(facts["pid"]).children(recursive=True)
    os.kill(facts["pid"], signal.SIGKILL)

    with Client(facts["grpc"], timeout_s=30, retry=Retry(attempts=60)) as client:
        assert client.caption(picture.noise()).text
    with urllib.request.urlopen(facts["service_metrics"], timeout=30) as answer:
        assert "sensorium_server_restarts_total 1.0" in answer.read().decode()
    _, alive = psutil.wait_procs(family, timeout=5)
    assert [each for each in alive if each.status() != "zombie"] == []
    served.send_signal(signal.SIGTERM)
    assert served.wait(30) == 0
    assert list(SHARED_MEMORY.glob(f"sensorium_*_{served.pid}_*")) == []


def test_triton_that_keeps_dying_is_given_up(
    start_server: Callable[..., Server], toy_repository: Path
) -> None:
    """Beyond `restart_limit` the death is told with its code."""
    with start_server(toy_repository, restart_limit=0) as server:
        os.kill(server.pid, signal.SIGKILL)

        with pytest.raises(ServerError, match="Triton ended by itself with code -9"):
            server.wait()


def test_taken_port_is_named(start_server: Callable[..., Server], endpoints: Endpoints) -> None:
    """A port that is taken is named with the flag that chooses another."""
    port = endpoints.grpc.rpartition(":")[2]

    with pytest.raises(ConfigurationError, match=rf"port {port} for grpc .*--grpc-port"):
        start_server(Path("model_repository"), grpc_port=port).start()


def test_corrupt_artefact_stops_the_start(
    start_server: Callable[..., Server], tmp_path: Path
) -> None:
    """A corrupt model.onnx is named with the digest that was expected, and nothing is started."""
    repository = toy.build(tmp_path)
    model = repository / "image_encoder/1/model.onnx"
    expected = json.loads((repository / "toy.manifest.json").read_text())["files"]
    model.write_bytes(model.read_bytes()[:-1] + b"!")
    server = start_server(repository)

    with pytest.raises(ConfigurationError) as caught:
        server.start()

    assert "image_encoder/1/model.onnx is corrupt" in str(caught.value)
    assert expected["image_encoder/1/model.onnx"] in str(caught.value)


def test_model_that_cannot_load_is_named(
    start_server: Callable[..., Server], tmp_path: Path
) -> None:
    """Without a manifest a broken graph still stops the start, with its model's name."""
    repository = toy.build(tmp_path)
    (repository / "toy.manifest.json").unlink()
    (repository / "fusion/1/model.onnx").write_bytes(b"garbage")

    with pytest.raises(ConfigurationError, match=r"model fusion: .*fusion/1/model.onnx cannot be"):
        start_server(repository).start()


def test_concurrent_mix_of_good_and_bad(caller: Caller) -> None:
    """Bad requests among good ones cost the good ones nothing."""
    good = picture.noise(1)
    expected = caller.ask("image_captioning", image=good)["caption"]
    lock, failures = threading.Lock(), []

    def call(index: int) -> list[bytes] | None:
        try:
            return caller.ask("image_captioning", image=good if index % 2 else b"junk")["caption"]
        except SensoriumError as error:
            with lock:
                failures.append(error)
            return None

    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(call, range(40)))

    assert answers == [expected if index % 2 else None for index in range(40)]
    assert len(failures) == 20
