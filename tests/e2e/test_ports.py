"""Ports that are found free, and taken before Triton has them."""

import socket
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from sensorium_server import launch
from sensorium_server.command import Ports, reserve_ports
from sensorium_server.launch import Server
from sensorium_server.settings import Settings

pytestmark = pytest.mark.triton


def test_port_taken_meanwhile_is_exchanged(
    start_server: Callable[..., Server], toy_repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A port that somebody takes after it was found free costs a second start, and no failure."""
    found = list[Ports]()

    def reserved(settings: Settings) -> Ports:
        found.append(reserve_ports(settings))
        return replace(found[0], http=taken) if len(found) == 1 else found[-1]

    monkeypatch.setattr(launch, "reserve_ports", reserved)
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = other.getsockname()[1]
        with start_server(toy_repository) as server:
            endpoints = server.endpoints

    assert endpoints.http == f"http://127.0.0.1:{found[1].http}"
    assert endpoints.service_metrics == f"http://127.0.0.1:{found[0].service_metrics}/metrics"
