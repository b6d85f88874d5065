from pathlib import Path

import pytest

from sensorium.errors import ConfigurationError
from sensorium_server.settings import Settings, environment_of, load


def profile(tmp_path: Path, text: str) -> str:
    """Write a profile; return its path."""
    path = tmp_path / "mine.toml"
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_precedence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A flag beats the environment, which beats the profile, which beats the default."""
    mine = profile(tmp_path, "http_port = 1\ngrpc_port = 1\nmetrics_port = 1\n")
    monkeypatch.setenv("SENSORIUM_GRPC_PORT", "2")
    monkeypatch.setenv("SENSORIUM_METRICS_PORT", "2")

    settings = load({"profile": mine, "metrics_port": "3"})

    assert (settings.http_port, settings.grpc_port, settings.metrics_port) == (1, 2, 3)
    assert settings.max_text_chars == 512


def test_profile_from_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The profile itself can be named by the environment."""
    monkeypatch.setenv("SENSORIUM_PROFILE", profile(tmp_path, "max_text_chars = 9\n"))

    assert load().max_text_chars == 9


@pytest.mark.parametrize("name", ["cpu", "gpu"])
def test_built_in_profiles_load(name: str) -> None:
    """Every built-in profile is valid."""
    assert load({"profile": name}).profile == name


def test_bad_profile_value_names_the_file(tmp_path: Path) -> None:
    """A bad value in a profile is told with the file's name and the value."""
    mine = profile(tmp_path, 'http_port = "eight"\n')

    with pytest.raises(
        ConfigurationError, match=r'^mine.toml: http_port = "eight" is not an integ'
    ):
        load({"profile": mine})


def test_bad_environment_value_names_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bad value in the environment is told with the variable's name."""
    monkeypatch.setenv("SENSORIUM_STARTUP_TIMEOUT_S", "soon")

    with pytest.raises(
        ConfigurationError, match=r'^SENSORIUM_STARTUP_TIMEOUT_S = "soon" is not a n'
    ):
        load()


def test_bad_flag_names_the_flag() -> None:
    """A bad value of a flag is told with the flag, and what would be right."""
    with pytest.raises(ConfigurationError, match=r'^--log-level = "loud" is not .*warning'):
        load({"log_level": "loud"})


def test_all_problems_are_listed() -> None:
    """Several wrong values make one message that lists all of them."""
    with pytest.raises(ConfigurationError) as caught:
        load({"http_port": "x", "grpc_port": 70_000})

    assert len(str(caught.value).splitlines()) == 2


def test_unknown_key_in_profile(tmp_path: Path) -> None:
    """An unknown key stops the start and suggests the likely one."""
    mine = profile(tmp_path, "htp_port = 1\n")

    with pytest.raises(ConfigurationError, match=r"mine.toml: htp_port is not a .* mean http_port"):
        load({"profile": mine})


def test_misspelt_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable that is almost a setting stops the start."""
    monkeypatch.setenv("SENSORIUM_MAX_IMAGE_BYTE", "1")

    with pytest.raises(ConfigurationError, match="mean SENSORIUM_MAX_IMAGE_BYTES"):
        load()


def test_strange_variables_are_let_be(monkeypatch: pytest.MonkeyPatch) -> None:
    """What Kubernetes sets for a service named `sensorium` does not stop the start."""
    monkeypatch.setenv("SENSORIUM_SERVICE_HOST", "10.0.0.1")
    monkeypatch.setenv("SENSORIUM_PORT_8000_TCP", "tcp://10.0.0.1:8000")

    assert load() == load()


def test_missing_profile() -> None:
    """A profile that does not exist is told with those that do."""
    with pytest.raises(ConfigurationError, match=r'profile "tpu" does not exist.*cpu, gpu'):
        load({"profile": "tpu"})


def test_profile_that_is_no_toml(tmp_path: Path) -> None:
    """A profile that is not TOML is named."""
    with pytest.raises(ConfigurationError, match=r"mine.toml is not valid TOML"):
        load({"profile": profile(tmp_path, "a = = b")})


def test_environment_carries_every_setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Triton's processes read back the very settings that the launcher has, in any directory."""
    settings = load({"max_image_bytes": 5, "repository": tmp_path, "cache_dir": tmp_path / "c"})
    for name, value in environment_of(settings).items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)

    same = load()

    assert same.model_dump(exclude={"profile"}) == settings.model_dump(exclude={"profile"})


def test_settings_are_frozen(settings: Settings) -> None:
    """Nobody changes a setting while serving."""
    with pytest.raises(ValueError, match="frozen"):
        settings.http_port = 1


def test_trace_url_is_checked() -> None:
    """A collector without its scheme is refused, with what was expected."""
    with pytest.raises(ConfigurationError, match=r'--trace-url = "collector:4318" does not match'):
        load({"trace_url": "collector:4318"})
