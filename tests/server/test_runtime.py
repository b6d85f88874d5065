from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import pytest

from sensorium.errors import ConfigurationError
from sensorium_server import runtime as module
from sensorium_server.runtime import OWN_BACKENDS, STUB, runtime

needs_triton = pytest.mark.skipif(
    find_spec("pytriton") is None, reason="nvidia-pytriton, which carries Triton, is not installed"
)


@needs_triton
def test_backends_are_assembled_once(tmp_path: Path) -> None:
    """The directory has the Python backend, the stub and ours, whole, and is made only once."""
    found = runtime(tmp_path)
    again = runtime(tmp_path)

    files = {str(path.relative_to(found.backends)) for path in found.backends.rglob("*.*")}
    assert {f"{name}/model.py" for name in OWN_BACKENDS} <= files
    assert (found.backends / "python" / STUB).stat().st_mode & 0o100
    assert not [path for path in found.backends.rglob("*") if path.is_symlink()]
    assert again == found
    assert list(tmp_path.iterdir()) == [found.backends]
    assert found.binary.is_file()


def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    """A read-only or mistaken cache directory is an instruction, not a traceback."""
    (tmp_path / "file").touch()

    with pytest.raises(ConfigurationError, match=r"cache_dir = .*/cache cannot be written"):
        runtime(tmp_path / "file" / "cache")


def test_numpy_2_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With NumPy 2 every answer would silently be empty: the start is refused."""
    monkeypatch.setattr(module, "version", lambda _name: "2.1.0")

    with pytest.raises(ConfigurationError, match=r"NumPy 2.1.0 is installed.*numpy<2"):
        runtime(tmp_path)


def test_missing_wheel_is_an_instruction(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the wheel the message says how to install it."""
    monkeypatch.setattr(module, "find_spec", lambda _name: None)

    with pytest.raises(ConfigurationError, match=r"pip install 'sensorium\[server\]'"):
        runtime(tmp_path)


def test_wheel_without_triton(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package of that name that carries no Triton is refused."""
    spec = SimpleNamespace(submodule_search_locations=[str(tmp_path)])
    monkeypatch.setattr(module, "find_spec", lambda _name: spec)

    with pytest.raises(ConfigurationError, match="carries no Triton"):
        runtime(tmp_path)


@needs_triton
def test_unknown_python_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Python that the wheel has no stub for is told with those that it has."""
    monkeypatch.setattr(module, "_PYTHON_VERSION", "3.99")
    monkeypatch.setattr(module, "_python_libraries", lambda: None)

    with pytest.raises(ConfigurationError, match=r"no stub for Python 3.99, only for .*3.11"):
        runtime(tmp_path)


def test_missing_libpython_is_an_instruction(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Python without its shared library is told with the package that brings it."""
    monkeypatch.setattr(module, "_PYTHON_VERSION", "3.99")

    with pytest.raises(ConfigurationError, match=r"libpython3.99.so.1.0 is not on this machine"):
        module._python_libraries()


@pytest.mark.parametrize("native", [False, True])
def test_installed_triton_keeps_its_own_tensorrt(tmp_path: Path, *, native: bool) -> None:
    """Of an installed Triton come binary, Python backend and stub, and TensorRT if it has that."""
    triton = tmp_path / "triton"
    files = ["bin/tritonserver", f"backends/python/{STUB}"]
    files += ["backends/python/libtriton_python.so"]
    files += ["backends/python/triton_python_backend_utils.py"]
    files += ["backends/tensorrt/libtriton_tensorrt.so"] if native else []
    for name in files:
        (triton / name).parent.mkdir(parents=True, exist_ok=True)
        (triton / name).write_text("")

    found = runtime(tmp_path / "cache", triton)

    assert found.binary == triton / "bin/tritonserver"
    assert (found.backends / "tensorrt/libtriton_tensorrt.so").is_file() == native
    assert (found.backends / "tensorrt/model.py").is_file() != native
    assert (found.backends / "onnxruntime/model.py").is_file()


def test_directory_without_triton_is_refused(tmp_path: Path) -> None:
    """A directory that holds no Triton is named with the way out."""
    with pytest.raises(ConfigurationError, match="holds no bin/tritonserver"):
        runtime(tmp_path, tmp_path)
