"""What would run engines on this machine: the processor, the GPU, and the products' versions."""

import platform
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from sensorium_server.engine_gate import EngineRuntime
from sensorium_server.engine_record import Target
from sensorium_server.gpu import this_gpu

CPU_PRODUCTS = ("onnxruntime", "openvino")
"""Those whose engines run on the processor."""

_DISTRIBUTIONS = {
    "onnxruntime": ("onnxruntime", "onnxruntime-gpu"),
    "openvino": ("openvino",),
    "tensorrt": ("tensorrt", "tensorrt-cu13-bindings", "tensorrt-cu12-bindings"),
    "tensorrt_rtx": ("tensorrt-rtx", "tensorrt-rtx-cu13-bindings", "tensorrt-rtx-cu12-bindings"),
}
_CPU_INFO = Path("/proc/cpuinfo")
_INSTRUCTIONS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8", "amx_bf16")


def runtime_of(product: str) -> EngineRuntime:
    """Return what would run a product's engines here: its version, and its device."""
    target = processor() if product in CPU_PRODUCTS else graphics()
    return EngineRuntime(product_versions(), target)


def product_versions() -> dict[str, str]:
    """Return the version of every product that is installed."""
    return {product: found for product in _DISTRIBUTIONS if (found := product_version(product))}


def product_version(product: str) -> str:
    """Return a product's version; empty when it is not installed."""
    for distribution in _DISTRIBUTIONS.get(product, ()):
        try:
            return version(distribution)
        except PackageNotFoundError:
            continue
    return ""


@cache
def processor() -> Target:
    """Return the processor: its name, and of its vector instructions those that engines use."""
    lines = _CPU_INFO.read_text(encoding="utf-8").splitlines() if _CPU_INFO.is_file() else []
    facts = {
        key.strip(): value.strip()
        for key, _, value in (line.partition(":") for line in reversed(lines))
    }
    flags = facts.get("flags", "").split()
    able = " ".join(name for name in _INSTRUCTIONS if name in flags)
    name = facts.get("model name") or platform.machine()
    return Target(f"{name} ({able})" if able else name)


@cache
def graphics() -> Target:
    """Return the first GPU; one without a name where there is none."""
    return this_gpu() or Target("")
