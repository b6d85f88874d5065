"""Every setting of the server: its name, type, limits and default, written once.

A value comes from the first that has one: flag > environment > profile > default. The profile is
a TOML file, `profiles/cpu.toml` or `profiles/gpu.toml` or one's own. An unknown key, an almost
known environment variable or a bad value stops the start, and the message says where it was read.

`sensorium serve` hands the whole of its settings on to Triton's Python processes in the
environment, so that `Settings()` is the same everywhere.
"""

import difflib
import json
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from sensorium.errors import ConfigurationError

ENV_PREFIX = "SENSORIUM_"
PROFILES = Path(__file__).parent / "profiles"
_TYPO_LIKENESS = 0.85
_PILLOW_MAX_PIXELS = 178_956_970

FREE_PORTS = dict.fromkeys(("http_port", "grpc_port", "metrics_port", "service_metrics_port"), 0)
"""Values with which a server finds its ports itself."""

Port = Annotated[int, Field(ge=0, le=65_535)]


class Settings(BaseSettings):
    """The server's settings; frozen, and equal in the launcher and in Triton's processes."""

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX, frozen=True, extra="forbid", env_ignore_empty=True
    )

    profile: str = Field("cpu", description="Name of a built-in profile, or path of a TOML file.")
    repository: Path = Field(
        Path("model_repository"), description="Directory of Triton models to serve."
    )
    host: str = Field(
        "127.0.0.1", description="Address to listen on; 0.0.0.0 to be reached from elsewhere."
    )
    http_port: Port = Field(8000, description="Port of HTTP; 0 picks a free one.")
    grpc_port: Port = Field(8001, description="Port of gRPC; 0 picks a free one.")
    metrics_port: Port = Field(8002, description="Port of Prometheus metrics; 0 picks a free one.")
    service_metrics_port: Port = Field(
        8003, description="Port of Sensorium's own metrics; 0 picks a free one."
    )
    metrics_address: str = Field("", description="Address for metrics; that of host without it.")
    request_metrics: bool = Field(
        False, description="Measure whole requests by tracing each; Triton 2.51 may crash of it."
    )
    replicas: int = Field(1, ge=1, description="How many Tritons serve, behind a balancer.")
    balancer: Literal["envoy"] | None = Field(
        None, description="What spreads requests over the replicas; envoy is the one there is."
    )
    balancer_metrics_port: Port = Field(
        8004, description="Port of the balancer's own metrics; 0 picks a free one."
    )
    model_config_name: str = Field(
        "", description="Use configs/NAME.pbtxt where a model has one, else config.pbtxt."
    )
    device: Literal["cpu", "gpu"] = Field(
        "cpu", description="gpu: use the GPU where there is one, by the fastest that is there."
    )
    triton_dir: Path | None = Field(
        None, description="An installed Triton, as in NVIDIA's container; else the packaged one."
    )
    max_image_bytes: int = Field(20_000_000, gt=0, description="Largest image file, bytes.")
    max_image_pixels: int = Field(
        40_000_000, gt=0, le=_PILLOW_MAX_PIXELS, description="Largest image, pixels."
    )
    max_audio_bytes: int = Field(20_000_000, gt=0, description="Largest audio file, bytes.")
    max_audio_s: float = Field(60, gt=0, description="Longest audio, seconds.")
    max_video_bytes: int = Field(50_000_000, gt=0, description="Largest video file, bytes.")
    max_video_s: float = Field(60, gt=0, description="Longest video, seconds.")
    max_video_pixels: int = Field(
        8_294_400, gt=0, description="Largest frame of a video, pixels; the default is 4K."
    )
    max_video_frames: int = Field(7200, gt=0, description="Most frames of a video.")
    decode_timeout_s: float = Field(
        20, gt=0, description="Give up an audio or video that takes longer to decode, seconds."
    )
    max_text_chars: int = Field(512, gt=0, description="Longest text, characters.")
    startup_timeout_s: float = Field(
        120, gt=0, description="Give up when not ready after this many seconds."
    )
    drain_timeout_s: int = Field(
        30, ge=0, description="On SIGTERM, serve on for at most this many seconds until idle."
    )
    restart_limit: int = Field(
        5, ge=0, description="How often in ten minutes a Triton that crashed is started again."
    )
    log_level: Literal["error", "warning", "info", "debug"] = Field(
        "warning", description="How much is logged, to stderr; info: every request."
    )
    log_format: Literal["text", "json"] = Field("text", description="Log lines as text or JSON.")
    trace_url: str = Field(
        "",
        pattern=r"^(https?://\S+)?$",
        description="Where traces go: http://collector:4318/v1/traces (OTLP/HTTP); empty: nowhere.",
    )
    trace_rate: float = Field(
        0.01, ge=0, le=1, description="Share of the requests without a trace context to trace."
    )
    allow_unverified: bool = Field(
        False, description="Serve bundles that are not proven too, with a warning."
    )
    engines: str = Field(
        "off",
        description="Compiled engines: auto (serve at once, build, swap in), off, or a directory "
        "to keep them in.",
    )
    engine_profile: str = Field(
        "cpu", description="What engines are built for: a profile of sensorium compile."
    )
    engine_checkpoint: Path | None = Field(
        None,
        description="What engines are proven against: a checkpoint, or a directory that has one by "
        "the name of each bundle.",
    )
    gpu_metrics: bool = Field(False, description="Export the GPU's metrics too.")
    http_threads: int = Field(8, gt=0, description="Threads that answer HTTP.")
    load_threads: int = Field(4, gt=0, description="Models that load at the same time.")
    shared_memory_bytes: int = Field(
        4_194_304,
        ge=1_048_576,
        description="Shared memory of each model instance at the start; it grows as needed.",
    )
    grpc_max_connection_age_s: float = Field(
        0,
        ge=0,
        description="Ask gRPC clients to connect anew after so many seconds; 0 for never.",
    )
    grpc_tls_cert: Path | None = Field(
        None, description="PEM certificate; with grpc_tls_key, gRPC speaks TLS."
    )
    grpc_tls_key: Path | None = Field(None, description="PEM key of grpc_tls_cert.")
    grpc_tls_client_ca: Path | None = Field(
        None, description="PEM authority; gRPC clients must then show its certificate."
    )
    cache_dir: Path = Field(
        Path("~/.cache/sensorium"), description="Where the assembled Triton backends are kept."
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Read flags, then the environment, then the profile."""
        del dotenv_settings, file_secret_settings
        name = init_settings().get("profile") or env_settings().get("profile")
        return (init_settings, env_settings, _Profile(settings_cls, profile_path(name or "cpu")))


class _Profile(PydanticBaseSettingsSource):
    """The values of a TOML file."""

    def __init__(self, settings_cls: type[BaseSettings], path: Path) -> None:
        super().__init__(settings_cls)
        self._values = read_profile(path)

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        """Return one value; unused, because `__call__` returns all."""
        del field
        return self._values.get(field_name), field_name, False

    def __call__(self) -> dict[str, Any]:
        return self._values


def profile_path(profile: str) -> Path:
    """Return the file of a profile: a built-in name, or a path that ends in `.toml`.

    Raises:
        ConfigurationError: there is none.
    """
    path = Path(profile) if profile.endswith(".toml") else PROFILES / f"{profile}.toml"
    if not path.is_file():
        names = ", ".join(sorted(file.stem for file in PROFILES.glob("*.toml")))
        raise ConfigurationError(
            f'profile "{profile}" does not exist. Name one of {names}, or the path of a TOML file.'
        )
    return path


def read_profile(path: Path) -> dict[str, Any]:
    """Read a profile's values.

    Raises:
        ConfigurationError: the file is not TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path.name} is not valid TOML: {error}.") from error


