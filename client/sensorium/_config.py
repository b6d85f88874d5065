"""What a client can be told: where, how secured, how patient, how large."""

import math
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from urllib.parse import urlsplit

from sensorium.errors import ConfigurationError

DEFAULT_URL = "localhost:8001"
DEFAULT_TIMEOUT_S = 30.0

DEFAULT_STEPS = 25
DEFAULT_GUIDANCE_SCALE = 1.5
MAX_STEPS = 100
MAX_GUIDANCE_SCALE = 20.0
MAX_SEED = 2**63 - 1

_SCHEMES = {"grpc": False, "grpcs": True, "http": False, "https": True}
_FORMS = "write localhost:8001 or grpcs://host:port for gRPC, http://localhost:8000 for HTTP"


@dataclass(frozen=True, slots=True)
class Retry:
    """How often and how patiently to try again; never beyond the call's deadline.

    The pause before attempt n + 1 is drawn between 0 and `base_s` · 2ⁿ⁻¹, at most `cap_s`.
    """

    attempts: int = 4
    base_s: float = 0.1
    cap_s: float = 2.0

    def __post_init__(self) -> None:
        if self.attempts < 1:
            raise ConfigurationError(
                f"Retry(attempts={self.attempts}): the smallest value is 1, which never retries."
            )
        if not (0 <= self.base_s <= self.cap_s < math.inf):
            raise ConfigurationError(
                f"Retry(base_s={self.base_s}, cap_s={self.cap_s}): 0 ≤ base_s ≤ cap_s must hold."
            )


@dataclass(frozen=True, slots=True)
class Limits:
    """What the client refuses before the network; the server has limits of its own."""

    max_image_bytes: int = 20_000_000
    max_text_chars: int = 512
    max_audio_bytes: int = 20_000_000
    max_video_bytes: int = 50_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class TLS:
    """How to trust the server, and how to prove who the client is; all files are PEM.

    Without `root_certificates` the system's (HTTP) or gRPC's own roots are trusted. `certificate`
    and `key` go together. `server_name` is the name to expect when it differs from the address.
    """

    root_certificates: str | PathLike[str] | None = None
    certificate: str | PathLike[str] | None = None
    key: str | PathLike[str] | None = None
    server_name: str | None = None

    def __post_init__(self) -> None:
        if (self.certificate is None) != (self.key is None):
            given, missing = ("certificate", "key") if self.certificate else ("key", "certificate")
            raise ConfigurationError(f"TLS({given}=…) needs {missing}=… too; give both or neither.")
        for name in ("root_certificates", "certificate", "key"):
            path = getattr(self, name)
            if path is not None and not Path(path).is_file():
                raise ConfigurationError(f"TLS({name}={str(path)!r}): there is no such file.")


@dataclass(frozen=True, slots=True)
class Address:
    """Where the server is and which protocol it speaks there."""

    scheme: str
    target: str

    @property
    def is_grpc(self) -> bool:
        """True for gRPC, false for HTTP."""
        return self.scheme.startswith("grpc")

    @property
    def is_secure(self) -> bool:
        """True when the connection is encrypted."""
        return _SCHEMES[self.scheme]

    def __str__(self) -> str:
        return self.target if self.scheme == "grpc" else f"{self.scheme}://{self.target}"


def address_from_url(url: str, tls: TLS | None = None) -> Address:
    """Read `host:port`, `grpc(s)://host:port` or `http(s)://host:port[/prefix]`.

    Raises:
        ConfigurationError: the URL has another form, or contradicts `tls`.
    """
    bare = "://" not in url
    scheme, target = ("grpc", url) if bare else url.split("://", 1)
    target = target.rstrip("/")
    _check_url(url, scheme, target)
    if bare and tls is not None:
        scheme = "grpcs"
    address = Address(scheme, target)
    if tls is not None and not address.is_secure:
        raise ConfigurationError(
            f"TLS options were given for {url!r}, which is not encrypted; write {scheme}s://{target}."
        )
    return address


def _check_url(url: str, scheme: str, target: str) -> None:
    if scheme not in _SCHEMES:
        raise ConfigurationError(f"the scheme of {url!r} is unknown; {_FORMS}.")
    try:
        parts = urlsplit(f"//{target}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if not host or port == 0 or (port is None and scheme.startswith("grpc")):
        raise ConfigurationError(f"{url!r} does not name a host and a port; {_FORMS}.")
