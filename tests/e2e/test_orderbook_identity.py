"""Keys and proofs with real peers: who may trade, who is who, and what can be proven after a crash."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from click.testing import CliRunner

from grenache_py import Grape
from orderbook.cli import main
from tests.harness import Process, eventually

MARKET = "BTC-USD"


class Peer:
    """``orderbook peer`` as a process."""

    def __init__(self, name: str, grape: str, options: tuple[str, ...]):
        argv = [sys.executable, "-m", "orderbook", "peer", "--name", name, "--grape", grape, "--ready-json"]
        self.process = Process([*argv, "--api", "127.0.0.1:0", "--host", "127.0.0.1", *options])
        ready = self.process.next_json()["ready"]
        self.api, self.key = ready["api"], ready["key"]

    def others(self) -> list[Any]:
        peers: list[Any] = requests.get(f"{self.api}/peers", timeout=10).json()["peers"]
        return peers

    def meets(self, *names: str) -> None:
        def met() -> bool:
            return {peer["name"] for peer in self.others() if peer["refused"] is None} >= set(names)

        eventually(met, 20.0, f"{self.api} to meet {names}")

    def refuses(self, reason: str) -> None:
        """Wait until it says of somebody why they do not trade."""
        eventually(lambda: any(reason in (peer["refused"] or "") for peer in self.others()), 20.0, reason)

    def submit(self, side: str, price: str, quantity: str, owner: str) -> Any:
        order = {"market": MARKET, "side": side, "price": price, "quantity": quantity, "owner": owner}
        return requests.post(f"{self.api}/orders", json=order, timeout=10).json()


def run(*arguments: str) -> Any:
    result = CliRunner().invoke(main, [*arguments, "--json"])
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


@pytest.fixture
def started() -> Iterator[Callable[..., Peer]]:
    """``started("alice", "--open")``: a peer on a Grape of the test."""
    peers: list[Peer] = []
    with Grape(dht_port=0, api_port=0, host="127.0.0.1") as grape:

        def start(name: str, *options: str) -> Peer:
            peers.append(Peer(name, grape.url, options))
            return peers[-1]

        yield start
        for peer in peers:
            peer.process.stop()


def test_only_allowed_keys_trade_and_both_can_prove_it(started: Callable[..., Peer], tmp_path: Path) -> None:
    keys = {name: run("keygen", "--out", str(tmp_path / f"{name}.key"))["key"] for name in ("alice", "bob")}
    friends = tmp_path / "friends"
    friends.write_text("".join(f"{name}={key}\n" for name, key in keys.items()))

    def options(name: str) -> tuple[str, ...]:
        return (
            "--key",
            str(tmp_path / f"{name}.key"),
            "--allow",
            str(friends),
            "--journal",
            str(tmp_path / name),
        )

    alice, bob = started("alice", *options("alice")), started("bob", *options("bob"))
    assert (alice.key, bob.key) == (keys["alice"], keys["bob"])
    mallory = started("mallory")
    alice.meets("bob")
    bob.meets("alice")
    mallory.refuses(f"key {mallory.key} is not among those that this peer allows")
    alice.refuses(f"key {mallory.key} is not among those")
    assert {peer["name"]: peer["key"] for peer in bob.others() if peer["name"]} == {"alice": alice.key}

    alice.submit("sell", "100.00", "5", "ann")
    assert mallory.submit("buy", "100.00", "5", "mal")["order"]["status"] == "open"
    (trade,) = bob.submit("buy", "100.00", "2", "ben")["trades"]
    bob.process.kill()
    bob = started("bob", *options("bob"))
    for api in (alice.api, bob.api):
        said = run("verify-trade", trade["match_id"], "--api", api)
        (proven,) = said["trades"]
        assert proven.items() <= trade.items()
        assert said["maker"] == {"name": "alice", "key": alice.key}
        assert said["taker"] == {"name": "bob", "key": keys["bob"]}
    local = requests.get(f"{alice.api}/trades/none/proof", timeout=10)
    assert (local.status_code, local.json()["error"]["code"]) == (404, "unknown_proof")


def test_a_name_has_one_key_and_a_kept_one_survives(started: Callable[..., Peer], tmp_path: Path) -> None:
    alice, bob = started("alice", "--journal", str(tmp_path / "alice")), started("bob")
    bob.meets("alice")
    double = started("alice")
    assert double.key != alice.key
    double.refuses(f"alice is the name of another key, {alice.key}")
    bob.refuses(f"alice is the name of another key, {alice.key}")
    double.process.stop()
    alice.process.kill()
    again = started("alice", "--journal", str(tmp_path / "alice"))
    assert again.key == alice.key
    again.meets("bob")
    bob.meets("alice")
