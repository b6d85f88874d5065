"""What a server does about its engines before Triton starts, and what it makes of Triton's log."""

import http.server
import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from tests.server import toy, toy_builder

from sensorium.errors import ConfigurationError, ModelNotReadyError, ServerError
from sensorium_server.engine_gate import EngineRuntime
from sensorium_server.engine_record import Target, read_records, write_records
from sensorium_server.recorder import FAILED
from sensorium_server.settings import Settings, load
from sensorium_server.swap import device, engine_cache
from sensorium_server.swap.device import graphics, processor, runtime_of
from sensorium_server.swap.engine_cache import EngineCache
from sensorium_server.swap.engine_config import engine_config
from sensorium_server.swap.model_control import HEADER, ModelControl
from sensorium_server.swap.rollout import Rollout, cache_root
from sensorium_server.swap.selection import selected_engines

STAGES = ["fusion", "image_encoder", "text_decoder", "text_encoder"]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A toy repository with engines in it, as `sensorium compile` leaves one."""
    repository = toy.build(tmp_path_factory.mktemp("built"))
    words = [sys.executable, str(toy_builder.__file__), "good", str(repository), "toy"]
    subprocess.run(words, check=True)
    return repository


def settings(repository: Path, cache_dir: Path, engines: str = "auto") -> Settings:
    """Return the settings of a server with engines."""
    return load({"repository": repository, "cache_dir": cache_dir, "engines": engines})


def prepared(chosen: Settings, log: Callable[[str], None] = print) -> Rollout:
    """Return a rollout that is prepared, as before the first start."""
    rollout = Rollout(chosen, log)
    rollout.prepare()
    return rollout


def test_engines_of_the_repository_serve_at_once(built: Path, tmp_path: Path) -> None:
    """What `sensorium compile` put beside the graphs needs no cache and no builder."""
    rollout = prepared(settings(built, tmp_path))
    swapped = rollout._exchange.swapped()
    config = (rollout.repository / "text_encoder/config.pbtxt").read_text()
    rollout.stop()

    assert swapped == STAGES
    assert rollout._missing == []
    assert all(words in config for words in ("optimized.model", "check_finite", "versions: 2"))


def test_without_engines_all_is_to_be_built(toy_repository: Path, tmp_path: Path) -> None:
    """A cold start serves what was exported, and remembers what is missing."""
    rollout = prepared(settings(toy_repository, tmp_path))
    swapped, missing = rollout._exchange.swapped(), [one.bundle for one in rollout._missing]
    rollout.stop()

    assert swapped == []
    assert missing == ["toy"]


def test_unfit_engines_are_refused_with_reasons(
    built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An engine of another machine, without proof or refused before is named, and ONNX serves."""
    repository = toy.build(tmp_path / "repository")
    records = read_records(built, "toy")
    for record in records:
        (repository / record.file).write_bytes((built / record.file).read_bytes())
    write_records(repository, "toy", records)
    log: list[str] = []
    chosen = settings(repository, tmp_path / "cache")
    refused = next(one for one in records if one.file.startswith("fusion"))
    EngineCache(cache_root(chosen)).refuse(refused.digest, "it put out NaN")
    prepared(chosen, log.append).stop()
    only_fusion = list(log)
    log.clear()
    monkeypatch.setattr(device, "processor", lambda: Target("another processor"))
    prepared(chosen, log.append).stop()

    assert len(only_fusion) == 1
    assert "it put out NaN. fusion/1/model is served by its ONNX file" in only_fusion[0]
    assert len(log) == len(records)
    assert all("this is another processor" in line for line in log)


def test_a_failed_start_takes_the_blamed_engine_back(built: Path, tmp_path: Path) -> None:
    """The engine that Triton names goes; when it names none, all go; then there is no more."""
    log: list[str] = []
    rollout = prepared(settings(built, tmp_path), log.append)
    message = "Triton could not load every model.\nmodel fusion: no graph\nmodel other: x"
    one = rollout.recover(message), rollout._exchange.swapped()
    rest = rollout.recover("Triton crashed with code -6"), rollout._exchange.swapped()
    last = rollout.recover(message)
    rollout.stop()

    assert one == (True, STAGES[1:])
    assert rest == (True, [])
    assert last is False
    assert "fusion: rolled back to the exported version: no graph" in log


