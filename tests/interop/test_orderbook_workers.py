"""Order book workers over a real Node Grape, in one process: placed at one peer, filled at another."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack
from typing import Any

import aiohttp
import pytest

from grenache_py.aio import Link
from orderbook import limits
from orderbook.api import Api
from orderbook.client import Client, RefusedError
from orderbook.effects import Question
from orderbook.entry import NewOrder
from orderbook.errors import UnknownMarketError
from orderbook.model import Instrument, Order, OrderStatus
from orderbook.records import Placed, ProofRecord
from orderbook.selection import OfferFill
from orderbook.signing import proofs
from orderbook.signing.proofs import Party, Proof
from orderbook.signing.seals import Sealed
from orderbook.under_way import Confirmation
from orderbook.worker import Worker
from tests.harness import until

MARKET = "BTC-USD"

# On either event loop: peers run on uvloop where it is installed.
pytestmark = pytest.mark.asyncio(loop_factories=["asyncio", "uvloop"])


@pytest.fixture
async def start_worker(node_grapes: Any) -> AsyncIterator[Callable[..., Any]]:
    """``await start_worker("alice")``: a worker on the network of two Node Grapes."""
    async with AsyncExitStack() as stack:
        grapes = iter(node_grapes * 10)

        async def start(name: str, instrument: Instrument | None = None) -> Worker:
            link = await stack.enter_async_context(Link(next(grapes).url))
            worker = Worker(link, name, [instrument or Instrument(MARKET)], host="127.0.0.1")
            return await stack.enter_async_context(worker)

        yield start


async def meet(*workers: Worker) -> None:
    """Wait until each knows all others."""
    for worker in workers:
        roster = worker.market(MARKET).roster
        await until(
            lambda roster=roster: len(roster.trading()) == len(workers) - 1, 20.0, "the peers to meet"
        )


async def submit(worker: Worker, side: str, price: str, quantity: str, owner: str = "owner") -> Order:
    return await worker.submit(MARKET, NewOrder(side, price, quantity, owner))


async def test_an_order_placed_at_one_peer_fills_at_another(start_worker: Callable[..., Any]) -> None:
    alice, bob = await start_worker("alice"), await start_worker("bob")
    await meet(alice, bob)
    resting = await submit(alice, "sell", "78318.00", "0.5")
    assert resting.status is OrderStatus.OPEN
    taking = await submit(bob, "buy", "78320.00", "0.2")
    assert taking.status is OrderStatus.FILLED
    assert resting.status is OrderStatus.PARTIALLY_FILLED
    theirs = bob.market(MARKET).ledger.trades_of_order(taking.id)
    assert theirs == alice.market(MARKET).ledger.trades_of_order(resting.id)
    (trade,) = theirs
    assert (trade.maker_peer, trade.taker_peer) == ("alice", "bob")
    assert alice.market(MARKET).record(trade).price == "78318.00"
    assert alice.market(MARKET).record(trade).quantity == "0.2"


async def test_peers_talk_over_a_line_and_do_without_it(
    start_worker: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "LINE_RETRY_S", 0.0)
    alice, bob = await start_worker("alice"), await start_worker("bob")
    await meet(alice, bob)
    hosted, destination = bob.markets[MARKET], f"127.0.0.1:{alice.port}"
    line = await until(lambda: hosted.carrier.lines.get(destination), what="a line, since they have met")
    await submit(alice, "sell", "100.00", "5")
    over_http: list[str] = []
    ask_over_http = hosted._ask_over_http

    def noted(effect: Question, request: Sealed) -> Coroutine[Any, Any, None]:
        over_http.append(type(effect).__name__)
        return ask_over_http(effect, request)

    monkeypatch.setattr(hosted, "_ask_over_http", noted)
    assert (await submit(bob, "buy", "100.00", "1")).status is OrderStatus.FILLED
    assert over_http == []
    line._channel.abort()
    await until(lambda: hosted.carrier.lines.get(destination) is not line, what="the end of the line")
    assert (await submit(bob, "buy", "100.00", "1")).status is OrderStatus.FILLED
    await until(lambda: hosted.carrier.lines.get(destination), what="another line")
    assert "Announce" in over_http


async def test_peers_that_sign_have_a_session_and_do_without_it(start_worker: Callable[..., Any]) -> None:
    alice, bob = await start_worker("alice"), await start_worker("bob")
    await meet(alice, bob)
    await submit(alice, "sell", "100.00", "5")
    await submit(bob, "buy", "100.00", "1")
    hosted, destination = bob.markets[MARKET], f"127.0.0.1:{alice.port}"
    line = await until(lambda: hosted.carrier.lines.get(destination), what="a line, since they have met")
    assert line.session is not None
    assert (line.session.name, line.session.key) == ("alice", alice.key)
    order = await submit(bob, "buy", "100.00", "1")
    assert order.status is OrderStatus.FILLED
    line.session.wrap(b"a frame that is lost")
    altered = await submit(bob, "buy", "100.00", "1")
    await until(lambda: hosted.carrier.lines.get(destination) is None, what="the end of the line")
    unaltered = await submit(bob, "buy", "100.00", "1")
    assert unaltered.status is OrderStatus.FILLED, "messages are signed instead"
    assert hosted.carrier.lines.get(destination) is None, "and no other session is opened at once"
    for each in (order, unaltered):
        (trade,) = bob.market(MARKET).ledger.trades_of_order(each.id)
        kept = await bob.signed(trade.match_id)
        proven = proofs.check(Proof(kept.request, kept.answer))
        assert (proven.maker, proven.taker) == (Party("alice", alice.key), Party("bob", bob.key))
        assert (await alice.signed(trade.match_id)).request == kept.request
    assert altered.filled in (0, altered.quantity)


async def test_one_order_combines_several_peers_best_price_first(start_worker: Callable[..., Any]) -> None:
    alice, bob, carol = [await start_worker(name) for name in ("alice", "bob", "carol")]
    await meet(alice, bob, carol)
    dear = await submit(alice, "sell", "102", "1")
    cheap = await submit(bob, "sell", "101", "1")
    taking = await submit(carol, "buy", "103", "1.5")
    assert taking.status is OrderStatus.FILLED
    assert cheap.status is OrderStatus.FILLED
    assert (dear.filled, dear.open) == (50_000_000, 50_000_000)
    assert dear.reserved == 0, "the confirmation of less frees the rest"


async def test_orders_that_rest_apart_find_each_other(start_worker: Callable[..., Any]) -> None:
    """A late joiner: neither order was announced to the other's peer, the heartbeat tells."""
    alice = await start_worker("alice")
    resting = await submit(alice, "sell", "100", "1")
    bob = await start_worker("bob")
    late = bob.market(MARKET)
    late.roster._peers.clear()  # as if the look-up had not found anyone yet
    late.roster._by_name.clear()
    taking = await submit(bob, "buy", "100", "1")
    await until(lambda: not resting.live and not taking.live, 20.0, "the orders to meet")
    assert resting.status is taking.status is OrderStatus.FILLED


