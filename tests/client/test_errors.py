import pickle

import grpc
import pytest

from sensorium import errors
from sensorium.errors import SensoriumError

CLASSES = [
    value
    for value in vars(errors).values()
    if isinstance(value, type) and issubclass(value, SensoriumError)
]


@pytest.mark.parametrize("error", [c for c in CLASSES if c is not SensoriumError])
def test_the_docstring_draws_each_class(error: type[SensoriumError]) -> None:
    """The drawing names each class with its two codes, and marks what is retried."""
    assert errors.__doc__
    [line] = [line for line in errors.__doc__.splitlines() if f"── {error.__name__} " in line]

    assert line.split()[-2:] == [str(error.http_status), error.grpc_code]
    assert ("↻" in line) == error.retryable


@pytest.mark.parametrize("error", CLASSES)
def test_codes_are_real(error: type[SensoriumError]) -> None:
    """Each class owns a status of each protocol."""
    assert error.grpc_code in grpc.StatusCode.__members__
    assert 400 <= error.http_status < 600


@pytest.mark.parametrize("error", CLASSES)
def test_errors_survive_pickling(error: type[SensoriumError]) -> None:
    """An error comes out of a process pool with its message and request id."""
    copy = pickle.loads(pickle.dumps(error("the message", "r1")))

    assert (type(copy), str(copy), copy.request_id) == (error, "the message", "r1")