def test_a_crash_blames_what_came_lately(built: Path, tmp_path: Path) -> None:
    """When Triton dies, engines that came within the probation go, and others stay."""
    rollout = prepared(settings(built, tmp_path))
    rollout._came["fusion"] -= 1000
    rollout.survive_crash()
    left = rollout._exchange.swapped()
    rollout.stop()

    assert left == ["fusion"]


class Control(http.server.BaseHTTPRequestHandler):
    """Triton's model control, which loads what is not called broken."""

    loaded: list[str]

    def do_POST(self) -> None:
        """Answer as Triton does."""
        model = self.path.split("/")[-2]
        self.rfile.read(int(self.headers["Content-Length"]))
        is_allowed, is_sound = self.headers[HEADER] == "s", model != "broken"
        self.send_response(200 if is_allowed and is_sound else 400)
        self.end_headers()
        body = {"error": "load failed: no graph\n\nAt:\n  /some/path.py(3): f\n;"}
        self.wfile.write(b"" if is_sound else json.dumps(body).encode())
        type(self).loaded.append(model)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def control() -> Iterator[ModelControl]:
    """A model control that answers."""
    Control.loaded = []
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Control) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield ModelControl(f"127.0.0.1:{server.server_address[1]}", "s")
        server.shutdown()
        thread.join()


def fault(stage: str, version: int) -> str:
    """Return the line that a stage writes of a failure that is its own."""
    facts = {"stage": stage, "version": version, "exception": "Traceback\nKeyError: 'x'"}
    return json.dumps({"event": FAILED, **facts})


@pytest.mark.parametrize(
    ("line", "goes"),
    [
        (fault("fusion", 2), True),
        (fault("fusion", 1), False),
        (fault("fusion", 3), False),
        (json.dumps({"event": FAILED, "stage": "fusion", "outcome": "invalid_input"}), False),
        ("E1 python_be.cc:1] \"Stub process 'fusion_0_0' is not healthy.", True),
        ("W1 something else about fusion version 2", False),
    ],
)
def test_failing_answers_take_an_engine_back(
    built: Path, tmp_path: Path, control: ModelControl, line: str, *, goes: bool
) -> None:
    """A line of the log that tells of a failure of the version that serves rolls it back, once."""
    rollout = prepared(settings(built, tmp_path))
    rollout._missing.clear()
    rollout._secret = control.secret
    rollout.begin(control.address)
    rollout.heed(line)
    rollout.heed(line)
    rollout._events.put(None)
    for thread in rollout._threads:
        thread.join()
    swapped = rollout._exchange.swapped()
    rollout.stop()

    assert ("fusion" not in swapped) is goes
    assert Control.loaded == ["fusion"] * goes


def test_model_control_tells_reasons(control: ModelControl) -> None:
    """Triton's reason comes without its traceback, and a server that is gone is told as such."""
    with pytest.raises(ServerError) as told:
        control.load("broken")
    with pytest.raises(ModelNotReadyError, match="Is it running"):
        ModelControl("127.0.0.1:9", "s").load("fusion")

    assert str(told.value) == "load failed: no graph"
    assert control.secret not in repr(control).partition(control.address)[2]