async def test_peers_that_disagree_on_the_instrument_do_not_trade(start_worker: Callable[..., Any]) -> None:
    alice = await start_worker("alice")
    bob = await start_worker("bob", Instrument(MARKET, tick="0.5"))
    roster = bob.market(MARKET).roster
    await until(lambda: any(peer.refused for peer in roster.all()), 20.0, "the refusal")
    (peer,) = roster.all()
    assert peer.refused is not None
    assert "disagree on what they trade" in peer.refused
    await submit(alice, "sell", "100", "1")
    taking = await submit(bob, "buy", "100", "1")
    assert taking.status is OrderStatus.OPEN


async def test_a_market_nobody_trades_here(start_worker: Callable[..., Any]) -> None:
    alice = await start_worker("alice")
    with pytest.raises(UnknownMarketError, match="BTC-USD"):
        await alice.submit("ETH-USD", NewOrder("buy", "1", "1", "bob"))


async def test_the_client_api(start_worker: Callable[..., Any]) -> None:
    alice = await start_worker("alice")
    order = {"market": MARKET, "side": "sell", "quantity": "0.5", "price": "78318.00", "owner": "ann"}
    async with Api(alice) as api, aiohttp.ClientSession(api.url) as http:

        async def call(method: str, path: str, **options: Any) -> tuple[int, Any]:
            async with http.request(method, path, **options) as response:
                return response.status, await response.json()

        status, placed = await call("POST", "/orders", json=order)
        assert status == 201
        assert placed["trades"] == []
        rest = {"filled": "0", "open": "0.5", "reserved": "0", "cancelled": "0", "status": "open"}
        assert {**order, **rest}.items() <= placed["order"].items()
        id = placed["order"]["id"]

        status, crossing = await call("POST", "/orders", json={**order, "side": "buy", "owner": "bea"})
        assert crossing["order"]["status"] == "filled"
        (trade,) = crossing["trades"]
        assert (trade["maker_order_id"], trade["quantity"], trade["price"]) == (id, "0.5", "78318.00")
        assert (await call("GET", f"/orders/{id}"))[1]["trades"] == [trade]
        assert (await call("GET", "/trades"))[1] == {"trades": [trade], "next": None}
        assert (await call("GET", "/orders?status=filled&limit=1"))[1]["next"] is not None
        for status, count in (("live", 0), ("closed", 2), ("filled", 2), ("open", 0)):
            assert len((await call("GET", f"/orders?status={status}"))[1]["orders"]) == count
        assert (await call("GET", "/orders?status=lost"))[1]["error"]["field"] == "status"

        status, resting = await call("POST", "/orders", json={**order, "price": "78319.5"})
        assert (await call("GET", f"/book/{MARKET}"))[1]["asks"] == [["78319.50", "0.5"]]
        status, cancelled = await call("DELETE", f"/orders/{resting['order']['id']}")
        assert (status, cancelled["order"]["status"]) == (200, "cancelled")
        assert (await call("DELETE", f"/orders/{resting['order']['id']}"))[0] == 409
        market = {"market": MARKET, "side": "sell", "quantity": "1", "owner": "ann", "type": "market"}
        status, placed = await call("POST", "/orders", json=market)
        assert (status, placed["order"]["status"], placed["order"]["time_in_force"]) == (
            201,
            "cancelled",
            "ioc",
        )
        assert (await call("GET", "/orders/none"))[0] == 404
        assert (await call("GET", "/nowhere"))[1]["error"]["code"] == "not_found"
        assert (await call("PUT", "/orders"))[0] == 405
        health = (await call("GET", "/healthz"))[1]
        assert (health["peer"], health["markets"][MARKET]["trades"]) == ("alice", 1)


