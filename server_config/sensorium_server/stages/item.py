"""Walk over the items of one request's BYTES tensor."""

from collections.abc import Callable
from typing import Any, TypeVar

from numpy.typing import NDArray

from sensorium.errors import InvalidInputError

Result = TypeVar("Result")


def map_items(function: Callable[[bytes], Result], items: NDArray[Any]) -> list[Result]:
    """Apply a function to each item of a [n,1] tensor, in order.

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
