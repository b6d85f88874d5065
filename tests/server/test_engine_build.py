"""Builders as real child processes, and all that can happen to them."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.server import toy_builder

from sensorium.errors import ConfigurationError
from sensorium_server.engine_record import read_records
from sensorium_server.swap.engine_build import EngineBuild, compile_command
from sensorium_server.swap.engine_cache import EngineCache

PATIENCE_S = 60.0
KEY = "toy-key"


def command(mode: str) -> Callable[[Path, str, str], list[str]]:
    """Return the toy builder in one of its modes."""
    return lambda repository, bundle, _profile: [
        *(sys.executable, str(toy_builder.__file__), mode),
        *(str(repository), bundle),
    ]


def build(cache: EngineCache, repository: Path, mode: str) -> Path | None:
    """Build the toy's engines."""
    return EngineBuild(cache, command(mode)).entry(KEY, repository, "toy", "cpu")


def eventually(condition: Callable[[], bool]) -> None:
    """Wait for something that must come."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def left_over(cache: EngineCache) -> list[str]:
    """Return what lies in a cache but locks and finished engines."""
    return [path.name for path in cache.root.iterdir() if path.suffix in {".work", ".made"}]


@pytest.fixture
def cache(tmp_path: Path) -> EngineCache:
    """Return an empty cache."""
    return EngineCache(tmp_path / "engines")


def test_an_entry_is_built_once(cache: EngineCache, toy_repository: Path) -> None:
    """What was built is an entry of records and engines alone, and is not built again."""
    before = sorted(toy_repository.rglob("*"))
    entry = build(cache, toy_repository, "good")
    again = build(cache, toy_repository, "fail")

    assert entry is not None
    assert again == entry
    records = read_records(entry, "toy")
    files = sorted(str(path.relative_to(entry)) for path in entry.rglob("*") if path.is_file())
    assert files == sorted([*(record.file for record in records), "toy.engines.json"])
    assert left_over(cache) == []
    assert sorted(toy_repository.rglob("*")) == before


def test_a_failed_build_is_told(cache: EngineCache, toy_repository: Path) -> None:
    """The builder's own words reach the log, and nothing is left."""
    with pytest.raises(ConfigurationError, match=r"code 1: error: node relu_3 \(Relu\)"):
        build(cache, toy_repository, "fail")

    assert cache.entry(KEY) is None
    assert left_over(cache) == []


def test_a_missing_extra_is_told(cache: EngineCache, toy_repository: Path) -> None:
    """Where PyTorch is not installed, the log says what to install."""
    hidden = "import sys; sys.modules['torch'] = None; from sensorium.cli import main; main()"

    def without_torch(repository: Path, bundle: str, profile: str) -> list[str]:
        python, option, _, *words = compile_command(repository, bundle, profile)
        return [python, option, hidden, *words]

    with pytest.raises(ConfigurationError, match=r"pip install 'sensorium\[export\]'"):
        EngineBuild(cache, without_torch).entry(KEY, toy_repository, "toy", "cpu")


def test_a_killed_builder_is_told(cache: EngineCache, toy_repository: Path) -> None:
    """A builder that is killed half way leaves no entry, and the next one can start."""
    killed: list[str] = []

    def run() -> None:
        with pytest.raises(ConfigurationError) as told:
            build(cache, toy_repository, "hang")
        killed.append(str(told.value))

    thread = threading.Thread(target=run)
    thread.start()
    started = cache.root / f"{KEY}.work" / "started"
    eventually(lambda: started.is_file() and bool(started.read_text()))
    os.kill(int(started.read_text()), signal.SIGKILL)
    thread.join()

    assert killed == ["the builder was killed by signal 9"]
    assert build(cache, toy_repository, "good") is not None


def test_a_cancelled_build_ends_its_builder(cache: EngineCache, toy_repository: Path) -> None:
    """A server that stops takes its builder with it."""
    builder = EngineBuild(cache, command("hang"))
    found: list[Path | None] = []
    thread = threading.Thread(
        target=lambda: found.append(builder.entry(KEY, toy_repository, "toy", "cpu"))
    )
    thread.start()
    started = cache.root / f"{KEY}.work" / "started"
    eventually(lambda: started.is_file() and bool(started.read_text()))
    pid = int(started.read_text())
    builder.cancel()
    thread.join()

    assert found == [None]
    assert not Path(f"/proc/{pid}").exists()


