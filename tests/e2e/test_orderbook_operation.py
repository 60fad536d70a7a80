"""What an operator sees of a peer: its lock table, its figures, the reasons of what it refuses."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import pytest

from grenache_py import Grape
from grenache_py.aio import Link
from orderbook import limits
from orderbook.api import Api
from orderbook.client import Client
from orderbook.entry import NewOrder
from orderbook.envelopes import plain, request
from orderbook.errors import OrderBookError
from orderbook.messages import CrossPeerMatch, Goodbye, OfferedFill, ReleaseLock
from orderbook.model import Instrument
from orderbook.worker import Worker
from tests.harness import until

MARKET = "BTC-USD"


class Observed:
    """A peer in a market of its own, strangers that talk to it, and its client API."""

    def __init__(self, worker: Worker, api: str):
        self.worker = worker
        self.api = api
        self._hosted = worker.markets[MARKET]

    def ask(self, payload: Any) -> Any:
        answers: list[Any] = []
        self._hosted.carrier.serve(plain(payload), answers.append)
        return plain(answers[0])

    def announce(self, sender: str, quantity: str, order_id: str = "theirs") -> Any:
        order = {"id": order_id, "market": MARKET, "side": "buy", "price": "100", "quantity": quantity}
        return self.ask({"type": "AnnounceOpenOrder", "from": sender, "payload": {"order": order}})

    def confirm(self, sender: str, match_id: str, offer: Any) -> Any:
        fills = [OfferedFill(**fill) for fill in offer["fills"]]
        return self.ask(request(sender, CrossPeerMatch(match_id, offer["lock_id"], fills)))

    async def counted(self) -> dict[str, float]:
        """Metrics by name and reason."""
        async with aiohttp.ClientSession() as http, http.get(f"{self.api}/metrics") as response:
            assert response.content_type == "text/plain"
            lines = (await response.text()).splitlines()
        found: dict[str, float] = {}
        for line in lines:
            if not line.startswith("#"):
                name, _, value = line.rpartition(" ")
                kind, _, labels = name.partition("{")
                reason = labels.partition('reason="')[2].partition('"')[0]
                found[f"{kind} {reason}".strip()] = float(value)
        return found


@pytest.fixture
async def alice() -> AsyncIterator[Observed]:
    with Grape(dht_port=0, api_port=0, host="127.0.0.1") as grape:
        async with (
            Link(grape.url) as link,
            Worker(link, "alice", [Instrument(MARKET)], host="127.0.0.1", unsigned=True) as worker,
            Api(worker) as api,
        ):
            await worker.submit(MARKET, NewOrder("sell", "100", "5", "ann"))
            yield Observed(worker, api.url)


async def test_a_peer_does_not_ask_itself(caplog: pytest.LogCaptureFixture) -> None:
    """Look-ups find it as well, and an unsigned heartbeat in its own name might be a stranger's."""
    with Grape(dht_port=0, api_port=0, host="127.0.0.1") as grape:
        async with (
            Link(grape.url) as link,
            Worker(link, "alice", [Instrument(MARKET)], unsigned=True, signs=False) as worker,
        ):
            assert await link.lookup(f"orderbook:{MARKET}", fresh=True) == [f"127.0.0.1:{worker.port}"]
            await worker.markets[MARKET]._look_up()
            assert worker.market(MARKET).roster.all() == []
    assert "name of this peer" not in caplog.text


async def test_the_lock_table(alice: Observed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "LEASE_S", 60.0)  # longer than a command takes to start on a busy machine
    async with Client(alice.api) as client:
        assert await client.reservations() == []
        offer = alice.announce("bob", "2")
        alice.announce("carol", "1", "hers")
        first, second = await client.reservations(market=MARKET)
        assert (first.peer, first.for_order, first.lock_id) == ("bob", "theirs", offer["lock_id"])
        assert 0 < first.expires_in_s <= second.expires_in_s <= limits.LEASE_S
        [fill] = first.fills
        assert (fill.side, fill.price, fill.quantity) == ("sell", "100.00", "2")
        assert (second.peer, second.fills[0].quantity) == ("carol", "1")

        argv = [sys.executable, "-m", "orderbook", "reservations", "--api", alice.api]
        command = await asyncio.create_subprocess_exec(*argv, stdout=asyncio.subprocess.PIPE)
        shown, _ = await command.communicate()
        assert command.returncode == 0
        assert b"bob" in shown
        assert offer["lock_id"].encode() in shown

        alice.ask(request("bob", ReleaseLock(offer["lock_id"])))
        alice.ask(request("carol", Goodbye()))
        assert await client.reservations() == []