def load(flags: Mapping[str, object] | None = None) -> Settings:
    """Return the settings from flags, environment, profile and defaults.

    Raises:
        ConfigurationError: values are wrong; the message lists all, each with where it was read.
    """
    given = {name: value for name, value in (flags or {}).items() if value is not None}
    problems = _almost_settings()
    if problems:
        raise ConfigurationError("\n".join(problems))
    try:
        return Settings(**given)  # type: ignore[arg-type] # pydantic checks them
    except ValidationError as error:
        raise ConfigurationError(
            "\n".join(_problem(dict(each), given) for each in error.errors())
        ) from None


def environment_of(settings: Settings) -> dict[str, str]:
    """Return the settings as environment variables, with paths that hold in any directory."""
    values = settings.model_dump(exclude_none=True)
    values["profile"] = str(profile_path(settings.profile).absolute())
    return {
        _env_name(name): str(value.expanduser().absolute() if isinstance(value, Path) else value)
        for name, value in values.items()
    }


def flag_name(name: str) -> str:
    """Return a setting's command-line flag."""
    return "--" + name.replace("_", "-")


def _env_name(name: str) -> str:
    return ENV_PREFIX + name.upper()


def _almost_settings() -> list[str]:
    """Complain about variables that look like a misspelt setting.

    Others with our prefix are let be: Kubernetes sets some for a service named `sensorium`.
    """
    known = {_env_name(name) for name in Settings.model_fields}
    strangers = {name for name in os.environ if name.startswith(ENV_PREFIX)} - known
    return [
        f"{name} is not a setting. Did you mean {likely[0]}?"
        for name in sorted(strangers)
        if (likely := difflib.get_close_matches(name, known, 1, _TYPO_LIKENESS))
    ]


def _problem(error: dict[str, Any], flags: Mapping[str, object]) -> str:
    """Say what is wrong with a value, and where it was read."""
    name = str(error["loc"][0])
    if name in flags:
        origin = flag_name(name)
    elif _env_name(name) in os.environ:
        origin = _env_name(name)
    else:
        chosen = flags.get("profile") or os.environ.get(_env_name("profile")) or "cpu"
        origin = f"{profile_path(str(chosen)).name}: {name}"
    if error["type"] == "extra_forbidden":
        likely = difflib.get_close_matches(name, Settings.model_fields, 1)
        hint = f" Did you mean {likely[0]}?" if likely else ""
        return f"{origin} is not a setting.{hint}"
    return f"{origin} = {json.dumps(error['input'], default=str)} {_complaint(error)}"


def _complaint(error: Mapping[str, Any]) -> str:
    kind = error["type"]
    if kind.startswith("int_"):
        return "is not an integer"
    if kind.startswith("float_"):
        return "is not a number"
    if kind == "string_pattern_mismatch":
        return f"does not match {error['ctx']['pattern']}"
    return str(error["msg"]).replace("Input should be", "is not")
