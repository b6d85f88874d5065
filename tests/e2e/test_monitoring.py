"""The whole chain: a real Triton under load, Prometheus, its rules, Alertmanager, a webhook."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from tests.deploy.monitoring.stack import (
    MONITORING,
    PATIENCE_S,
    SCRAPE_INTERVAL_S,
    Webhook,
    alertmanager,
    eventually,
    prometheus,
    webhook,
)
from tests.e2e import picture
from tests.e2e.conftest import Caller

from sensorium._config import address_from_url
from sensorium._transports.base import transport_for
from sensorium.errors import InvalidInputError
from sensorium_server.launch import Server
from series import Prometheus, Window

pytestmark = pytest.mark.triton

ALERT = "SensoriumMediaDecodeErrors"
PAUSE_S = 0.05


@dataclass
class Watched:
    """A server that is asked all the time, and what watches it."""

    prometheus: str
    webhook: Webhook
    broken_pictures: threading.Event = field(default_factory=threading.Event)


@pytest.fixture(scope="module")
def watched(
    start_server: Callable[..., Server],
    toy_repository: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Watched]:
    """Return a server under load with Prometheus, Alertmanager and a webhook behind it."""
    with (
        webhook() as (received, address),
        alertmanager(tmp_path_factory.mktemp("alertmanager"), address) as told,
        start_server(toy_repository) as server,
    ):
        places = server.endpoints
        targets = [urlsplit(url).netloc for url in (places.metrics, places.service_metrics)]
        with prometheus(tmp_path_factory.mktemp("prometheus"), targets, told) as url:
            made = Watched(url, received)
            with load(places.grpc, made.broken_pictures):
                yield made


@contextmanager
def load(grpc: str, broken_pictures: threading.Event) -> Iterator[None]:
    """Ask all tasks all the time; as long as it is told so, about broken pictures too."""
    stop = threading.Event()
    image, text = picture.noise(), b"what color is the star"

    def ask() -> None:
        transport = transport_for(address_from_url(grpc), None, {})
        caller = Caller(transport)
        while not stop.wait(PAUSE_S):
            caller.ask("visual_question_answering", image=image, question=text)
            caller.ask("image_captioning", image=image)
            caller.ask("image_embedding", image=image)
            caller.ask("text_embedding", text=text)
            if broken_pictures.is_set():
                with pytest.raises(InvalidInputError):
                    caller.ask("image_captioning", image=b"no picture")
        transport.close()

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def test_alert_reaches_somebody_and_is_resolved(watched: Watched) -> None:
    """Broken pictures raise an alert at the webhook of tickets; without them it is resolved."""

    def last() -> tuple[str, str] | None:
        notices = watched.webhook.alerts(ALERT)
        return notices[-1] if notices else None

    watched.broken_pictures.clear()
    eventually(lambda: last() in {None, ("ticket", "resolved")}, "the end of an earlier alert")

    watched.broken_pictures.set()
    eventually(lambda: last() == ("ticket", "firing"), "the alert")
    watched.broken_pictures.clear()
    eventually(lambda: last() == ("ticket", "resolved"), "its end")


def test_triton_counts_the_failure_of_a_task_twice(watched: Watched) -> None:
    """The rules halve Triton's count of failed tasks: two for each picture that a stage refused."""
    watched.broken_pictures.set()
    time.sleep(2 * SCRAPE_INTERVAL_S)
    watched.broken_pictures.clear()
    ratio = (
        'sum(nv_inference_request_failure{model="image_captioning"})'
        ' / sum(sensorium_rejected_total{reason="invalid_input"})'
    )

    def is_two() -> bool:
        window = Window(time.time() - 2, time.time(), 1, SCRAPE_INTERVAL_S)
        found = Prometheus(watched.prometheus).series(ratio, "", window)
        return bool(found) and found[0].last == 2

    assert eventually(is_two, ratio)


def test_each_panel_finds_data(watched: Watched) -> None:
    """Each query of each panel finds numbers in a Prometheus that watches a server at work.

    Left out are those that say that they need --request-metrics: Triton 2.51 may crash of it.
    """
    watched.broken_pictures.set()
    missing = {
        f"{path.stem}: {panel['title']}: {target['expr']}"
        for path in (MONITORING / "dashboards").glob("*.json")
        for panel in json.loads(path.read_text())["panels"]
        if "--request-metrics" not in panel.get("description", "")
        for target in panel.get("targets", [])
    }
    end = time.monotonic() + PATIENCE_S
    while missing and time.monotonic() < end:
        window = Window(time.time() - 5, time.time(), 1, SCRAPE_INTERVAL_S)
        source = Prometheus(watched.prometheus)
        missing -= {one for one in missing if source.series(one.split(": ", 2)[2], "", window)}
        time.sleep(SCRAPE_INTERVAL_S)

    assert missing == set()
