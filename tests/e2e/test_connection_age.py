"""Connections that are ended by age, on a real Triton: polite, and without a lost call."""

import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from sensorium import Client, Retry
from sensorium_server.launch import Server

AGE_S = 0.5
CALLS = 100
MOST_S = 120


def local_ports(server_port: int) -> set[int]:
    """Return the local ports of this process's connections to the server."""
    return {
        each.laddr.port
        for each in psutil.Process().net_connections("tcp")
        if each.raddr and each.raddr.port == server_port
    }


@pytest.mark.triton
def test_clients_connect_anew_and_lose_no_call(
    start_server: Callable[..., Server], toy_repository: Path
) -> None:
    """One client moves from connection to connection, and every call is answered the first time."""
    with start_server(toy_repository, grpc_max_connection_age_s=AGE_S) as running:
        port = int(running.endpoints.grpc.rpartition(":")[2])
        used: set[int] = set()
        answered, begin = 0, time.monotonic()
        with Client(running.endpoints.grpc, retry=Retry(attempts=1)) as client:
            while (answered < CALLS or len(used) < 3) and time.monotonic() - begin < MOST_S:
                client.embed_text("a red star")
                answered += 1
                used |= local_ports(port)

    assert answered >= CALLS
    assert len(used) >= 3
