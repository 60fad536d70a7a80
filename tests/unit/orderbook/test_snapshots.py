"""Waiting for peers to come to rest, and reading them."""

from __future__ import annotations

import time
from contextlib import AsyncExitStack
from typing import Any

import msgspec
import pytest
from aiohttp import web

from orderbook.audit import snapshots
from orderbook.audit.snapshots import reconcile, what_moves
from orderbook.client import Client, PeerFailedError
from orderbook.records import Health
from tests.unit.orderbook.fake_api import QUIET, FakePeer, fake_peers, order_record, trade_record


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshots, "POLL_S", 0.001)


def health(peer: str = "alice", market: str = "BTC-USD", **fields: Any) -> Health:
    figures = {"status": "ok", "peer": peer, "markets": {market: {**QUIET, **fields}}}
    return msgspec.convert(figures, Health)


def test_what_is_at_rest_does_not_move() -> None:
    assert what_moves([]) == []
    assert what_moves([health(best_bid="9.99"), health("bob", best_ask="10.00")]) == []


def test_what_moves_is_named_and_added_up() -> None:
    figures = [health(under_way=1, in_doubt=2), health("bob", under_way=3, reservations=1)]
    assert what_moves(figures) == ["4 under way", "2 in doubt", "1 reservations"]


def test_prices_cross_only_within_a_market() -> None:
    bid, ask = health(best_bid="10.00"), health("bob", best_ask="9.0")
    assert what_moves([bid, ask]) == ["crossing prices in BTC-USD"]
    assert what_moves([bid, health("bob", "ETH-USD", best_ask="9.0")]) == []
    assert what_moves([bid, health("bob", best_ask="10.00")]) == ["crossing prices in BTC-USD"], (
        "equal ones too"
    )
    assert what_moves([bid, health("bob", best_ask="odd")]) == ["crossing prices in BTC-USD"]


class Scripted:
    """Answers ``/healthz`` with one entry of ``figures`` after the other; the last one stays."""

    def __init__(self, peer: FakePeer, *figures: dict[str, Any]):
        self._peer = peer
        self._figures = list(figures)

    async def __call__(self, request: web.Request) -> None:
        if request.path == "/healthz":
            now = self._figures.pop(0) if len(self._figures) > 1 else self._figures[0]
            self._peer.markets["BTC-USD"] = {**QUIET, **now}


async def test_a_network_at_rest_is_read_and_checked() -> None:
    async with fake_peers("alice", "bob") as peers, AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(Client(peer.api)) for peer in peers]
        peers[0].orders = {"o1": order_record("o1")}
        peers[0].markets["BTC-USD"] |= {"best_bid": "10.00"}
        report = await reconcile(clients)
        assert report.ok
        assert (report.peers, report.orders) == (2, 1)


async def test_it_waits_until_nothing_moves_and_says_for_what() -> None:
    said: list[str] = []
    async with fake_peers("alice") as [peer], Client(peer.api) as client:
        peer.before = Scripted(peer, {"under_way": 2}, {"reservations": 1}, {"in_doubt": 1}, {})
        report = await reconcile([client], progress=said.append)
        assert report.ok
        assert said == ["waiting for 2 under way", "waiting for 1 reservations", "waiting for 1 in doubt"]


async def test_what_changes_while_it_is_read_is_read_again() -> None:
    async with fake_peers("alice") as [peer], Client(peer.api) as client:
        still, later = {"orders": 1}, {"orders": 2}
        peer.before = Scripted(peer, still, still, still, later)
        assert (await reconcile([client])).ok
        reads = [path for _, path in peer.log if path == "/orders"]
        assert len(reads) == 2


async def test_findings_are_reported_when_they_are_still_there() -> None:
    said: list[str] = []
    async with fake_peers("alice") as [peer], Client(peer.api) as client:
        peer.trades = [trade_record(time=time.time_ns() // 1_000_000)]
        report = await reconcile([client], progress=said.append)
        assert report.broken() == {"fills": 2}
        assert said == ["something does not fit: reading everything once more"]


async def test_findings_that_go_away_are_not_reported() -> None:
    async with fake_peers("alice") as [peer], Client(peer.api) as client:
        peer.trades = [trade_record(time=time.time_ns() // 1_000_000)]

        def progress(text: str) -> None:
            peer.trades.clear()

        assert (await reconcile([client], progress=progress)).ok


async def test_a_network_that_does_not_come_to_rest_is_checked_all_the_same() -> None:
    async with fake_peers("alice") as [peer], Client(peer.api) as client:
        peer.markets["BTC-USD"] |= {"in_doubt": 1}
        report = await reconcile([client], timeout_s=0.05)
        assert [(finding.rule, finding.text) for finding in report.findings] == [("at_rest", "1 in doubt")]


async def test_all_markets_of_a_peer_are_read() -> None:
    async with fake_peers("alice") as [peer], Client(peer.api) as client:
        peer.markets["ETH-USD"] = {**QUIET, "best_bid": "10.00"}
        peer.orders = {"o1": order_record("o1", market="ETH-USD")}
        report = await reconcile([client])
        assert report.findings == []
        assert report.orders == 1


async def test_a_peer_that_fails_is_an_error() -> None:
    async def fail(request: web.Request) -> web.Response | None:
        return web.Response(text="oops", status=500) if request.path == "/trades" else None

    async with fake_peers("alice", "bob") as peers, AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(Client(peer.api)) for peer in peers]
        peers[1].before = fail
        with pytest.raises(PeerFailedError) as caught:
            await reconcile(clients)
        assert caught.value.api == peers[1].api
