from pathlib import Path

import pytest

from sensorium import TLS, Client, ConfigurationError, InvalidInputError, Retry
from sensorium._config import address_from_url
from sensorium.testing import MockTransport


@pytest.mark.parametrize(
    ("url", "is_grpc", "is_secure", "target"),
    [
        ("localhost:8001", True, False, "localhost:8001"),
        ("grpc://10.0.0.1:1", True, False, "10.0.0.1:1"),
        ("grpcs://triton.example:443", True, True, "triton.example:443"),
        ("[::1]:8001", True, False, "[::1]:8001"),
        ("http://localhost:8000/", False, False, "localhost:8000"),
        ("https://triton.example/prefix", False, True, "triton.example/prefix"),
    ],
)
def test_urls(url: str, is_grpc: bool, is_secure: bool, target: str) -> None:  # noqa: FBT001
    """A URL says the protocol, the encryption and the place."""
    address = address_from_url(url)

    assert (address.is_grpc, address.is_secure, address.target) == (is_grpc, is_secure, target)
    assert address_from_url(str(address)) == address


@pytest.mark.parametrize(
    "url",
    [
        "",
        "localhost",
        "grpc://localhost",
        "ftp://x:1",
        "x:port",
        "http://",
        ":8001",
        "x:0",
        "dns:///x:1",
    ],
)
def test_bad_urls_say_what_is_possible(url: str) -> None:
    """A URL of another form is refused with the forms there are."""
    with pytest.raises(ConfigurationError, match="http://localhost:8000"):
        Client(url)


def test_tls_options_make_a_bare_address_secure() -> None:
    """TLS options and no scheme mean encrypted gRPC."""
    assert str(address_from_url("x:1", TLS())) == "grpcs://x:1"


@pytest.mark.parametrize("url", ["http://x:1", "grpc://x:1"])
def test_tls_options_contradict_a_plain_url(url: str) -> None:
    """TLS options for a URL that says unencrypted are refused, never ignored."""
    with pytest.raises(ConfigurationError, match=f"write {url.replace(':', 's:', 1)}"):
        address_from_url(url, TLS())


def test_tls_needs_both_halves(tmp_path: Path) -> None:
    """A certificate without its key, or a file that is not there, is refused at once."""
    with pytest.raises(ConfigurationError, match="needs key"):
        TLS(certificate="client.pem")
    with pytest.raises(ConfigurationError, match="needs certificate"):
        TLS(key="client.key")
    with pytest.raises(ConfigurationError, match="no such file"):
        TLS(root_certificates=tmp_path / "ca.pem")


def test_tls_files_must_be_pem(tmp_path: Path) -> None:
    """A file that is no certificate is refused when the client is made."""
    bad = tmp_path / "ca.pem"
    bad.write_text("not a certificate")

    with pytest.raises(ConfigurationError, match="not valid PEM"):
        Client("https://localhost:1", tls=TLS(root_certificates=bad))


@pytest.mark.parametrize(
    "options", [{"attempts": 0}, {"base_s": -1.0}, {"base_s": 3.0}, {"cap_s": float("inf")}]
)
def test_impossible_retries(options: dict[str, float]) -> None:
    """A retry policy that cannot work is refused."""
    with pytest.raises(ConfigurationError, match="Retry"):
        Retry(**options)  # type: ignore[arg-type]


@pytest.mark.parametrize("timeout_s", [0, -1, float("nan")])
def test_impossible_deadlines(timeout_s: float) -> None:
    """A deadline that is not above zero is refused, for the client as for a call."""
    with pytest.raises(InvalidInputError, match="timeout_s"):
        Client(timeout_s=timeout_s, transport=MockTransport({}))
    with (
        Client(transport=MockTransport({})) as client,
        pytest.raises(InvalidInputError, match="timeout_s"),
    ):
        client.caption(b"picture", timeout_s=timeout_s)


@pytest.mark.parametrize("headers", [{"x y": "1"}, {"": "1"}, {"x": "secret\r\n"}, {"x": "ü"}])
def test_impossible_headers(headers: dict[str, str]) -> None:
    """Headers that no protocol can carry are refused, without showing their values."""
    with pytest.raises(ConfigurationError, match="header") as caught:
        Client("localhost:1", headers=headers)

    assert "secret" not in str(caught.value)
