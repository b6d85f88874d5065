"""Values to tensors and tensors to values, by the contract; the only place that packs bytes."""

import struct
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any, TypeVar, cast

from sensorium._transports.base import Response, Tensor
from sensorium.contract import DType, Signature, TensorSpec
from sensorium.errors import ServerError
from sensorium.results import Result, Timings

R = TypeVar("R", bound=Result)

_ONE = (1,)
_LENGTH = struct.Struct("<I")
_FLOAT = struct.Struct("<f")


def tensor_from_value(spec: TensorSpec, value: object) -> Tensor:
    """Pack one item's value: `bytes` or `str` for BYTES, a number or a sequence of them for FP32.

    Raises:
        TypeError: the value is none of these.
    """
    if spec.dtype is DType.BYTES:
        data = value.encode() if isinstance(value, str) else value
        if not isinstance(data, bytes):
            raise TypeError(f"{spec.name} takes bytes or str, not {type(value).__name__}")
        return Tensor(spec.name, spec.dtype, (1, 1), _LENGTH.pack(len(data)) + data)
    numbers: Sequence[float] = (value,) if isinstance(value, int | float) else _sequence(value)
    data = struct.pack(f"<{len(numbers)}f", *numbers)
    return Tensor(spec.name, spec.dtype, (1, len(numbers)), data)


def _sequence(value: object) -> Sequence[float]:
    if not hasattr(value, "__len__") or isinstance(value, str | bytes):
        raise TypeError(f"{type(value).__name__} is neither a number nor a sequence of numbers")
    return cast("Sequence[float]", value)


def value_from_tensor(spec: TensorSpec, tensor: Tensor) -> Any:  # noqa: ANN401 - dtype decides
    """Unpack one item's value: bytes, a float, or a read-only float32 array.

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
        return _element(tensor)
    if len(tensor.data) != _FLOAT.size * tensor.shape[1]:
        raise ValueError(f"{tensor.name!r} carries {len(tensor.data)} bytes, which do not fit")
    if spec.shape == _ONE:
        return _FLOAT.unpack(tensor.data)[0]
    import numpy as np  # noqa: PLC0415 - answers and captions do without it

    return np.frombuffer(tensor.data, dtype="<f4")


def _element(tensor: Tensor) -> bytes:
    size = _LENGTH.unpack_from(tensor.data)[0] if len(tensor.data) >= _LENGTH.size else -1
    if len(tensor.data) != _LENGTH.size + size:
        raise ValueError(f"{tensor.name!r} carries {len(tensor.data)} bytes, which do not fit")
    return tensor.data[_LENGTH.size :]


def tensors_from_inputs(signature: Signature, inputs: Mapping[str, bytes]) -> tuple[Tensor, ...]:
    """Pack the inputs of a task in the order of its signature."""
    return tuple(tensor_from_value(spec, inputs[spec.name]) for spec in signature.inputs)


def result_from_tensors(
    result_type: type[R], response: Response, request_id: str, timings: Timings
) -> R:
    """Make the typed result of a response.

    Raises:
        ServerError: a tensor is missing or is not what the contract says.
    """
    tensors = {tensor.name: tensor for tensor in response.outputs}
    values: dict[str, Any] = {}
    try:
        for each in fields(result_type):
            spec: TensorSpec | None = each.metadata.get("spec")
            if spec is not None:
                value = value_from_tensor(spec, tensors[spec.name])
                values[each.name] = value.decode() if isinstance(value, bytes) else value
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
