import shutil
import ssl
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from tests.client.conftest import Caller, FakeServer, serve_grpc, serve_http

from sensorium import TLS, ConfigurationError

pytestmark = pytest.mark.skipif(
    shutil.which("openssl") is None, reason="needs the openssl command to make certificates"
)


@pytest.fixture(params=["grpc", "http"])
def secure(request: pytest.FixtureRequest, certificates: Path) -> Iterator[FakeServer]:
    """Serve both protocols, encrypted, to clients that prove who they are."""
    ca, key, chain = (certificates / name for name in ("ca.pem", "server.key", "server.pem"))
    if request.param == "grpc":
        credentials = grpc.ssl_server_credentials(
            [(key.read_bytes(), chain.read_bytes())], ca.read_bytes(), require_client_auth=True
        )
        with serve_grpc(credentials) as server:
            yield server
        return
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(ca))
    context.load_cert_chain(chain, key)
    context.verify_mode = ssl.CERT_REQUIRED
    with serve_http(lambda listening: context.wrap_socket(listening, server_side=True)) as server:
        yield server


def test_both_sides_prove_themselves(secure: FakeServer, certificates: Path, call: Caller) -> None:
    """With the right files, a request goes over an encrypted and mutually trusted connection."""
    tls = TLS(
        root_certificates=certificates / "ca.pem",
        certificate=certificates / "client.pem",
        key=certificates / "client.key",
        server_name="triton.test",
    )

    assert call(secure.url, "caption", b"picture", options={"tls": tls}).text == "a red star"


def test_an_untrusted_server_gets_no_picture(secure: FakeServer, call: Caller) -> None:
    """A server that the client does not trust is a matter of configuration, and not retried."""
    with pytest.raises(ConfigurationError, match="do not trust each other"):
        call(secure.url, "caption", b"picture", timeout_s=10)

    assert not secure.seen


def test_a_wrong_name_is_not_trusted(secure: FakeServer, certificates: Path, call: Caller) -> None:
    """A certificate for another name than the address is refused."""
    tls = TLS(root_certificates=certificates / "ca.pem", server_name="other.test")

    with pytest.raises(ConfigurationError, match="do not trust each other"):
        call(secure.url, "caption", b"picture", options={"tls": tls}, timeout_s=10)
