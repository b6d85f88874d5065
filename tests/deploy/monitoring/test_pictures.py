import json
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from PIL import Image
from typer.testing import CliRunner

from drawing import written
from pictures import DASHBOARDS, app
from sensorium.errors import ConfigurationError, InvalidInputError
from series import Prometheus, Window, filled

WINDOW = Window(0.0, 3600.0, 15.0, 15.0)
ANSWER = {
    "result": [
        {"metric": {"stage": "fusion", "job": "sensorium"}, "values": [[0, "1"], [60, "NaN"]]},
        {"metric": {"stage": "text_encoder"}, "values": [[0, "NaN"]]},
        {"metric": {"stage": "image_encoder"}, "values": [[0, "2"], [60, "4.5"]]},
    ]
}


class Recorded:
    """A Prometheus that answers every query by the same series, or refuses it, and keeps it."""

    def __init__(self) -> None:
        self.asked: list[dict[str, list[str]]] = []
        self.refusal = ""
        self.url = ""


@pytest.fixture
def recorded() -> Iterator[Recorded]:
    """Run one."""
    made = Recorded()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            made.asked.append(parse_qs(urlsplit(self.path).query))
            answer: dict[str, Any] = {"error": made.refusal} if made.refusal else {"data": ANSWER}
            self.send_response(400 if made.refusal else 200)
            self.end_headers()
            self.wfile.write(json.dumps(answer).encode())

        def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002 - inherited
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=[0.05])
    thread.start()
    made.url = f"http://127.0.0.1:{server.server_address[1]}"
    yield made
    server.shutdown()
    thread.join()
    server.server_close()


def test_variables_are_filled_in() -> None:
    """A rate looks back over four scrapes, and every choice is everything; $1 is no variable."""
    expression = 'label_replace(rate(x{stage=~"$stage"}[$__rate_interval]), "b", "$1", "a", "(.)")'

    assert filled(expression, WINDOW) == (
        'label_replace(rate(x{stage=~".*"}[60s]), "b", "$1", "a", "(.)")'
    )


def test_rate_looks_back_over_a_wide_step() -> None:
    """Where points lie further apart than four scrapes, a rate reaches from one to the next."""
    assert filled("rate(x[$__rate_interval])", Window(0, 1, 300, 15)) == "rate(x[315s])"


def test_range_is_the_time_looked_at() -> None:
    """What happened at all is asked for over the whole window."""
    assert filled("increase(x[$__range]) > 0", WINDOW) == "increase(x[3600s]) > 0"


def test_missing_matplotlib_is_an_instruction(
    recorded: Recorded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the extra the command says how to install it."""
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    for name in [name for name in sys.modules if name.startswith("matplotlib.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delitem(sys.modules, "drawing", raising=False)
    done = CliRunner().invoke(app, ["--prometheus", recorded.url, "--out", str(tmp_path)])

    assert done.exit_code == 1
    assert "pip install 'sensorium[plot]'" in done.output


def test_unknown_variable_is_refused() -> None:
    """A variable of Grafana's that is not known here is named."""
    with pytest.raises(InvalidInputError, match=r"\$__interval_ms .* is not known"):
        filled("rate(x[$__interval_ms])", WINDOW)


def test_series_have_names_and_numbers(recorded: Recorded) -> None:
    """A legend's labels are filled in; what is no number is left out, and so is an empty series."""
    found = Prometheus(recorded.url + "/").series("up", "{{stage}} at {{zone}}", WINDOW)

    assert [(one.name, one.times_s, one.values) for one in found] == [
        ("fusion at ", [0.0], [1.0]),
        ("image_encoder at ", [0.0, 60.0], [2.0, 4.5]),
    ]
    assert recorded.asked == [
        {"query": ["up"], "start": ["0.0"], "end": ["3600.0"], "step": ["15.0"]}
    ]


def test_refusal_is_passed_on(recorded: Recorded) -> None:
    """What Prometheus finds wrong with a query is said."""
    recorded.refusal = "parse error: unexpected end of input"

    with pytest.raises(InvalidInputError, match="parse error: unexpected end"):
        Prometheus(recorded.url).series("sum(", "", WINDOW)


@pytest.mark.parametrize("url", ["http://127.0.0.1:9", "file:///etc"])
def test_no_prometheus_is_said(url: str) -> None:
    """An address where no Prometheus answers, or that is none, is named."""
    with pytest.raises(ConfigurationError, match=url):
        Prometheus(url).series("up", "", WINDOW)


def test_each_dashboard_is_drawn(recorded: Recorded, tmp_path: Path) -> None:
    """The command writes a picture of each dashboard from the committed JSON."""
    out = tmp_path / "new"
    done = CliRunner().invoke(app, ["--prometheus", recorded.url, "--out", str(out), "--json"])

    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout) == [
        str(out / f"{path.stem}.png") for path in sorted(DASHBOARDS.glob("*.json"))
    ]
    for path in out.iterdir():
        with Image.open(path) as picture:
            assert picture.width > 1000
            assert len(picture.convert("RGB").getcolors(1 << 24) or ()) > 50


def test_picture_of_a_time_that_has_passed(recorded: Recorded, tmp_path: Path) -> None:
    """A window that ended a while ago is asked for as it was."""
    options = ["--out", str(tmp_path), "--minutes", "30", "--ago-minutes", "60"]
    before = time.time()
    done = CliRunner().invoke(app, ["--prometheus", recorded.url, *options])

    assert done.exit_code == 0, done.output
    start, end = (float(recorded.asked[0][name][0]) for name in ("start", "end"))
    assert end - start == pytest.approx(1800)
    assert before - 3600 <= end <= time.time() - 3600


def test_failure_is_one_line(tmp_path: Path) -> None:
    """Without a Prometheus the command says so and exits by 1."""
    done = CliRunner().invoke(app, ["--prometheus", "http://127.0.0.1:9", "--out", str(tmp_path)])

    assert done.exit_code == 1
    assert "no Prometheus answers at http://127.0.0.1:9" in done.output


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0.0123, "percentunit", "1.23 %"),
        (0.0042, "s", "4.2 ms"),
        (12.34, "s", "12.3 s"),
        (1234.0, "reqps", "1,234 /s"),
        (2_500_000.0, "Bps", "2.5 MB/s"),
        (0.0, "short", "0"),
    ],
)
def test_values_are_written_with_their_unit(value: float, unit: str, text: str) -> None:
    """Grafana's units become what people write."""
    assert written(value, unit) == text
