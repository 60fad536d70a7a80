"""The ``orderbook`` command with real peers: two processes on two embedded Grapes."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from grenache_py.testing import Grapes
from orderbook.cli import main
from tests.harness import Process, eventually


class Peers:
    """Two peers, alice and bob; commands run in this process."""

    def __init__(self, alice: Process, bob: Process):
        self.processes = (alice, bob)
        self.alice, self.bob = (process.next_json()["ready"]["api"] for process in self.processes)
        self.both = ("--api", self.alice, "--api", self.bob)

    def run(self, *arguments: str) -> Result:
        return CliRunner().invoke(main, arguments)

    def json(self, *arguments: str) -> Any:
        result = self.run(*arguments, "--json")
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)


@pytest.fixture(scope="module")
def peers() -> Iterator[Peers]:
    with Grapes() as (first, second):
        command = [sys.executable, "-m", "orderbook", "peer", "--api", "127.0.0.1:0", "--host", "127.0.0.1"]
        processes = [
            Process([*command, "--name", name, "--grape", grape, "--ready-json"])
            for name, grape in (("alice", first.url), ("bob", second.url))
        ]
        try:
            peers = Peers(*processes)
            for api in (peers.alice, peers.bob):
                eventually(
                    lambda api=api: any(peer["name"] for peer in peers.json("peers", "--api", api)["peers"]),
                    what=f"{api} finds the other",
                )
            yield peers
            statuses = [process.stop() for process in processes]
            assert statuses == [0, 0], "they end in good order"
        finally:
            for process in processes:
                process.stop()


def test_an_order_at_one_peer_trades_with_one_at_the_other(peers: Peers) -> None:
    sell = peers.json("submit", "sell", "0.5", "100.00", "--owner", "ann", "--api", peers.alice)["order"]
    assert sell["status"] == "open"
    assert peers.json("book", "--api", peers.alice)["asks"] == [["100.00", "0.5"]]

    placed = peers.json("submit", "buy", "0.2", "101.00", "--owner", "ben", "--api", peers.bob)
    assert placed["order"]["status"] == "filled"
    [trade] = placed["trades"]
    assert (trade["price"], trade["quantity"], trade["maker_peer"]) == ("100.00", "0.2", "alice")
    [fill] = trade.pop("fills")
    assert (fill["role"], fill["side"], fill["owner"]) == ("taker", "buy", "ben")
    for api, role in ((peers.alice, "maker"), (peers.bob, "taker")):
        [kept] = [
            each for each in peers.json("trades", "--api", api)["trades"] if each.items() >= trade.items()
        ]
        assert [fill["role"] for fill in kept["fills"]] == [role], "both keep the same record"

    [listed] = peers.json("orders", "--status", "partially_filled", "--api", peers.alice)["orders"]
    assert (listed["id"], listed["open"], listed["filled"]) == (sell["id"], "0.3", "0.2")

    assert "cancelled" in peers.run("cancel", sell["id"], "--api", peers.alice).stdout
    again = peers.run("cancel", sell["id"], "--api", peers.alice)
    assert again.exit_code == 1
    assert "cancelled already" in again.stderr


def test_one_of_a_pair_trades_with_another_peer_and_cancels_the_other(peers: Peers) -> None:
    sell = ("pair", "sell", "0.5", "300.00", "20.00", "--owner", "sue", "--client-order-id", "oco")
    placed = peers.json(*sell, "--api", peers.alice)
    resting, stop = placed["resting"]["order"], placed["stop"]["order"]
    assert (resting["status"], stop["status"]) == ("open", "untriggered")
    assert (resting["partner"], stop["partner"]) == (stop["id"], resting["id"])
    assert peers.json(*sell, "--api", peers.alice) == placed, "the same names are the same pair"

    bought = peers.json("submit", "buy", "0.1", "300.00", "--owner", "ben", "--api", peers.bob)
    assert bought["order"]["status"] == "filled"
    listed = peers.json("orders", "--status", "cancelled", "--api", peers.alice)["orders"]
    assert [(order["id"], order["reason"]) for order in listed if order["owner"] == "sue"] == [
        (stop["id"], "partner")
    ]
    peers.json("cancel", resting["id"], "--api", peers.alice)

    result = peers.run("pair", "sell", "0", "300.00", "20.00", "--owner", "sue", "--api", peers.alice)
    assert result.exit_code == 1
    assert "Error: resting.quantity must be more than zero" in result.stderr


def test_quotes_are_set_at_once_and_trade_with_another_peer(peers: Peers) -> None:
    def quote(*rows: str) -> Any:
        return peers.json("quote", *rows, "--owner", "mia", "--api", peers.alice)["orders"]

    bid, ask = quote("--bid", "b", "0.5", "400.00", "--ask", "a", "0.5", "401.00")
    bought = peers.json("submit", "buy", "0.2", "401.00", "--owner", "ben", "--api", peers.bob)
    assert bought["order"]["status"] == "filled"
    moved, again = quote("--bid", "b", "0.5", "399.00", "--ask", "a", "0.5", "401.00")
    assert (moved["id"], moved["price"]) == (bid["id"], "399.00")
    assert (again["id"], again["open"], again["filled"]) == (ask["id"], "0.5", "0.2")

    crossed = ("quote", "--bid", "b", "0.5", "402.00", "--ask", "a", "0.5", "401.00", "--owner", "mia")
    result = peers.run(*crossed, "--api", peers.alice)
    assert result.exit_code == 1
    assert "the bids of a mass quote must be below its asks" in result.stderr
    assert [order["status"] for order in quote("--bid", "b", "0", "1.00", "--ask", "a", "0", "1.00")] == [
        "cancelled",
        "cancelled",
    ]


def test_a_peer_whose_market_is_halted_trades_with_nobody_until_it_is_opened(peers: Peers) -> None:
    sell = peers.json("submit", "sell", "0.5", "500.00", "--owner", "ann", "--api", peers.alice)["order"]
    halted = peers.json("state", "halted", "--by", "ops", "--api", peers.alice)
    assert halted["state"] == "halted"
    refused = peers.run("submit", "sell", "0.5", "500.00", "--owner", "ann", "--api", peers.alice)
    assert "Error: the market is halted" in refused.stderr
    assert "the market is halted" in peers.run("cancel", sell["id"], "--api", peers.alice).stderr
    bid = peers.json("submit", "buy", "0.2", "500.00", "--owner", "ben", "--api", peers.bob)["order"]
    assert bid["status"] == "open"

    assert "is open" in peers.run("state", "open", "--by", "ops", "--api", peers.alice).stdout
    eventually(
        lambda: (
            bid["id"]
            in [o["id"] for o in peers.json("orders", "--status", "filled", "--api", peers.bob)["orders"]]
        ),
        what="what crosses meets when the market is open again",
    )
    peers.json("cancel", sell["id"], "--api", peers.alice)


def test_a_book_is_followed_as_it_changes(peers: Peers) -> None:
    command = [sys.executable, "-m", "orderbook", "book", "--follow", "--json", "--api", peers.alice]
    follower = Process(command)
    try:
        first = follower.next_json()
        sell = peers.json("submit", "sell", "0.5", "600.00", "--owner", "ann", "--api", peers.alice)["order"]
        assert follower.next_json() == {**first, "asks": [*first["asks"], ["600.00", "0.5"]]}
        peers.json("cancel", sell["id"], "--api", peers.alice)
        assert follower.next_json() == first
    finally:
        status = follower.stop()
    assert status == 0


def test_tables_for_people(peers: Peers) -> None:
    placed = peers.run("submit", "buy", "1.25", "50.00", "--owner", "ann", "--api", peers.bob)
    assert placed.exit_code == 0
    assert "1.25" in peers.run("book", "--api", peers.bob).stdout
    assert "ann" in peers.run("orders", "--api", peers.bob).stdout
    assert "alice" in peers.run("peers", "--api", peers.bob).stdout
    assert peers.run("trades", "--api", peers.bob).exit_code == 0


def test_a_wrong_order_is_refused_with_field_and_rule(peers: Peers) -> None:
    result = peers.run("submit", "buy", "1", "0.001", "--owner", "ann", "--api", peers.bob)
    assert result.exit_code == 1
    assert "Error: price must be a multiple of 0.01" in result.stderr


def test_flow_is_replayed_and_reconciled(peers: Peers, tmp_path: Path) -> None:
    flow = tmp_path / "flow.csv.gz"
    assert peers.run("flow", "--rows", "400", "--seed", "11", "--output", str(flow)).exit_code == 0
    counts = peers.json("replay", str(flow), *peers.both, "--window", "16")
    assert counts["rows"] == 400
    assert counts["accepted"] == counts["submitted"] > 200
    assert counts["rejected"] == {}

    report = peers.json("reconcile", *peers.both)
    assert report["ok"]
    assert report["orders"] >= counts["accepted"]
    assert report["cross_peer_trades"] > 0
    assert report["local_trades"] > 0
    assert report["unchecked"] == 0
    assert "All books agree: 2 peers" in peers.run("reconcile", *peers.both).stdout

    alone = peers.run("reconcile", "--api", peers.alice, "--timeout", "5")
    assert alone.exit_code == 1
    assert "reachable: peer bob at bob: trades name it; ask it too" in alone.stdout
