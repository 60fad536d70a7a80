"""The order book examples run as they say they do."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import requests

from grenache_py.testing import Grapes
from tests.harness import Process, eventually

ROOT = Path(__file__).parents[2]


@pytest.fixture
def started() -> Iterator[Callable[..., Process]]:
    """Start a Python script of the project; all end with the test."""
    processes: list[Process] = []

    def start(*argv: str) -> Process:
        processes.append(Process([sys.executable, *argv], cwd=ROOT))
        return processes[-1]

    yield start
    for process in reversed(processes):
        process.stop()


def knows_a_peer(api: str) -> bool:
    """Whether the peer at ``api`` trades with another."""
    health = requests.get(f"{api}/healthz", timeout=10).json()
    return bool(health["markets"]["BTC-USD"]["peers"])


def test_two_peers_and_a_client(started: Callable[..., Process]) -> None:
    with Grapes() as (first, second):
        workers = [
            started("examples/orderbook_worker.py", "--grape", grape, "--name", name, "--api-port", "0")
            for name, grape in (("alice", first.url), ("bob", second.url))
        ]
        apis = []
        for worker in workers:
            line = worker.next_line()
            assert "trades BTC-USD" in line
            apis += ["--api", line.split()[-1]]
        for api in apis[1::2]:
            eventually(lambda api=api: knows_a_peer(api), what=f"{api} finds the other peer")
        client = started("examples/orderbook_client.py", *apis)
        assert client.wait(30) == 0, client.lines
        assert client.lines == [
            "rests at the first peer: 0.5 at 78318.00",
            "traded: 0.2 at 78318.00 with alice",
            "the second order is filled",
            "left of the first order: 0.3",
            "taken back: 0.3",
            "a peer says no: order_closed",
        ]
        assert [worker.stop() for worker in workers] == [0, 0]
