"""The client API's feed, over HTTP and with the real worker behind it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing

import aiohttp
import pytest

from grenache_py.aio import Link
from grenache_py.aio.testing import Grapes
from orderbook import limits
from orderbook.api import Api
from orderbook.client import Client, PeerFailedError, RefusedError
from orderbook.model import Instrument
from orderbook.records import BookRecord
from orderbook.worker import Worker
from tests.harness import until

MARKET = "SIM"


@pytest.fixture
async def api() -> AsyncIterator[Api]:
    """A peer on a network of its own."""
    async with (
        Grapes() as grapes,
        Link(grapes.grapes[0].url) as link,
        Worker(link, "alice", [Instrument(MARKET, tick="1", lot="1")], host="127.0.0.1") as worker,
        Api(worker) as api,
    ):
        yield api


def watchers(api: Api) -> int:
    return len(api._worker.markets[MARKET].watchers)


async def test_a_client_follows_the_book_and_leaves(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    async with Client(api.url) as client, aclosing(client.follow(MARKET)) as books:
        assert await anext(books) == BookRecord(MARKET, [], [])
        placed = await client.submit(MARKET, "buy", "5", "100", "ann")
        assert await anext(books) == BookRecord(MARKET, [("100", "5")], [])
        await client.submit(MARKET, "sell", "2", "100", "bob")
        assert await anext(books) == BookRecord(MARKET, [("100", "3")], [])
        monkeypatch.setattr(limits, "FEED_IDLE_S", 0.1)  # after which it is noticed who has gone
        await client.cancel(placed.order.id)
        assert await anext(books) == BookRecord(MARKET, [], [])
    await until(lambda: not watchers(api), what="the reader to be forgotten")


async def test_whoever_reads_slowly_gets_what_is_there_at_last(api: Api) -> None:
    async with Client(api.url) as client, aclosing(client.follow(MARKET)) as books:
        await anext(books)
        for price in range(50, 80):
            await client.submit(MARKET, "buy", "1", str(price), "ann")
        async for book in books:
            if book.bids[0] == ("79", "1"):
                break
        assert len(book.bids) == limits.FEED_LEVELS


async def test_a_quiet_feed_says_that_it_is_alive(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "FEED_IDLE_S", 0.05)
    async with aiohttp.ClientSession() as session, session.get(f"{api.url}/feed/{MARKET}") as response:
        lines = [await response.content.readline() for _ in range(3)]
    assert lines[1] == lines[2]
    assert b'"type":"delta"' in lines[1]


async def test_there_may_be_so_many_readers(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "FEEDS", 1)
    async with Client(api.url) as client, aclosing(client.follow(MARKET)) as books:
        await anext(books)
        with pytest.raises(RefusedError) as caught:
            await anext(client.follow(MARKET))
        assert caught.value.code == "busy"
        monkeypatch.setattr(limits, "FEED_IDLE_S", 0.1)
        await client.submit(MARKET, "buy", "5", "100", "ann")
        await anext(books)
    await until(lambda: not watchers(api), what="the reader to be forgotten")
    monkeypatch.setattr(limits, "FEED_IDLE_S", 15.0)
    async with Client(api.url) as client, aclosing(client.follow(MARKET)) as books:
        await anext(books)


@pytest.mark.parametrize(
    ("market", "levels", "code"), [("NO", 5, "unknown_market"), (MARKET, 0, "invalid_field")]
)
async def test_what_is_no_feed_is_refused(api: Api, market: str, levels: int, code: str) -> None:
    async with Client(api.url) as client:
        with pytest.raises(RefusedError) as caught:
            await anext(client.follow(market, levels))
    assert caught.value.code == code


async def test_a_peer_that_stops_ends_its_feeds() -> None:
    async with Grapes() as grapes, Link(grapes.grapes[0].url) as link:
        async with Worker(link, "alice", [Instrument(MARKET)]) as worker, Api(worker) as api:
            client = Client(api.url)
            books = client.follow(MARKET)
            await anext(books)
        with pytest.raises(PeerFailedError):
            await anext(books)
        await client.close()
