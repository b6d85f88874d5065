"""Triton's explicit model control over HTTP, open to whoever knows the server's secret alone.

A loaded version serves until its successor is ready, and then until its own requests have ended;
when the successor cannot be loaded, it goes on (docs/decisions/0015-swap-and-rollback.md).
The interface can also replace a model's files, so Triton asks for the secret on both protocols.
"""

import http.client
import json
import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field

from sensorium.errors import ModelNotReadyError, ServerError

HEADER = "sensorium-control"
_LOAD_TIMEOUT_S = 900.0
_LEAST_TOLD = 4


@dataclass(frozen=True, slots=True)
class ModelControl:
    """The model control of one server; `address` is `host:port` of its HTTP interface."""

    address: str
    secret: str = field(repr=False)

    def load(self, model: str) -> None:
        """Load what the model's config says now, in the place of what is loaded.

        Raises:
            ServerError: It could not be loaded, and what was loaded serves on.
            ModelNotReadyError: The server does not answer.
        """
        self._post(f"/v2/repository/models/{model}/load")

    def versions(self, model: str) -> dict[str, str]:
        """Return the state of each version of a model that Triton has seen.

        Raises:
            ModelNotReadyError: The server does not answer.
        """
        listed = json.loads(self._post("/v2/repository/index"))
        return {
            one["version"]: one.get("state", "")
            for one in listed
            if one["name"] == model and "version" in one
        }

    def _post(self, path: str) -> bytes:
        connection = http.client.HTTPConnection(self.address, timeout=_LOAD_TIMEOUT_S)
        try:
            connection.request("POST", path, b"{}", {HEADER: self.secret})
            response = connection.getresponse()
            body = response.read()
        except (OSError, http.client.HTTPException) as error:
            raise ModelNotReadyError(
                f"the server at {self.address} does not answer: {error}. Is it running?"
            ) from error
        finally:
            connection.close()
        if response.status != http.client.OK:
            raise ServerError(_reason(body))
        return body


def new_secret() -> str:
    """Return a secret for one server's lifetime."""
    return secrets.token_hex(16)


def flags(secret: str) -> Iterator[str]:
    """Yield what `tritonserver` is told: load all now, and more only for who knows the secret.

    A version that was unloaded counts as not ready for a strict Triton, which would never be ready
    again. It opens its ports when everything has been loaded, strict or not.
    """
    yield "--strict-readiness=false"
    yield "--model-control-mode=explicit"
    yield "--load-model=*"
    yield f"--http-restricted-api=model-repository:{HEADER}={secret}"
    yield f"--grpc-restricted-protocol=model-repository:{HEADER}={secret}"


def _reason(body: bytes) -> str:
    """Return what Triton says is wrong, without the Python traceback's places."""
    try:
        text = str(json.loads(body)["error"])
    except (ValueError, KeyError, TypeError):
        text = body.decode(errors="replace")
    told, _, _ = text.partition("\n\nAt:")
    return told.strip().rstrip(";").strip() if len(told) >= _LEAST_TOLD else text
