"""Real processes, real Grapes of both kinds, and ``kill -9`` in the middle of trading."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
import requests

from grenache_py import Grape
from tests.harness import Process, eventually
from tests.node_grapes import NodeGrape

MARKET = "BTC-USD"


class PeerProcess:
    """``orderbook peer`` with a journal; it can be killed and started again."""

    def __init__(self, name: str, grape: str, journals: Path):
        self.name = name
        self._grape = grape
        self._journals = journals / name
        self.start()

    def start(self) -> None:
        argv = [sys.executable, "-m", "orderbook", "peer", "--name", self.name, "--grape", self._grape]
        argv += ["--market", MARKET, "--api", "127.0.0.1:0", "--host", "127.0.0.1"]
        argv += ["--journal", str(self._journals), "--ready-json"]
        self.process = Process(argv)
        self.url: str = self.process.next_json()["ready"]["api"]

    def get(self, path: str) -> Any:
        return requests.get(self.url + path, timeout=10).json()

    @property
    def market(self) -> Any:
        return self.get("/healthz")["markets"][MARKET]


@pytest.fixture
def grapes(node_grape: Callable[..., NodeGrape]) -> Iterator[list[str]]:
    """A Node Grape and one of ours in one network."""
    node = node_grape()
    with Grape(dht_port=0, api_port=0, host="127.0.0.1", bootstrap=[node.dht_address]) as ours:
        yield [node.url, ours.url]


@pytest.fixture
def peers(grapes: list[str], tmp_path: Path) -> Iterator[list[PeerProcess]]:
    started = [PeerProcess(name, grapes[n % 2], tmp_path) for n, name in enumerate(("alice", "bob", "carol"))]
    for peer in started:
        eventually(lambda peer=peer: peer.market["peers"] == 2, 30.0, "the peers to meet")
    yield started
    for peer in started:
        peer.process.stop()


class Trader(threading.Thread):
    """Submits orders that cross, at one peer, as fast as it answers, until told to stop."""

    def __init__(self, peer: PeerProcess, seed: int):
        super().__init__(daemon=True)
        self._peer = peer
        self._random = Random(seed)
        self._stopped = threading.Event()
        self.told: dict[str, Any] = {}
        self.count = 0

    def run(self) -> None:
        while not self._stopped.is_set():
            self.count += 1
            order = {
                "market": MARKET,
                "side": self._random.choice(("buy", "sell")),
                "price": str(self._random.randint(99, 101)),
                "quantity": str(self._random.randint(1, 5)),
                "owner": f"{self._peer.name}{self.count}",
            }
            try:
                answer = requests.post(self._peer.url + "/orders", json=order, timeout=10)
            except requests.RequestException:
                self._stopped.wait(0.02)  # it is down
                continue
            if answer.status_code == 201:
                told = answer.json()["order"]
                self.told[told["id"]] = told

    def stop(self) -> None:
        self._stopped.set()
        self.join(30)


def test_kill_9_of_makers_and_takers_loses_and_doubles_nothing(peers: list[PeerProcess]) -> None:
    traders = [Trader(peer, seed) for seed, peer in enumerate(peers)]
    for trader in traders:
        trader.start()
    for round, victim in enumerate([0, 1, 2, 0, 1]):
        peer, trader = peers[victim], traders[victim]
        enough = len(trader.told) + 15
        eventually(lambda trader=trader, n=enough: len(trader.told) >= n, 30.0, f"trading, round {round}")
        peer.process.kill()
        peer.start()
    for trader in traders:
        trader.stop()
    reconcile = [sys.executable, "-m", "orderbook", "reconcile", "--json"]
    for peer in peers:
        reconcile += ["--api", peer.url]
    result = subprocess.run(reconcile, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stdout + result.stderr
    assert sum(peer.market["cross_peer_trades"] for peer in peers) > 0
    for peer, trader in zip(peers, traders, strict=True):
        for id, told in trader.told.items():
            now = peer.get(f"/orders/{id}")["order"]
            assert float(now["filled"]) >= float(told["filled"]), f"acknowledged {told}, and now {now}"


def test_a_peer_says_why_it_can_not_start(
    peers: list[PeerProcess], grapes: list[str], tmp_path: Path
) -> None:
    argv = [sys.executable, "-m", "orderbook", "peer", "--name", "alice", "--grape", grapes[0]]
    argv += ["--api", "127.0.0.1:0", "--journal", str(tmp_path / "alice")]
    second = subprocess.run(argv, capture_output=True, text=True, timeout=60)
    assert second.returncode == 1
    assert "in use by another process: stop it first" in second.stderr
    assert json.dumps(peers[0].get("/healthz")["status"]) == '"ok"'
