"""The client API's feed, over HTTP and with the real worker behind it."""

from __future__ import annotations

import asyncio
import signal
import sys
from contextlib import aclosing
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from grenache_py.aio import Link
from grenache_py.aio.testing import Grapes
from orderbook import limits
from orderbook.api import Api
from orderbook.api.feeds import trade_lines
from orderbook.api.trades import Place
from orderbook.client import Client, ClientError, PeerFailedError, RefusedError, count_of
from orderbook.errors import HistoryLostError, JournalError
from orderbook.model import Instrument
from orderbook.records import BookRecord, OwnFill, TradePage
from orderbook.worker import Worker
from tests.harness import until

MARKET = "SIM"


async def trade(client: Client, quantity: str) -> None:
    """Let ``quantity`` trade, at 100."""
    await client.submit(MARKET, "sell", quantity, "100", "bob")
    await client.submit(MARKET, "buy", quantity, "100", "ann")


def quantities(page: TradePage) -> list[str]:
    return [trade.quantity for trade in page.trades]


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
    monkeypatch.setattr(api._feeds, "_most", 1)
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


def give_up(error: Exception) -> None:
    """What to do on a break."""
    raise error


async def test_a_peer_that_stops_ends_its_feeds() -> None:
    async with Grapes() as grapes, Link(grapes.grapes[0].url) as link:
        async with Worker(link, "alice", [Instrument(MARKET)]) as worker, Api(worker) as api:
            client = Client(api.url)
            books = client.follow(MARKET, on_break=give_up)
            await anext(books)
        with pytest.raises(PeerFailedError):
            await anext(books)
        await client.close()