async def test_every_refusal_and_every_end_of_a_reservation_is_counted_by_its_reason(
    alice: Observed, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = await alice.counted()
    assert before["orderbook_open_orders"] == 1
    assert before["orderbook_reservations_ended_total committed"] == 0, "there from the start"

    offer = alice.announce("bob", "1")
    assert alice.confirm("bob", "m1", offer)["status"] == "committed"
    assert alice.confirm("bob", "m1", offer)["status"] == "committed"
    assert alice.confirm("bob", "m2", offer)["reason"].startswith("lock_gone: ")
    offer = alice.announce("bob", "1", "second")
    wrong = {**offer, "fills": [{**offer["fills"][0], "quantity": "2"}]}
    assert alice.confirm("bob", "m3", wrong)["reason"].startswith("not_reserved: ")
    offer = alice.announce("bob", "1", "third")
    alice.ask(request("bob", ReleaseLock(offer["lock_id"])))
    alice.announce("bob", "1", "fourth")
    alice.ask(request("bob", Goodbye()))
    monkeypatch.setattr(limits, "LEASE_S", 0.01)
    alice.announce("carol", "4")
    assert alice.announce("dave", "1") == {"contended": True, "from": "alice"}
    await until(lambda: not alice.worker.markets[MARKET].market.book.reservations, 10.0, "the lease")
    monkeypatch.setattr(limits, "RESERVATIONS", 0)
    alice.announce("dave", "1")
    with pytest.raises(OrderBookError):
        alice.ask({"type": "Nonsense", "from": "eve", "payload": {}})

    after = await alice.counted()
    expected = {
        "orderbook_announcements_total offered": 5,
        "orderbook_announcements_total contended": 1,
        "orderbook_announcements_total full": 1,
        "orderbook_confirmations_received_total committed": 1,
        "orderbook_confirmations_received_total repeated": 1,
        "orderbook_confirmations_received_total lock_gone": 1,
        "orderbook_confirmations_received_total not_reserved": 1,
        "orderbook_reservations_ended_total committed": 1,
        "orderbook_reservations_ended_total refused": 1,
        "orderbook_reservations_ended_total released": 1,
        "orderbook_reservations_ended_total left": 1,
        "orderbook_reservations_ended_total expired": 1,
        "orderbook_requests_refused_total protocol": 1,
    }
    changed = {name: value for name, value in after.items() if value != before[name]}
    assert {name: changed.get(name) for name in expected} == expected
    assert after["orderbook_trades_total"] == 1
    assert after["orderbook_journal_trouble"] == after["orderbook_journal_events_waiting"] == 0


async def test_trades_that_have_left_the_memory_are_read_from_the_journal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Grape(dht_port=0, api_port=0, host="127.0.0.1") as grape:
        async with Link(grape.url) as link:
            worker = Worker(link, "alice", [Instrument(MARKET)], host="127.0.0.1", journals=tmp_path)
            async with worker, Api(worker) as api, Client(api.url) as client:
                ledger = worker.market(MARKET).ledger
                ledger._trades_in_memory = 3
                resting = await client.submit(MARKET, "sell", "20", "100", "ann")
                for _ in range(10):
                    await client.submit(MARKET, "buy", "1", "100", "ben")
                await until(lambda: ledger.dropped == 7, 10.0, "the heartbeat")
                for limit in (2, 4, 100):
                    monkeypatch.setattr(limits, "PAGE_DEFAULT", limit)
                    pages = [trade async for trade in client.trades(market=MARKET)]
                    assert len({trade.match_id for trade in pages}) == len(pages) == 10, "none twice, no gap"
                placed = await client.order(resting.order.id)
                assert placed.trades == pages
            again = Worker(link, "alice", [Instrument(MARKET)], host="127.0.0.1", journals=tmp_path)
            async with again, Api(again) as api, Client(api.url) as client:
                assert [trade async for trade in client.trades(market=MARKET)] == pages
                assert (await client.order(resting.order.id)).trades == pages


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("evil.example", 403),
        ("127.0.0.1.evil.example", 403),
        ("[", 403),
        ("localhost", 200),
        ("LocalHost", 200),
        ("[::1]", 200),
    ],
)
async def test_a_page_whose_name_leads_here_by_now_can_not_trade(
    alice: Observed, host: str, status: int
) -> None:
    """To a browser it is of our origin (DNS rebinding), and it may also read."""
    port = urlsplit(alice.api).port
    headers = {"Host": f"{host}:{port}"}
    async with aiohttp.ClientSession(alice.api) as http:
        async with http.get("/orders", headers=headers) as response:
            assert response.status == status
        headers["Origin"] = f"http://{host}:{port}"
        order = {"market": MARKET, "side": "sell", "quantity": "1", "price": "9", "owner": "ann"}
        async with http.post("/orders", json=order, headers=headers) as response:
            assert response.status == (201 if status == 200 else 403)
