import os
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from tests.server import toy

from sensorium.errors import ConfigurationError
from sensorium_server.swap import link
from sensorium_server.swap.serving_copy import PORTABLE, ServingCopy, living

ENCODER = "text_encoder"


def files(folder: Path) -> list[str]:
    """Return the names of all files below a folder."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_a_copy_is_the_repository(toy_repository: Path, tmp_path: Path) -> None:
    """It has the same files with the same contents, and is gone when it is closed."""
    copy = ServingCopy.made_of(toy_repository, tmp_path)
    found = files(copy.repository)
    contents = [
        (copy.repository / name).read_bytes() == (toy_repository / name).read_bytes()
        for name in found
    ]
    copy.close()

    assert found == files(toy_repository)
    assert all(contents)
    assert not copy.root.exists()


def test_writing_to_a_copy_leaves_the_repository(tmp_path: Path) -> None:
    """What is small is copied, so that nobody edits the original through a link."""
    repository = toy.build(tmp_path / "repository")
    before = (repository / "toy.card.json").read_bytes()
    copy = ServingCopy.made_of(repository, tmp_path / "cache")
    (copy.repository / "toy.card.json").write_text("{}")
    copy.close()

    assert (repository / "toy.card.json").read_bytes() == before


def test_large_files_are_linked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A graph is a hard link, which outlives a new export; else it is a symbolic one."""
    repository = toy.build(tmp_path / "repository")
    graph = repository / ENCODER / "1/model.onnx"
    monkeypatch.setattr(link, "_SMALL_BYTES", 0)
    hard = ServingCopy.made_of(repository, tmp_path / "cache")
    linked = hard.repository / ENCODER / "1/model.onnx"
    is_same = linked.samefile(graph) and not linked.is_symlink()
    monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(OSError("another device")))
    soft = ServingCopy.made_of(repository, tmp_path / "cache")
    is_soft = (soft.repository / ENCODER / "1/model.onnx").is_symlink()
    hard.close()
    soft.close()

    assert is_same
    assert is_soft


def test_versions_come_and_go(toy_repository: Path, tmp_path: Path) -> None:
    """A new version is served when the config names it, and the exported one stays."""
    with closing(ServingCopy.made_of(toy_repository, tmp_path)) as copy:
        engine = tmp_path / "engine"
        engine.write_bytes(b"engine")
        config = copy.portable_config(ENCODER)
        number = copy.add_version(ENCODER, {"model.onnx": engine}, config)
        before = copy.active(ENCODER)
        other = copy.add_version(ENCODER, {"model.plan": engine}, config)
        copy.point_to(ENCODER, other)
        active = copy.active(ENCODER)
        replaced = (copy.repository / ENCODER / "2/model.onnx").read_bytes()
        served = files(copy.repository / ENCODER / str(other))
        copy.point_to(ENCODER, PORTABLE)
        back = (copy.repository / ENCODER / "config.pbtxt").read_text()

    assert (number, before) == (2, PORTABLE)
    assert (other, active) == (3, 3)
    assert replaced == b"engine"
    assert served == ["model.onnx", "model.plan"]
    assert "versions: 1" in back


def test_a_named_config_serves_without_its_engine(tmp_path: Path) -> None:
    """A config for a GPU is served at once where it needs no engine, and kept for later if so.

    NVIDIA's backend needs one, ours do not: they are told to serve their ONNX files.
    """
    repository = toy.build(tmp_path / "repository")
    for model, backend in ((ENCODER, "tensorrt"), ("fusion", "onnxruntime")):
        text = (repository / model / "config.pbtxt").read_text()
        (repository / model / "configs").mkdir()
        named = text.replace('"onnxruntime"', f'"{backend}"').replace("KIND_CPU", "KIND_GPU")
        for variant in ("gpu", "gpu_wheel"):
            (repository / model / f"configs/{variant}.pbtxt").write_text(named)

    native, wheel = (
        ServingCopy.made_of(repository, tmp_path / "cache", one) for one in ("gpu", "gpu_wheel")
    )
    texts = [
        [copy.portable_config(model) for model in (ENCODER, "fusion")] for copy in (native, wheel)
    ]
    native.close()
    wheel.close()

    assert [["KIND_GPU" in text for text in one] for one in texts] == [[False, True], [True, True]]
    assert 'key: "engine"' not in texts[0][0]
    assert 'value {\n    string_value: "onnxruntime"' in texts[1][0].partition('key: "engine"')[2]


def test_copies_of_killed_servers_are_removed(toy_repository: Path, tmp_path: Path) -> None:
    """What a killed server left is removed by the next, and those of the living are not."""
    code = (
        "import os; from pathlib import Path\n"
        "from sensorium_server.swap.serving_copy import ServingCopy\n"
        f"ServingCopy.made_of(Path({str(toy_repository)!r}), Path({str(tmp_path)!r}))\n"
        "os._exit(1)"
    )
    first = ServingCopy.made_of(toy_repository, tmp_path)
    subprocess.run([sys.executable, "-c", code], check=False)
    left = len(list((tmp_path / "serving").iterdir()))
    second = ServingCopy.made_of(toy_repository, tmp_path)
    alive = [copy.root for copy in living(tmp_path)]
    for copy in (first, second):
        copy.close()

    assert left == 2
    assert alive == sorted([first.root, second.root])


def test_an_unwritable_place_is_named(toy_repository: Path, tmp_path: Path) -> None:
    """Where no copy can be made, the message names the place and three ways out."""
    (tmp_path / "file").touch()

    with pytest.raises(ConfigurationError, match=r"cannot be made in .*file.*--engines off"):
        ServingCopy.made_of(toy_repository, tmp_path / "file")


def test_only_the_owner_reads_the_secret(toy_repository: Path, tmp_path: Path) -> None:
    """What opens the model control is readable by its owner alone."""
    copy = ServingCopy.made_of(toy_repository, tmp_path)
    copy.tell({"secret": "x"})
    mode, told = (copy.root / "server.json").stat().st_mode, copy.told()
    copy.close()

    assert mode & 0o077 == 0
    assert told == {"secret": "x"}