def test_the_key_is_made_of_all_that_matters(
    toy_repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other graphs, devices, drivers, versions and profiles have other engines."""
    other = toy.build(tmp_path / "other")
    manifest = json.loads((other / "toy.manifest.json").read_text())
    manifest["files"]["fusion/1/model.onnx"] = "sha256:0"
    (other / "toy.manifest.json").write_text(json.dumps(manifest))
    cache = EngineCache(tmp_path)
    keys = [cache.key(toy_repository, "toy", "cpu"), cache.key(toy_repository, "toy", "gpu")]
    keys.append(cache.key(other, "toy", "cpu"))
    again = cache.key(toy_repository, "toy", "cpu")
    for name, value in (
        ("processor", Target("other")),
        ("graphics", Target("GPU", "9.0", "600.1")),
        ("graphics", Target("GPU", "9.0", "600.2")),
        ("product_versions", {"onnxruntime": "9"}),
    ):
        monkeypatch.setattr(engine_cache, name, lambda value=value: value)
        keys.append(cache.key(toy_repository, "toy", "cpu"))

    assert len(set(keys)) == len(keys)
    assert again == keys[0]


def test_engines_may_be_kept_elsewhere(toy_repository: Path, tmp_path: Path) -> None:
    """`--engines DIR` names the cache; `auto` is one below the cache directory."""
    assert cache_root(settings(toy_repository, tmp_path)) == tmp_path / "engines"
    elsewhere = settings(toy_repository, tmp_path, str(tmp_path / "mine"))
    assert cache_root(elsewhere) == tmp_path / "mine"


def test_a_place_that_cannot_be_written_is_told(toy_repository: Path, tmp_path: Path) -> None:
    """A cache in the place of a file is named, with the way out."""
    (tmp_path / "file").touch()

    with (
        pytest.raises(ConfigurationError, match=r"cannot be written in .*file.*--engines DIR"),
        EngineCache(tmp_path / "file").building("key", toy_repository),
    ):
        pass


def test_config_of_engines(built: Path) -> None:
    """An engine's is the exported config, or the one for a GPU, with parameters that name it."""
    records = {Path(one.file).parts[0]: one for one in read_records(built, "toy")}
    exported = (built / "fusion/config.pbtxt").read_text()

    config = engine_config(exported, "", [records["fusion"]])

    for key, value in {
        "engine": "onnxruntime",
        "precision": "fp32",
        "check_finite": "true",
    }.items():
        assert f'key: "{key}"' in config
        assert f'string_value: "{value}"' in config
    assert 'key: "buckets.sequence"' in config

    plan = replace(records["fusion"], product="tensorrt", stripped=True)
    on_gpu = engine_config("", exported.replace("KIND_CPU", "KIND_GPU"), [plan])
    for key, value in {"engine": "tensorrt", "stripped": "true", "check_finite": "true"}.items():
        assert f'key: "{key}"' in on_gpu
        assert f'string_value: "{value}"' in on_gpu
    assert "KIND_GPU" in on_gpu
    assert 'key: "precision"' not in on_gpu


def test_devices_are_found() -> None:
    """The processor has a name, and products that run on it are judged by it."""
    assert processor().device
    assert runtime_of("onnxruntime").target == processor()
    assert runtime_of("tensorrt").target == graphics()
    assert runtime_of("onnxruntime").versions["onnxruntime"]


def test_closing_removes_the_copy(toy_repository: Path, tmp_path: Path) -> None:
    """Nothing of a server stays below its cache but engines."""
    with closing(prepared(settings(toy_repository, tmp_path))._copy):
        pass

    assert list((tmp_path / "serving").iterdir()) == []


def test_a_gpu_s_engines_serve_a_model_whose_graphs_all_have_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before those for the processor; a decoder with a plan of one graph keeps its ONNX files."""
    repository = toy.build(tmp_path / "models")
    words = [sys.executable, str(toy_builder.__file__), "good", str(repository), "toy"]
    subprocess.run(words, check=True)
    card = Target("NVIDIA H200", "9.0", "580")
    monkeypatch.setattr("sensorium_server.swap.selection.runtime_of", lambda _: runtime(card))
    for model in ("fusion", "text_decoder"):
        (repository / model / "configs").mkdir()
        text = (repository / model / "config.pbtxt").read_text().replace("_CPU", "_GPU")
        (repository / model / "configs/gpu_wheel.pbtxt").write_text(text)
    records = read_records(repository, "toy")
    plans = []
    for record in records:
        if record.file.startswith(("fusion/", "text_decoder/1/step")):
            plan = record.file.replace(".cpu.onnx", ".rtx")
            (repository / plan).write_bytes((repository / record.file).read_bytes())
            own = replace(record, file=plan, product="tensorrt_rtx", version="1.7", target=card)
            plans.append(own)
    write_records(repository, "toy", [*records, *plans])
    told = list[str]()

    found = selected_engines(repository, "toy", repository, {}, told.append, variant="gpu_wheel")

    assert [record.file for record in found["fusion"]] == ["fusion/1/model.rtx"]
    assert "text_decoder" not in found
    assert "text_decoder: its plans are not used, cross has none" in told


def runtime(card: Target) -> EngineRuntime:
    """A machine that runs TensorRT-RTX's plans."""
    return EngineRuntime({"tensorrt_rtx": "1.7"}, card)