async def test_orders_of_every_kind_through_the_client_api(start_worker: Callable[..., Any]) -> None:
    alice = await start_worker("alice")
    bob = await start_worker("bob")
    await meet(alice, bob)
    await submit(bob, "sell", "100", "2")
    await submit(alice, "sell", "101", "2")
    async with Api(alice) as api, Client(api.url) as client:

        async def place(
            side: str, price: str | None, quantity: str, owner: str = "bea", **more: Any
        ) -> Placed:
            return await client.submit(MARKET, side, quantity, price, owner, **more)

        killed = await place("buy", "101", "5", time_in_force="fok")
        assert (killed.order.status, killed.order.reason, killed.trades) == ("cancelled", "unfillable", [])
        filled = await place("buy", "101", "3", time_in_force="fok")
        assert filled.order.status == "filled"
        assert sorted((trade.maker_peer, trade.quantity) for trade in filled.trades) == [
            ("alice", "1"),
            ("bob", "2"),
        ]
        with pytest.raises(RefusedError) as caught:
            await place("buy", "101", "1", post_only="reject")
        assert caught.value.code == "post_only_crosses"
        posted = await place("buy", "200", "1", post_only="slide")
        assert (posted.order.price, posted.order.post_only) == ("100.99", "slide")
        stop = await place("buy", None, "1", "sue", stop_price="300")
        assert (stop.order.status, stop.order.type, stop.order.price) == ("untriggered", "market", None)
        iceberg = await place("sell", "300", "5", "ivy", display="2")
        assert (iceberg.order.open, iceberg.order.display) == ("5", "2")
        assert (await client.book(MARKET)).asks == [("101.00", "1"), ("300.00", "2")]
        expires_ms = time.time_ns() // 1_000_000 + 200
        late = await place("buy", "1", "1", time_in_force="gtd", expires_ms=expires_ms)
        assert late.order.expires_ms == expires_ms

        moved = await client.amend(posted.order.id, price="50", quantity="3")
        assert (moved.order.price, moved.order.quantity, moved.order.amended) == ("50.00", "3", True)
        with pytest.raises(RefusedError, match="filled already"):
            await client.amend(filled.order.id, quantity="1")
        with pytest.raises(RefusedError) as caught:
            await client.amend(posted.order.id)
        assert caught.value.field == "price"

        order = alice.market(MARKET).ledger.order(late.order.id)
        await until(lambda: order.reason == "expired", what="the order to expire")


