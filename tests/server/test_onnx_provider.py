"""Which execution providers a graph gets."""

from pathlib import Path

import onnxruntime
import pytest

from sensorium_server import onnx_provider
from sensorium_server.onnx_provider import CPU, CUDA, TENSORRT, gpu_providers, installed_providers

INPUTS = {"input_ids": ("batch", "sequence"), "pixels": ("batch", 3, 8, 8)}
SIZES = {"batch": (1, 8, 64), "sequence": (1, 16, 32)}


def test_cuda_without_tf32_then_the_processor() -> None:
    """CUDA comes first, in full fp32, because the card was measured so."""
    (name, options), last = gpu_providers([CUDA, CPU], INPUTS, {}, device=1)

    assert name == CUDA
    assert options["device_id"] == "1"
    assert options["use_tf32"] == "0"
    assert last == (CPU, {})


def test_tensorrt_with_bounds_and_a_cache(tmp_path: Path) -> None:
    """TensorRT is told the least, usual and greatest shape of each input, and where to keep."""
    (name, options), *rest = gpu_providers([TENSORRT, CUDA, CPU], INPUTS, SIZES, cache=tmp_path)

    assert name == TENSORRT
    assert options["trt_profile_min_shapes"] == "input_ids:1x1,pixels:1x3x8x8"
    assert options["trt_profile_opt_shapes"] == "input_ids:8x16,pixels:8x3x8x8"
    assert options["trt_profile_max_shapes"] == "input_ids:64x32,pixels:64x3x8x8"
    assert options["trt_engine_cache_path"] == str(tmp_path)
    assert [one for one, _ in rest] == [CUDA, CPU]


@pytest.mark.parametrize("sizes", [{}, {"batch": (1, 8, 64)}])
def test_no_tensorrt_without_bounds(sizes: dict[str, tuple[int, int, int]]) -> None:
    """Where an axis has no greatest size, or nobody asked, TensorRT is left out."""
    found = gpu_providers([TENSORRT, CUDA, CPU], INPUTS, sizes)

    assert [name for name, _ in found] == [CUDA, CPU]


def test_provider_without_its_library_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """ONNX Runtime lists TensorRT though libnvinfer is missing; we look for it."""
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [TENSORRT, CUDA, CPU])
    monkeypatch.setattr(onnx_provider, "_TENSORRT_LIBRARY", "libnosuchthing.so")
    assert installed_providers() == (CUDA, CPU)

    monkeypatch.setattr(onnx_provider, "_TENSORRT_LIBRARY", "libc.so.6")
    assert installed_providers() == (TENSORRT, CUDA, CPU)
