"""Values to tensors and tensors to values, by the contract; the only place that packs bytes."""

import struct
from collections.abc import Mapping, Sequence
from dataclasses import fields
from numbers import Real
from typing import Any, TypeVar, cast

from sensorium._input import Value
from sensorium._transports.base import Response, Tensor
from sensorium.contract import DType, Signature, TensorSpec
from sensorium.errors import ServerError
from sensorium.results import Result, Timings

R = TypeVar("R", bound=Result)

_ONE = (1,)
_LENGTH = struct.Struct("<I")
_FORMATS = {DType.FP32: "f", DType.INT64: "q"}


def tensor_from_value(spec: TensorSpec, value: object) -> Tensor:
    """Pack one item's value: `bytes` or `str` for BYTES, else a number; or a sequence of these.

    Raises:
        TypeError: the value is none of these.
    """
    elements = _elements(spec, value)
    if spec.dtype is DType.BYTES:
        data = b"".join(_LENGTH.pack(len(each)) + each for each in map(_encoded, elements))
    else:
        data = _packed(spec, elements)
    return Tensor(spec.name, spec.dtype, (1, len(elements)), data)


def _elements(spec: TensorSpec, value: object) -> Sequence[Any]:
    if isinstance(value, str | bytes | Real):
        return (value,)
    if not hasattr(value, "__len__"):
        raise TypeError(f"{spec.name} takes one value or a sequence, not {type(value).__name__}")
    return cast("Sequence[Any]", value)


def _encoded(value: object) -> bytes:
    data = value.encode() if isinstance(value, str) else value
    if not isinstance(data, bytes):
        raise TypeError(f"a text tensor takes bytes or str, not {type(value).__name__}")
    return data


def _packed(spec: TensorSpec, numbers: Sequence[Any]) -> bytes:
    try:
        return struct.pack(f"<{len(numbers)}{_FORMATS[spec.dtype]}", *numbers)
    except struct.error as error:
        raise TypeError(f"{spec.name} takes {spec.dtype} numbers: {error}") from error


def value_from_tensor(spec: TensorSpec, tensor: Tensor) -> Any:  # noqa: ANN401 - dtype decides
    """Unpack one item's value: bytes, a number, a tuple of bytes or a read-only array.

    Raises:
        ValueError: the tensor is not what the contract says.
    """
    expected = (1, *(size if isinstance(size, int) else -1 for size in spec.shape))
    fits = len(tensor.shape) == len(expected) and all(
        want in (-1, size) for want, size in zip(expected, tensor.shape, strict=True)
    )
    if tensor.dtype != spec.dtype or not fits:
        raise ValueError(
            f"{tensor.name!r} is {tensor.dtype} {list(tensor.shape)}, "
            f"not {spec.dtype} {list(expected)}"
        )
    if spec.dtype is DType.BYTES:
        elements = _unpacked(tensor)
        return elements[0] if spec.shape == _ONE else elements
    layout = struct.Struct(f"<{tensor.shape[1]}{_FORMATS[spec.dtype]}")
    if len(tensor.data) != layout.size:
        raise _unfit(tensor)
    if spec.shape == _ONE:
        return layout.unpack(tensor.data)[0]
    import numpy as np  # noqa: PLC0415 - answers and captions do without it

    return np.frombuffer(tensor.data, dtype=np.dtype(_FORMATS[spec.dtype]).newbyteorder("<"))


def _unpacked(tensor: Tensor) -> tuple[bytes, ...]:
    elements, start = [], 0
    while start + _LENGTH.size <= len(tensor.data):
        begin = start + _LENGTH.size
        start = begin + _LENGTH.unpack_from(tensor.data, start)[0]
        elements.append(tensor.data[begin:start])
    if start != len(tensor.data) or len(elements) != tensor.shape[1]:
        raise _unfit(tensor)
    return tuple(elements)


def _unfit(tensor: Tensor) -> ValueError:
    return ValueError(f"{tensor.name!r} carries {len(tensor.data)} bytes, which do not fit")


def tensors_from_inputs(signature: Signature, inputs: Mapping[str, Value]) -> tuple[Tensor, ...]:
    """Pack the inputs of a task in the order of its signature."""
    return tuple(tensor_from_value(spec, inputs[spec.name]) for spec in signature.inputs)


def result_from_tensors(
    result_type: type[R],
    signature: Signature,
    response: Response,
    request_id: str,
    timings: Timings,
) -> R:
    """Make the typed result of a response.

    Raises:
        ServerError: a tensor is missing or is not what the contract says.
    """
    tensors = {tensor.name: tensor for tensor in response.outputs}
    try:
        outputs = {
            spec.name: value_from_tensor(spec, tensors[spec.name]) for spec in signature.outputs
        }
        values = {
            each.name: each.metadata["make"](*(outputs[name] for name in each.metadata["outputs"]))
            for each in fields(result_type)
            if each.metadata
        }
    except KeyError as error:
        raise ServerError(
            f"the response of {response.model!r} lacks the output {error}; it has "
            f"{sorted(tensors)}. Do the versions of client and server match?",
            request_id,
        ) from error
    except ValueError as error:
        raise ServerError(
            f"the response of {response.model!r} breaks the contract: {error}. "
            "Do the versions of client and server match?",
            request_id,
        ) from error
    return result_type(model=response.model, request_id=request_id, timings=timings, **values)
