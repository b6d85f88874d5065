import grpc
import pytest

from sensorium import errors
from sensorium._transports.failure import GRPC_ERRORS, Exchange, error_from_grpc, error_from_http
from sensorium.errors import SensoriumError

EXCHANGE = Exchange("localhost:1", "image_captioning", 2.0, "r1")


def test_every_grpc_status_has_a_class() -> None:
    """No status of gRPC is without a class of ours."""
    assert set(GRPC_ERRORS) == set(grpc.StatusCode.__members__) - {"OK"}


@pytest.mark.parametrize("code", grpc.StatusCode.__members__)
def test_every_grpc_status_has_words(code: str) -> None:
    """Each status makes a message, whatever the details, and keeps the request id."""
    for details in (None, "", "what happened."):
        error = error_from_grpc(code, details, EXCHANGE)
        assert str(error)
        assert ".." not in str(error)
        assert error.request_id == "r1"


@pytest.mark.parametrize("body", [b"", b"<html>what happened</html>", b"\xff", b'{"x": 1}', b"[]"])
def test_every_http_status_has_words(body: bytes) -> None:
    """Each HTTP status makes a message, whatever the body."""
    for status in range(300, 600):
        error = error_from_http(status, body, EXCHANGE)
        assert isinstance(error, SensoriumError)
        assert str(error)


@pytest.mark.parametrize(
    ("details", "expected"),
    [
        ("failed to connect to all addresses; Connection refused", "ServerUnreachableError"),
        ("Socket closed", "ServerUnreachableError"),
        ("recvmsg:Connection reset by peer", "ServerUnreachableError"),
        ("DNS resolution failed for x:1", "ServerUnreachableError"),
        ("GOAWAY received", "ServerUnreachableError"),
        ("Ssl handshake failed: CERTIFICATE_VERIFY_FAILED", "ConfigurationError"),
        ("Request for unknown model: 'x' is not found", "UnknownTaskError"),
        ("Request for unknown model: 'x' version 1 is not at ready state", "ModelNotReadyError"),
        ("in ensemble 'x', [request id: 1] Exceeds maximum queue size", "OverloadedError"),
        ("[request id: 1] Request timeout expired", "DeadlineExceededError"),
    ],
)
def test_unavailable_has_many_meanings(details: str, expected: str) -> None:
    """The text tells who is unavailable: the server, the model, the queue or the trust."""
    assert type(error_from_grpc("UNAVAILABLE", details, EXCHANGE)) is getattr(errors, expected)


def test_tritons_prefixes_are_left_out() -> None:
    """The caller reads what is wrong, not where Triton noticed it."""
    details = "in ensemble 'image_captioning', [request id: 7] image is empty"

    assert str(error_from_grpc("INVALID_ARGUMENT", details, EXCHANGE)) == "image is empty"


def test_a_404_of_another_server_is_not_an_unknown_task() -> None:
    """A 404 that is not Triton's JSON comes from something that is not Triton."""
    error = error_from_http(404, b"<h1>nginx</h1>", EXCHANGE)

    assert type(error) is errors.ServerError
    assert "is this Triton's HTTP port?" in str(error)
