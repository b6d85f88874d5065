"""DLPack: an array goes to another library as an address, without a copy.

Written with `ctypes` because what would do it otherwise is a library of GPU arrays, of which this
would be the only use. The layout is that of DLPack before versions, which Triton speaks.
"""

import ctypes
from collections.abc import Sequence
from typing import Any

import numpy as np

Capsule = Any
"""A Python capsule named `dltensor`."""

HOST, CUDA = 1, 2
"""Kinds of devices."""

_NAME = b"dltensor"
_CODES = {"i": 0, "u": 1, "f": 2, "b": 6}
_KINDS = {code: kind for kind, code in _CODES.items()}


class _Tensor(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    )


class _Managed(ctypes.Structure):
    pass


_DELETER = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
_Managed._fields_ = (
    ("tensor", _Tensor),
    ("context", ctypes.c_void_p),
    ("deleter", _DELETER),
)

_new = ctypes.pythonapi.PyCapsule_New
_new.restype = ctypes.py_object
_new.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
_is_valid = ctypes.pythonapi.PyCapsule_IsValid
_is_valid.restype = ctypes.c_int
_is_valid.argtypes = [ctypes.c_void_p, ctypes.c_char_p]
_pointer = ctypes.pythonapi.PyCapsule_GetPointer
_pointer.restype = ctypes.c_void_p
_pointer.argtypes = [ctypes.c_void_p, ctypes.c_char_p]

_alive: dict[int, tuple[object, ...]] = {}
"""What was handed out and not given back, by the address of its description."""


def _delete(address: int) -> None:
    _alive.pop(address, None)


def _capsule_gone(capsule: int) -> None:
    """Give back what nobody took; a taker renames the capsule."""
    if _is_valid(capsule, _NAME):
        _delete(_pointer(capsule, _NAME))


# These must live as long as anything that was handed out.
_DELETE = _DELETER(_delete)
_CAPSULE_GONE = _DELETER(_capsule_gone)


def capsule_from(
    pointer: int,
    shape: Sequence[int],
    dtype: np.dtype[Any],
    device: tuple[int, int],
    owner: object,
) -> Capsule:
    """Describe a contiguous array; `owner` lives until the taker has done with it."""
    sizes = (ctypes.c_int64 * len(shape))(*shape)
    managed = _Managed()
    tensor = managed.tensor
    tensor.data = pointer
    tensor.device_type, tensor.device_id = device
    tensor.ndim = len(shape)
    tensor.code, tensor.bits, tensor.lanes = _CODES[dtype.kind], dtype.itemsize * 8, 1
    tensor.shape = ctypes.cast(sizes, ctypes.POINTER(ctypes.c_int64))
    managed.deleter = _DELETE
    address = ctypes.addressof(managed)
    _alive[address] = (managed, sizes, owner)
    return _new(address, _NAME, ctypes.cast(_CAPSULE_GONE, ctypes.c_void_p))


def described(capsule: Capsule) -> tuple[int, tuple[int, ...], np.dtype[Any], tuple[int, int]]:
    """Return address, shape, dtype and device of an array that somebody else hands over.

    It stays theirs: keep the capsule as long as the address is used.

    Raises:
        ValueError: it is not contiguous, or of a type that NumPy has not.
    """
    address = _pointer(id(capsule), _NAME)
    tensor = _Managed.from_address(address).tensor
    shape = tuple(tensor.shape[axis] for axis in range(tensor.ndim))
    if tensor.code not in _KINDS or tensor.lanes != 1:
        raise ValueError(f"DLPack type {tensor.code} with {tensor.lanes} lanes is not read")
    dtype = np.dtype(f"{_KINDS[tensor.code]}{tensor.bits // 8}")
    if tensor.strides:
        strides = [tensor.strides[axis] for axis in range(tensor.ndim)]
        if strides != _contiguous(shape):
            raise ValueError(f"an array of strides {strides} is not contiguous")
    return (
        (tensor.data or 0) + tensor.byte_offset,
        shape,
        dtype,
        (tensor.device_type, tensor.device_id),
    )


def _contiguous(shape: Sequence[int]) -> list[int]:
    strides, step = [], 1
    for size in reversed(shape):
        strides.append(step)
        step *= size
    return strides[::-1]
