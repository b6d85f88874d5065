"""Walk over the items of one request's BYTES tensors."""

from collections.abc import Callable
from typing import Any, TypeVar

from numpy.typing import NDArray

from sensorium.contract import TensorSpec
from sensorium.errors import InvalidInputError
from sensorium_server.stages import Tensors

Result = TypeVar("Result")


def map_items(function: Callable[[Any], Result], items: NDArray[Any]) -> list[Result]:
    """Apply a function to each item of a [n,1] tensor, or to each row's index, in order.

    Raises:
        InvalidInputError: the first item that failed; the message says which when there are more.
    """
    results = []
    flat = items.ravel()
    for index, item in enumerate(flat):
        try:
            results.append(function(item))
        except InvalidInputError as error:
            if flat.size == 1:
                raise
            raise InvalidInputError(f"item {index} of {flat.size}: {error}") from error
    return results


def item(inputs: Tensors, spec: TensorSpec, row: int) -> bytes:
    """Return one row's bytes, empty when the request has no such tensor."""
    tensor = inputs.get(spec.name)
    return b"" if tensor is None else bytes(tensor.ravel()[row])
