"""The client of the client API, against an API that answers as a test wishes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from aiohttp import web

from orderbook import client_calls, limits
from orderbook.client import Client, NotYetError, PeerFailedError, RefusedError, check_api
from orderbook.errors import InvalidFieldError
from tests.harness import free_port, until
from tests.unit.orderbook.fake_api import fake_peers, order_record, refusal, trade_record


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ("127.0.0.1:8081", "http://127.0.0.1:8081"),
        ("http://localhost:8081/", "http://localhost:8081"),
        ("https://peer.example", "https://peer.example"),
        ("http://[::1]:8081", "http://[::1]:8081"),
    ],
)
def test_urls_of_apis(given: str, url: str) -> None:
    assert check_api(given) == url


@pytest.mark.parametrize(
    "given", ["", "ftp://a:1", "http://", "http://a:99999", "http://a:x", "http://a/b", "a:1?q", "a b\n:1"]
)
def test_what_is_no_url_of_an_api_is_refused(given: str) -> None:
    with pytest.raises(InvalidFieldError, match="api must be a URL such as"):
        Client(given)


async def test_an_order_is_submitted_looked_at_and_cancelled() -> None:
    async with fake_peers("alice") as [peer], Client(peer.api) as client:
        placed = await client.submit("BTC-USD", "buy", "0.5", "78318.00", "bob", "c1")
        assert peer.submitted == [
            {
                "market": "BTC-USD",
                "side": "buy",
                "quantity": "0.5",
                "price": "78318.00",
                "owner": "bob",
                "client_order_id": "c1",
            }
        ]
        assert (placed.order.quantity, placed.order.client_order_id, placed.trades) == ("0.5", "c1", [])
        assert (await client.order(placed.order.id)).order == placed.order
        assert (await client.cancel(placed.order.id)).status == "cancelled"


async def test_a_client_order_id_that_is_not_given_is_not_sent() -> None:
    async with fake_peers("alice") as [peer], Client(peer.api) as client:
        await client.submit("BTC-USD", "buy", "0.5", "78318.00", "bob")
        assert "client_order_id" not in peer.submitted[0]


async def test_lists_go_through_all_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "PAGE_DEFAULT", 3)
    async with fake_peers("alice") as [peer], Client(peer.api) as client:
        peer.orders = {f"o{n}": order_record(f"o{n}") for n in range(7)}
        peer.trades = [trade_record(f"m{n}") for n in range(6)]
        assert [order.id async for order in client.orders()] == list(peer.orders)
        assert [trade.match_id async for trade in client.trades(market="BTC-USD")] == [
            f"m{n}" for n in range(6)
        ]
        assert [query.get("after") for query in peer.queries] == [None, "3", "6", None, "3"]


async def test_filters_travel_as_a_query() -> None:
    async with fake_peers("alice") as [peer], Client(peer.api) as client:
        await client.orders_page(status="live", market="BTC-USD", after=5, limit=2)
        await client.trades_page()
        assert peer.queries == [{"status": "live", "market": "BTC-USD", "after": "5", "limit": "2"}, {}]


async def test_pages_that_lead_nowhere_are_not_followed_for_ever() -> None:
    async def same_page(request: web.Request) -> web.Response:
        return web.json_response({"orders": [order_record()], "next": 1})

    async with fake_peers("alice") as [peer], Client(peer.api) as client:
        peer.before = same_page
        with pytest.raises(PeerFailedError, match="do not end"):
            await anext(order async for order in client.orders() if order.id == "none of them")


async def test_views_of_a_peer() -> None:
    async with fake_peers("alice") as [peer], Client(peer.api) as client:
        peer.peers = [
            {
                "name": "bob",
                "destination": "127.0.0.1:1",
                "market": "BTC-USD",
                "heard_s_ago": 0.2,
                "refused": None,
            }
        ]
        peer.book = {"market": "BTC-USD", "bids": [["10.00", "1"]], "asks": []}
        assert (await client.book("BTC-USD", levels=5)).bids == [("10.00", "1")]
        assert [known.name for known in await client.peers()] == ["bob"]
        health = await client.health()
        assert (health.peer, health.markets["BTC-USD"].best_bid) == ("alice", None)


async def test_ids_cannot_reach_other_paths() -> None:
    async with fake_peers("alice") as [peer], Client(peer.api) as client:
        with pytest.raises(RefusedError):
            await client.cancel("../orders/o1?x=1#y")
        assert peer.log == [("DELETE", "/orders/../orders/o1?x=1#y")], "one segment of the path"


async def test_a_refusal_keeps_its_code_and_field() -> None:
    async with fake_peers("alice") as [peer], Client(peer.api) as client:

        async def refuse(request: web.Request) -> web.Response:
            return refusal("invalid_field", "price must be a multiple of 0.01", field="price")

        peer.before = refuse
        with pytest.raises(RefusedError, match="multiple of") as caught:
            await client.submit("BTC-USD", "buy", "1", "0.001", "bob")
        assert (caught.value.code, caught.value.field, caught.value.api) == (
            "invalid_field",
            "price",
            peer.api,
        )


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        ({"text": "<html>hello</html>"}, "is this the client API"),
        ({"text": "not here", "status": 404}, "is this the client API"),
        ({"text": '{"order": {"id": 5}}'}, "is this the client API"),
        ({"text": '{"error": "no"}', "status": 400}, "is this the client API"),
        ({"text": "", "status": 302, "headers": {"Location": "/healthz"}}, "is this the client API"),
        ({"text": '{"error": {"code": "internal", "message": "a fault"}}', "status": 500}, "a fault"),
    ],
)
async def test_other_answers_are_a_failure_of_the_peer(answer: dict[str, Any], says: str) -> None:
    async def odd(request: web.Request) -> web.Response:
        return web.Response(**answer)

    async with fake_peers("alice") as [peer], Client(peer.api) as client:
        peer.before = odd
        with pytest.raises(PeerFailedError, match=says) as caught:
            await client.order("o1")
        assert not caught.value.in_doubt, "it was a question"
        with pytest.raises(PeerFailedError, match=says) as caught:
            await client.cancel("o1")
        assert caught.value.in_doubt


async def test_an_endless_answer_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_calls, "ANSWER_BYTES", 1000)

    async def long(request: web.Request) -> web.Response:
        return web.Response(body=b" " * 5000)

    async with fake_peers("alice") as [peer], Client(peer.api) as client:
        peer.before = long
        with pytest.raises(PeerFailedError, match="more than 1000 bytes"):
            await client.health()


async def test_nobody_there() -> None:
    async with Client(f"127.0.0.1:{free_port()}") as client:
        with pytest.raises(PeerFailedError, match="cannot be reached") as caught:
            await client.health()
        assert not caught.value.in_doubt


async def test_a_peer_that_does_not_answer_in_time() -> None:
    release = asyncio.Event()

    async def wait(request: web.Request) -> None:
        await release.wait()

    async with fake_peers("alice") as [peer], Client(peer.api, timeout_s=0.05) as client:
        peer.before = wait
        with pytest.raises(PeerFailedError, match=r"no answer within 0\.05 s") as caught:
            await client.submit("BTC-USD", "buy", "1", "1", "bob")
        assert caught.value.in_doubt, "it may have been placed"
        release.set()


async def test_a_connection_that_breaks() -> None:
    async def cut(request: web.Request) -> None:
        assert request.transport is not None
        request.transport.abort()

    async with fake_peers("alice") as [peer], Client(peer.api) as client:
        peer.before = cut
        with pytest.raises(PeerFailedError, match="the connection broke") as caught:
            await client.submit("BTC-USD", "buy", "1", "1", "bob")
        assert caught.value.in_doubt


def in_doubt_once() -> Callable[[web.Request], Awaitable[None]]:
    """Lets the first request change something, but nobody learns of it."""
    asked = []

    async def cut(request: web.Request) -> None:
        asked.append(request)
        if len(asked) == 1:
            await request.json() if request.can_read_body else None
            assert request.transport is not None
            request.transport.abort()

    return cut


@pytest.mark.parametrize(("client_order_id", "attempts"), [("c1", 2), (None, 1)])
async def test_only_an_order_with_a_name_is_sent_again_where_it_may_be_there(
    client_order_id: str | None, attempts: int
) -> None:
    async with fake_peers("alice") as [peer], Client(peer.api, retry_s=10) as client:
        peer.before = in_doubt_once()
        submit = client.submit("BTC-USD", "buy", "1", "1", "bob", client_order_id)
        if client_order_id is None:
            with pytest.raises(PeerFailedError, match="connection broke") as caught:
                await submit
            assert caught.value.in_doubt
        else:
            assert (await submit).order.client_order_id == "c1"
        assert len(peer.log) == attempts


async def test_a_busy_peer_is_asked_again_for_a_while() -> None:
    async with fake_peers("alice") as [peer], Client(peer.api, retry_s=10) as client:
        refusals = [refusal("busy", "too much to do", 503), refusal("journal", "the disk hangs", 503)]

        async def refuse(request: web.Request) -> web.Response | None:
            return refusals.pop() if refusals else None

        peer.before = refuse
        await client.submit("BTC-USD", "buy", "1", "1", "bob")
        assert (len(peer.log), len(peer.submitted)) == (3, 1)


async def test_what_does_not_pass_is_not_asked_again() -> None:
    async with fake_peers("alice") as [peer], Client(peer.api, retry_s=10) as client:
        with pytest.raises(RefusedError) as caught:
            await client.cancel("o1")
        assert (caught.value.code, caught.value.in_doubt, len(peer.log)) == ("unknown_order", False, 1)


async def test_who_asks_again_does_so_for_so_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_calls, "RETRY_PAUSE_S", (0.01, 0.01))
    async with Client(f"127.0.0.1:{free_port()}", retry_s=0.1) as client:
        with pytest.raises(PeerFailedError, match="cannot be reached"):
            await client.health()


async def test_a_cancellation_whose_answer_was_lost_is_one() -> None:
    async with fake_peers("alice") as [peer], Client(peer.api, retry_s=10) as client:
        peer.orders["o1"] = order_record(status="cancelled", open="0", cancelled="1")
        peer.closed.add("o1")
        with pytest.raises(RefusedError, match="already"):
            await client.cancel("o1")
        peer.before = in_doubt_once()
        assert (await client.cancel("o1")).status == "cancelled"


async def test_the_doubt_of_an_earlier_attempt_is_not_lost() -> None:
    async with fake_peers("alice") as [peer], Client(peer.api, retry_s=10) as client:
        cut = in_doubt_once()

        async def first_cut_then_refuse(request: web.Request) -> web.Response:
            await cut(request)
            return refusal("halted", "the market is halted", 409)

        peer.before = first_cut_then_refuse
        with pytest.raises(RefusedError, match="halted") as caught:
            await client.submit("BTC-USD", "buy", "1", "1", "bob", "c1")
        assert caught.value.in_doubt


async def test_quotes_are_never_sent_again_unasked() -> None:
    """Not even by aiohttp, which does so with every PUT over a connection that it has kept."""
    async with fake_peers("alice") as [peer], Client(peer.api, retry_s=10) as client:
        await client.health()
        peer.before = in_doubt_once()
        with pytest.raises(PeerFailedError) as caught:
            await client.mass_quote("BTC-USD", "mia", [("b1", "buy", "1", "10.00")])
        assert caught.value.in_doubt
        assert [method for method, _ in peer.log] == ["GET", "PUT"]


async def test_a_peer_that_does_not_wait_is_not_asked_all_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """One of an older version."""
    monkeypatch.setattr(client_calls, "RETRY_PAUSE_S", (0.2, 0.2))
    async with fake_peers("alice") as [peer], Client(peer.api) as client:
        peer.orders["o1"] = order_record()
        with pytest.raises(NotYetError, match=r"order o1 is open after 0\.5 s: 0 of 1 filled"):
            await client.closed("o1", timeout_s=0.5)
        assert 2 <= len(peer.log) <= 7


async def test_who_waits_asks_again_while_the_peer_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_calls, "RETRY_PAUSE_S", (0.01, 0.01))
    async with fake_peers("alice") as [peer], Client(peer.api, retry_s=60) as client:
        peer.orders["o1"] = order_record()
        peer.before = in_doubt_once()
        wait = asyncio.ensure_future(client.closed("o1"))
        await until(lambda: len(peer.log) > 2, what="it to ask again")
        peer.orders["o1"] = order_record(status="filled", open="0", filled="1")
        assert (await wait).order.status == "filled"


async def test_who_waits_does_not_do_so_for_a_peer_that_stays_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_calls, "RETRY_PAUSE_S", (0.01, 0.01))
    async with Client(f"127.0.0.1:{free_port()}", retry_s=0.1) as client:
        with pytest.raises(PeerFailedError, match="cannot be reached"):
            await client.closed("o1")
    async with Client(f"127.0.0.1:{free_port()}", retry_s=60) as client:
        with pytest.raises(PeerFailedError, match="cannot be reached"):
            await client.closed("o1", timeout_s=0.1)


async def test_a_deadline_counts_for_a_peer_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_calls, "WAIT_LATE_S", 0.1)
    async with fake_peers("alice") as [peer], Client(peer.api) as client:
        over = asyncio.Event()

        async def hang(request: web.Request) -> None:
            await over.wait()

        peer.before = hang
        with pytest.raises(PeerFailedError, match=r"no answer within 0\.2 s"):
            await client.closed("o1", timeout_s=0.1)
        over.set()
