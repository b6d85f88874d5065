"""The Triton that the wheel `nvidia-pytriton` carries: found, checked and assembled.

Triton wants one directory of backends, with the stub for our Python beside its own library, and
refuses links that lead out of it. So it is put together once, by copying, in a cache directory
whose name tells what it was made of.
"""

import ctypes
import hashlib
import os
import shutil
import sys
import sysconfig
import tempfile
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from sensorium.errors import ConfigurationError

DISTRIBUTION = "nvidia-pytriton"
STUB = "triton_python_backend_stub"
INSTALL = "Install it with: pip install 'sensorium[server]'"
OWN_BACKENDS = ("onnxruntime", "tensorrt", "decoder", "diffusion")
_PYTHON_VERSION = f"{sys.version_info.major}.{sys.version_info.minor}"
_FIRST_BAD_NUMPY = 2


@dataclass(frozen=True, slots=True)
class Runtime:
    """Where everything lies that `tritonserver` needs to start."""

    binary: Path
    backends: Path
    caches: Path
    library_path: str
    """Directories of shared libraries, as in `LD_LIBRARY_PATH`."""


def runtime(cache_dir: Path, installed: Path | None = None) -> Runtime:
    """Find the packaged Triton, or take an installed one, and assemble its backends.

    Args:
        cache_dir: Where the directory of backends is put together.
        installed: The directory of an installed Triton, such as /opt/tritonserver.

    Raises:
        ConfigurationError: something is missing or does not fit; the message says what to install.
    """
    _check_numpy()
    triton = _package() / "tritonserver" if installed is None else _checked(installed)
    libraries = [_python_libraries()]
    if installed is None:
        libraries.append(triton.parents[1] / "nvidia_pytriton.libs")
    else:
        libraries.append(triton / "lib")
    return Runtime(
        binary=triton / "bin" / "tritonserver",
        backends=_assemble(triton, cache_dir.expanduser().absolute()),
        caches=triton / "caches",
        library_path=os.pathsep.join(str(path) for path in libraries if path is not None),
    )


def _checked(installed: Path) -> Path:
    if not (installed / "bin" / "tritonserver").is_file():
        raise ConfigurationError(
            f"triton_dir = {installed} holds no bin/tritonserver. Name the directory of an "
            f"installed Triton, or leave the setting out to use the packaged one."
        )
    return installed


def _check_numpy() -> None:
    numpy = version("numpy")
    if int(numpy.partition(".")[0]) >= _FIRST_BAD_NUMPY:
        raise ConfigurationError(
            f"NumPy {numpy} is installed; with NumPy 2 the packaged Triton answers with empty "
            f"tensors. Install NumPy 1 with: pip install 'sensorium[server]' 'numpy<2'"
        )


def _package() -> Path:
    spec = find_spec("pytriton")
    if spec is None or not spec.submodule_search_locations:
        raise ConfigurationError(
            f"{DISTRIBUTION}, which carries Triton, is not installed. {INSTALL}"
        )
    package = Path(next(iter(spec.submodule_search_locations)))
    if not (package / "tritonserver" / "bin" / "tritonserver").is_file():
        raise ConfigurationError(f"{DISTRIBUTION} in {package} carries no Triton. {INSTALL}")
    return package


def _python_libraries() -> Path | None:
    """Return the directory of Python's shared library, which the stub links; None for the system's.

    Raises:
        ConfigurationError: there is none, as in some distributions' minimal Python.
    """
    name = f"libpython{_PYTHON_VERSION}.so.1.0"
    directory = Path(sysconfig.get_config_var("LIBDIR") or "")
    if (directory / name).is_file():
        return directory
    try:
        ctypes.CDLL(name)
    except OSError:
        raise ConfigurationError(
            f"{name} is not on this machine; Triton's Python backend needs it. Install the "
            f"package libpython{_PYTHON_VERSION}, or use a Python built with --enable-shared."
        ) from None
    return None


def _own_backends() -> Path:
    """Return the directory of our backends: in the wheel inside the package, else beside it."""
    inside = Path(__file__).parent / "backends"
    return inside if inside.is_dir() else Path(__file__).parents[1] / "backends"


def _assemble(triton: Path, cache_dir: Path) -> Path:
    """Copy the Python backend, the stub for this Python and our backends into one directory.

    Where Triton comes with its own TensorRT backend, that one takes the place of ours.
    """
    sources = {
        Path("python", "libtriton_python.so"): triton / "backends/python/libtriton_python.so",
        Path("python", "triton_python_backend_utils.py"): triton
        / "backends/python/triton_python_backend_utils.py",
        Path("python", STUB): _stub(triton),
        **{Path(name, "model.py"): _own_backends() / name / "model.py" for name in OWN_BACKENDS},
    }
    native = triton / "backends" / "tensorrt" / "libtriton_tensorrt.so"
    if native.is_file():
        del sources[Path("tensorrt", "model.py")]
        sources[Path("tensorrt", native.name)] = native
    target = cache_dir / f"backends-{_fingerprint(sources)}"
    if not target.is_dir():
        try:
            _copy_whole(sources, target)
        except OSError as error:
            raise ConfigurationError(
                f"cache_dir = {cache_dir} cannot be written: {error.strerror}. Triton's backends "
                f"are put together there; name another directory with --cache-dir."
            ) from error
    return target


def _stub(triton: Path) -> Path:
    """Return the stub for this Python; an installed Triton has one only, for its system's Python.

    Raises:
        ConfigurationError: there is none for this Python.
    """
    own = triton / "backends" / "python" / STUB
    packaged = triton / "python_backend_stubs"
    if not packaged.is_dir() and own.is_file():
        return own
    stub = packaged / _PYTHON_VERSION / STUB
    if not stub.is_file():
        known = sorted(path.name for path in packaged.glob("*"))
        raise ConfigurationError(
            f"{DISTRIBUTION} has no stub for Python {_PYTHON_VERSION}, only for "
            f"{', '.join(known)}. Use one of these."
        )
    return stub


def _fingerprint(sources: dict[Path, Path]) -> str:
    """Return a short name for what the directory is made of."""
    facts = hashlib.sha256(f"{_distribution_version()} {_PYTHON_VERSION}".encode())
    for name, source in sources.items():
        facts.update(f"{name} {source.stat().st_size}".encode())
        if source.suffix == ".py":
            facts.update(source.read_bytes())
    return facts.hexdigest()[:12]


def _distribution_version() -> str:
    try:
        return version(DISTRIBUTION)
    except PackageNotFoundError:
        return "unknown"


def _copy_whole(sources: dict[Path, Path], target: Path) -> None:
    """Copy beside the target, then rename: it appears whole, even when two servers start."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        whole = Path(scratch, "whole")
        for name, source in sources.items():
            (whole / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, whole / name)
        try:
            whole.rename(target)
        except OSError:
            if not target.is_dir():
                raise