async def test_doubts_through_the_client_api(start_worker: Callable[..., Any]) -> None:
    alice = await start_worker("alice")
    order = await submit(alice, "buy", "100", "2")
    hosted = alice.markets[MARKET]
    fills = [OfferFill("theirs", 10_000, hosted.market.book.hold(order))]
    doubt = Confirmation(order, "gone", "127.0.0.1:1", "lock", fills, "ab" * 32)
    hosted.negotiator._taker.confirmations.resume("m-1", doubt)  # as after a restart
    async with Api(alice) as api, Client(api.url) as client:
        (shown,) = await client.doubts()
        assert (shown.match_id, shown.maker, shown.quantity, shown.order_id) == ("m-1", "gone", "2", order.id)
        assert (await client.order(order.id)).order.in_doubt == "2"
        assert (await client.health()).markets[MARKET].in_doubt == 1
        with pytest.raises(RefusedError) as caught:
            await client.prove("m-1", ProofRecord("m-1", {"x": 1}, {}))
        assert caught.value.code == "invalid_proof"
        with pytest.raises(RefusedError) as caught:
            await client.resolve("m-9", "refused", "op")
        assert caught.value.code == "unknown_doubt"
        settled = await client.resolve("m-1", "committed", "op")
        assert (settled.order.status, settled.trades[0].maker_peer) == ("filled", "gone")


WRONG = [
    ({"time_in_force": "gtd"}, "expires_ms", "milliseconds"),
    ({"time_in_force": "day"}, "time_in_force", '"gtc", "gtd", "ioc" or "fok"'),
    ({"post_only": "yes"}, "post_only", '"reject" or "slide"'),
    ({"time_in_force": "ioc", "display": "1"}, "display", "can rest"),
    ({"price": 78318.0}, "price", "decimal string"),
    ({"price": "78318.001"}, "price", "multiple of 0.01"),
    ({"quantity": "0"}, "quantity", "more than zero"),
    ({"quantity": "1e3"}, "quantity", "plain decimal"),
    ({"quantity": "-1"}, "quantity", "plain decimal"),
    ({"side": "hold"}, "side", '"buy" or "sell"'),
    ({"owner": ""}, "owner", "letters"),
    ({"owner": None}, "owner", "letters"),
    ({"qty": "1"}, "qty", "no field"),
    ({"client_order_id": "a b"}, "client_order_id", "letters"),
]


async def test_bad_orders_name_the_field_and_the_rule(start_worker: Callable[..., Any]) -> None:
    alice = await start_worker("alice")
    order = {"market": MARKET, "side": "sell", "quantity": "0.5", "price": "78318.00", "owner": "ann"}
    async with Api(alice) as api, aiohttp.ClientSession(api.url) as http:
        for change, field, rule in WRONG:
            async with http.post("/orders", json={**order, **change}) as response:
                error = (await response.json())["error"]
                assert (response.status, error["code"], error["field"]) == (400, "invalid_field", field)
                assert rule in error["message"]
        for body in (b"", b"[]", b"{", b"\xff", b'{"market": "BTC-USD"}'):
            async with http.post("/orders", data=body) as response:
                assert response.status == 400
        async with http.post("/orders", data=b"x" * 20_000) as response:
            assert response.status == 413
        async with http.post("/orders", json=order, headers={"Origin": "http://evil.example"}) as response:
            assert response.status == 403
        assert alice.market(MARKET).ledger.order_count == 0


async def test_a_repeated_client_order_id_is_one_order(start_worker: Callable[..., Any]) -> None:
    alice = await start_worker("alice")
    first = await alice.submit(MARKET, NewOrder("buy", "1", "1", "ann", "mine"))
    again = await alice.submit(MARKET, NewOrder("buy", "1", "1", "ann", "mine"))
    assert again is first
    async with Api(alice) as api, aiohttp.ClientSession(api.url) as http:
        order = {"market": MARKET, "side": "buy", "quantity": "2", "price": "1", "owner": "ann"}
        async with http.post("/orders", json={**order, "client_order_id": "mine"}) as response:
            assert response.status == 409
            assert (await response.json())["error"]["code"] == "duplicate_order"
