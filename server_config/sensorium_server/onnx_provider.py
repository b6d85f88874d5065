"""Which of ONNX Runtime's execution providers a graph runs on, and with which options.

On a GPU: TensorRT where it is asked for, its library is here and every open axis has a greatest
size; then CUDA; then the processor. Each takes what the one before leaves, and ONNX Runtime drops
those that do not load.
"""

import ctypes
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import onnxruntime

from sensorium_server.batching import Axes

TENSORRT = "TensorrtExecutionProvider"
CUDA = "CUDAExecutionProvider"
CPU = "CPUExecutionProvider"
_TENSORRT_LIBRARY = "libnvinfer.so.10"

Provider = tuple[str, dict[str, str]]
Sizes = Mapping[str, tuple[int, int, int]]
"""The least, the usual and the greatest size of each open axis, by its name."""


def installed_providers() -> tuple[str, ...]:
    """Return the providers that this ONNX Runtime was built with and whose library is here."""
    built = onnxruntime.get_available_providers()
    if TENSORRT in built and not _is_loadable(_TENSORRT_LIBRARY):
        built = [name for name in built if name != TENSORRT]
    return tuple(built)


def gpu_providers(
    installed: Collection[str],
    inputs: Mapping[str, Axes],
    sizes: Sizes,
    *,
    device: int = 0,
    cache: Path | None = None,
) -> list[Provider]:
    """Return the providers of a graph on a GPU, the first one first.

    Args:
        installed: The providers that are here; see `installed_providers`.
        inputs: The graph's inputs and their axes.
        sizes: The sizes that open axes can have, for TensorRT; nothing leaves TensorRT out.
        device: The GPU's number.
        cache: Where TensorRT keeps the engines that it builds; without it they are built anew at
            each start.
    """
    found: list[Provider] = []
    if TENSORRT in installed and (profile := _profile(inputs, sizes)):
        found.append((TENSORRT, {"device_id": str(device), **profile, **_kept_in(cache)}))
    if CUDA in installed:
        # TF32 rounds what is multiplied to ten bits: the parity card would no longer hold.
        found.append(
            (
                CUDA,
                {
                    "device_id": str(device),
                    "use_tf32": "0",
                    "arena_extend_strategy": "kSameAsRequested",
                    "cudnn_conv_use_max_workspace": "1",
                },
            )
        )
    return [*found, (CPU, {})]


def _profile(inputs: Mapping[str, Axes], sizes: Sizes) -> dict[str, str]:
    """Return TensorRT's optimization profile as options; none when an axis has no bound."""
    if not sizes:
        return {}
    open_axes = {axis for axes in inputs.values() for axis in axes if not isinstance(axis, int)}
    if any(axis not in sizes for axis in open_axes):
        return {}
    return {
        f"trt_profile_{corner}_shapes": ",".join(
            f"{name}:{'x'.join(_size(axis, sizes, place) for axis in axes)}"
            for name, axes in inputs.items()
        )
        for place, corner in enumerate(("min", "opt", "max"))
    }


def _size(axis: int | str | None, sizes: Sizes, place: int) -> str:
    return str(axis if isinstance(axis, int) else sizes[str(axis)][place])


def _kept_in(cache: Path | None) -> dict[str, str]:
    if cache is None:
        return {}
    return {
        "trt_engine_cache_enable": "1",
        "trt_engine_cache_path": str(cache),
        "trt_timing_cache_enable": "1",
        "trt_timing_cache_path": str(cache),
    }


def _is_loadable(library: str) -> bool:
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


def preload_cuda() -> None:
    """Load the CUDA libraries that pip installed, which the linker would not find."""
    preload: Any = getattr(onnxruntime, "preload_dlls", None)
    if preload is not None and CUDA in onnxruntime.get_available_providers():
        preload()