async def test_a_client_follows_trades_and_goes_on_where_it_stopped(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Client(api.url) as client:
        await trade(client, "1")
        async with aclosing(client.follow_trades(MARKET)) as pages:
            page = await anext(pages)
            assert (page.trades, count_of(page.next)) == ([], 1), "where now is"
            await trade(client, "2")
            page = await anext(pages)
            assert (quantities(page), page.next) == (["2"], f"2:{page.trades[0].match_id}")
        for quantity in ("3", "4"):
            await trade(client, quantity)
        monkeypatch.setattr(limits, "FEED_TRADES", 1)
        async with aclosing(client.follow_trades(MARKET, after=page.next)) as pages:
            pages_read = [await anext(pages), await anext(pages)]
            await trade(client, "5")
            pages_read.append(await anext(pages))
        read = [(quantities(page), count_of(page.next)) for page in pages_read]
        assert read == [(["3"], 3), (["4"], 4), (["5"], 5)]


async def test_a_trade_says_what_it_was_for_the_orders_of_the_peer(api: Api) -> None:
    async with Client(api.url) as client:
        maker = await client.submit(MARKET, "sell", "3", "100", "ann", "ann-1")
        taker = await client.submit(MARKET, "buy", "1", "100", "bob")
        fills = [
            OwnFill(maker.order.id, "maker", "sell", "ann", "ann-1"),
            OwnFill(taker.order.id, "taker", "buy", "bob", None),
        ]
        assert [trade.fills for trade in taker.trades] == [fills]
        page = await anext(client.follow_trades(MARKET, after=0))
        assert [trade.fills for trade in page.trades] == [fills]
        assert [trade.fills async for trade in client.trades()] == [fills]


async def test_trades_that_have_not_been_cannot_be_followed(api: Api) -> None:
    async with Client(api.url) as client:
        await trade(client, "1")
        [page] = [await client.trades_page(limit=1)]
        match_id = page.trades[0].match_id
        assert (await client.trades_page(after=f"1:{match_id}")).trades == []
        for after in (2, f"2:{match_id}", "1:another"):
            for ask in (anext(client.follow_trades(MARKET, after)), client.trades_page(after=after)):
                with pytest.raises(RefusedError, match="it has begun anew") as caught:
                    await ask
                assert caught.value.code == "history_lost"
        for after in ("", "x", "-1", "1:", "1:" + "m" * 65, "9" * 20):
            with pytest.raises(RefusedError, match="what `next` said") as caught:
                await client.trades_page(after=after)
            assert caught.value.field == "after"


async def test_whoever_is_too_slow_for_what_is_remembered_is_told(api: Api) -> None:
    hosted = api._worker.markets[MARKET]
    hosted.market.ledger._trades_in_memory = 1
    async with Client(api.url) as client, aclosing(trade_lines(hosted, Place(0))) as lines:
        assert await anext(lines) == b'{"trades":[],"next":"0"}\n'
        for _ in range(3):
            await trade(client, "1")
        hosted.market.ledger.drop_trades(3)
        with pytest.raises(HistoryLostError, match="the first 2 trades are forgotten"):
            await anext(lines)
        with pytest.raises(RefusedError, match="the first 2 trades are forgotten"):
            await anext(client.follow_trades(MARKET, after=0))
        assert quantities(await client.trades_page(after=2)) == ["1"]


async def test_a_feed_ends_when_trades_cannot_be_read_any_more(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def unreadable(after: int, limit: int) -> None:
        raise JournalError("the disk is gone")

    async with Client(api.url) as client:
        breaks: list[ClientError] = []
        async with aclosing(client.follow_trades(MARKET, on_break=breaks.append)) as pages:
            await anext(pages)
            await trade(client, "1")
            assert quantities(await anext(pages)) == ["1"]
            with monkeypatch.context() as broken:
                broken.setattr(api._worker.markets[MARKET], "trades", unreadable)
                with pytest.raises(RefusedError, match="the disk is gone"):
                    await client.trades_page(after=1)
                await trade(client, "2")
                following = asyncio.ensure_future(anext(pages))
                await until(lambda: len(breaks) > 1, what="the feed to break, and not to begin")
            assert quantities(await following) == ["2"], "the disk is back"
        assert str(breaks[0]) == f"{api.url}: the feed has ended; the peer stops, or its log says why"
        assert str(breaks[1]) == "the disk is gone"


async def test_trades_are_followed_over_a_restart_of_the_peer(tmp_path: Path) -> None:
    async with Grapes() as grapes, Link(grapes.grapes[0].url) as link:

        def alice() -> Worker:
            instrument = Instrument(MARKET, tick="1", lot="1")
            return Worker(link, "alice", [instrument], host="127.0.0.1", journals=tmp_path)

        async with alice() as worker, Api(worker) as api, Client(api.url) as client:
            for quantity in ("1", "2"):
                await trade(client, quantity)
            page = await anext(client.follow_trades(MARKET, after=1))
            assert quantities(page) == ["2"]
        async with alice() as worker, Api(worker) as api, Client(api.url) as client:
            await trade(client, "3")
            page = await anext(client.follow_trades(MARKET, page.next))
        assert quantities(page) == ["3"]


async def test_a_feed_of_trades_with_a_gap_is_noticed() -> None:
    async def gap(request: web.Request) -> web.Response:
        return web.Response(body=b'{"trades":[],"next":7}\n{"trades":[],"next":9}\n')

    app = web.Application()
    app.router.add_get(f"/feed/{MARKET}/trades", gap)
    async with TestServer(app) as server, Client(str(server.make_url("/"))) as client:
        pages = client.follow_trades(MARKET, on_break=give_up)
        assert await anext(pages) == TradePage([], 7)
        with pytest.raises(PeerFailedError, match="trades after 7 are missing"):
            await anext(pages)


async def test_the_command_line_follows_trades(api: Api) -> None:
    async with Client(api.url) as client:
        await trade(client, "7")
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "orderbook", "trades", "--follow", "--after", "0", "--api", api.url),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        assert process.stdout is not None
        try:
            assert b"buy 7 at 100, maker alice, taker alice" in await process.stdout.readline()
            await trade(client, "8")
            assert b"buy 8 at 100" in await process.stdout.readline()
            process.send_signal(signal.SIGINT)
            assert await process.communicate() == (b"", b"")
            assert process.returncode == 0
        finally:
            if process.returncode is None:
                process.terminate()
                await process.wait()
