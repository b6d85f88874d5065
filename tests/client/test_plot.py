import subprocess
import sys
from pathlib import Path

import pytest

from sensorium import ConfigurationError, Event, InvalidInputError
from sensorium.plot import plot_events

pytest.importorskip("matplotlib")

EVENTS = [
    Event("moves left", 1.0, 3.5, 0.6),
    Event("bell", 0.25, 0.75, 0.95),
    Event("bell", 2.0, 2.5, 0.55),
]


def test_a_timeline_has_a_row_for_each_label(tmp_path: Path) -> None:
    """Each label is written once, in the order in which the labels first start."""
    text = plot_events(EVENTS, tmp_path / "a.svg", title="street.wav").read_text()

    assert [text.count(f"<!-- {label} -->") for label in ("bell", "moves left")] == [1, 1]
    assert text.index("<!-- bell -->") < text.index("<!-- moves left -->")
    for words in ("time in s", "score", "street.wav"):
        assert f"<!-- {words} -->" in text
    assert "no events" not in text


def test_bars_stand_where_the_events_are(tmp_path: Path) -> None:
    """A picture of the events differs from one of any part of them, and is made again alike."""
    whole = plot_events(EVENTS, tmp_path / "a.png").read_bytes()

    assert whole.startswith(b"\x89PNG")
    assert plot_events(reversed(EVENTS), tmp_path / "b.png").read_bytes() == whole
    for index in range(len(EVENTS)):
        part = [event for at, event in enumerate(EVENTS) if at != index]
        assert plot_events(part, tmp_path / "c.png").read_bytes() != whole


def test_no_events_are_said(tmp_path: Path) -> None:
    """Without events the picture says so."""
    assert "<!-- no events -->" in plot_events([], tmp_path / "a.svg").read_text()


@pytest.mark.parametrize("name", ["no/a.png", "a.nonsense", "nul\0.png"])
def test_what_cannot_be_written_is_told(tmp_path: Path, name: str) -> None:
    """A place or a format that cannot be written is the caller's mistake."""
    with pytest.raises(InvalidInputError, match="cannot write"):
        plot_events(EVENTS, tmp_path / name)


def test_a_missing_extra_is_an_instruction(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without matplotlib the error says what to install."""
    monkeypatch.setitem(sys.modules, "matplotlib", None)

    with pytest.raises(ConfigurationError, match=r"pip install 'sensorium\[plot\]'"):
        plot_events(EVENTS, tmp_path / "a.png")


def test_the_command_and_the_module_do_without_matplotlib() -> None:
    """Neither the command nor `sensorium.plot` loads matplotlib before there is a plot."""
    code = "import sys, sensorium.cli, sensorium.plot; sys.exit('matplotlib' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