def test_the_work_of_a_killed_server_is_dropped(cache: EngineCache, toy_repository: Path) -> None:
    """A server killed while it builds leaves a directory, which the next builder replaces."""
    code = (
        "import sys; from pathlib import Path\n"
        "from sensorium_server.swap.engine_build import EngineBuild\n"
        "from sensorium_server.swap.engine_cache import EngineCache\n"
        f"words = [sys.executable, {toy_builder.__file__!r}, 'hang']\n"
        "command = lambda *given: [*words, *map(str, given[:2])]\n"
        f"EngineBuild(EngineCache(Path({str(cache.root)!r})), command)"
        f".entry({KEY!r}, Path({str(toy_repository)!r}), 'toy', 'cpu')"
    )
    server = subprocess.Popen([sys.executable, "-c", code])
    started = cache.root / f"{KEY}.work" / "started"
    eventually(lambda: started.is_file() and bool(started.read_text()))
    builder = int(started.read_text())
    server.kill()
    server.wait()

    eventually(lambda: not Path(f"/proc/{builder}/exe").exists())
    assert left_over(cache) == [f"{KEY}.work"]
    assert build(cache, toy_repository, "good") is not None
    assert left_over(cache) == []


def test_a_full_disk_is_told(cache: EngineCache, toy_repository: Path) -> None:
    """An engine that does not fit is no entry, and the system's words are in the message."""
    limited = (
        "import resource, runpy, signal, sys\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000,) * 2)\n"
        "sys.argv = sys.argv[1:]\n"
        "runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    full = command("full")

    def under_limit(*given: object) -> list[str]:
        python, *rest = full(*given)  # type: ignore[arg-type] # passed on
        return [python, "-c", limited, *rest]

    with pytest.raises(ConfigurationError, match="File too large"):
        EngineBuild(cache, under_limit).entry(KEY, toy_repository, "toy", "cpu")

    assert cache.entry(KEY) is None
    assert left_over(cache) == []


def test_two_servers_build_once(cache: EngineCache, toy_repository: Path, tmp_path: Path) -> None:
    """Of two servers that share a cache one builds, and the other waits for its engines."""
    marks = tmp_path / "marks"
    marks.mkdir()

    def marked(repository: Path, bundle: str, profile: str) -> list[str]:
        (marks / str(len(list(marks.iterdir())))).touch()
        return command("good")(repository, bundle, profile)

    found: list[Path | None] = []
    threads = [
        threading.Thread(
            target=lambda: found.append(
                EngineBuild(cache, marked).entry(KEY, toy_repository, "toy", "cpu")
            )
        )
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert found == [cache.root / KEY] * 2
    assert len(list(marks.iterdir())) == 1


@pytest.mark.parametrize("prefix", ["", "second."])
def test_the_builder_is_sensorium_compile(tmp_path: Path, prefix: str) -> None:
    """It is called by the name that a bundle's models share, and searches on a processor."""
    manifest = {"files": {f"{prefix}text_encoder/1/model.onnx": ""}}
    (tmp_path / "mine.manifest.json").write_text(json.dumps(manifest))
    words = compile_command(tmp_path, "mine", "cpu")

    assert words[0] == sys.executable
    assert words[3] == "compile"
    assert ("--bundle" in words) == bool(prefix)
    assert "--search" in words
    assert "--search" not in compile_command(tmp_path, "mine", "gpu")


def test_engines_are_compared_with_the_checkpoint_that_is_named(tmp_path: Path) -> None:
    """One for all, or that of the bundle's name."""
    (tmp_path / "mine.manifest.json").write_text(json.dumps({"files": {"a/1/model.onnx": ""}}))
    (tmp_path / "checkpoints/mine").mkdir(parents=True)
    found = [
        compile_command(tmp_path, "mine", "gpu", checkpoint=tmp_path / name)[4]
        for name in ("checkpoints", "checkpoints/mine")
    ]

    assert found == [str(tmp_path / "checkpoints/mine")] * 2


def test_one_graph_without_engine_costs_no_other_its_own(
    cache: EngineCache, toy_repository: Path
) -> None:
    """What was built before the builder ended with 1 is kept."""
    entry = build(cache, toy_repository, "partly")

    assert entry is not None
    assert [record.graph for record in read_records(entry, "toy")] == ["fusion/1/model"]
