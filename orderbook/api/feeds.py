"""Answers that do not end: a line of JSON whenever there is news, and now and then without any.

Nothing is kept for a reader but where it is. Whoever reads slowly gets fewer lines that say more.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing

import msgspec
from aiohttp import web

from .. import limits
from ..errors import OrderBookError
from ..feed import BookFeed
from ..hosted import HostedMarket
from ..records import FeedLine
from .trades import Place, found, page_after

log = logging.getLogger(__name__)

Lines = AsyncGenerator[bytes, None]


async def send(request: web.Request, lines: Lines) -> web.StreamResponse:
    """Send ``lines`` until the reader has gone, or does not read.

    Raises:
        OrderBookError: There is not even a first line. One that can't be told later ends the answer.
    """
    response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
    try:
        async with aclosing(lines):
            first = await anext(lines)
            await response.prepare(request)
            await _write(response, first)
            async for line in lines:
                await _write(response, line)
    except (ConnectionError, asyncio.TimeoutError):
        pass
    except OrderBookError as error:
        if not response.prepared:
            raise
        log.info("a feed ends: %s", error)
    return response


async def _write(response: web.StreamResponse, line: bytes) -> None:
    await asyncio.wait_for(response.write(line), limits.FEED_IDLE_S)


async def book_lines(hosted: HostedMarket, levels: int) -> Lines:
    """The book as it changes (``feed``), each line once all that it tells is durable.

    Raises JournalError where it never will be.
    """
    feed, changed = BookFeed(hosted.market, levels), asyncio.Event()
    hosted.watchers.add(changed)
    try:
        line: FeedLine | None = feed.snapshot()
        while True:
            if line is not None:
                data = msgspec.json.encode(line)
                await hosted.journal.durable()
                yield data + b"\n"
                await asyncio.sleep(limits.FEED_PAUSE_S)
            line = feed.delta() if await _happens(changed) else feed.alive()
    finally:
        hosted.watchers.discard(changed)


async def trade_lines(hosted: HostedMarket, after: Place) -> Lines:
    """The trades after a place, as pages, each once it is durable. The first one says where it begins.

    Raises:
        HistoryLostError: They can't be told, or not any more: the reader was too slow, without a journal.
        JournalError: They can't be read.
    """
    changed = asyncio.Event()
    hosted.watchers.add(changed)
    try:
        place, quiet = await found(hosted, after), True
        while True:
            page, place, more = await page_after(hosted, place, limits.FEED_TRADES)
            if page.trades or quiet:
                data = msgspec.json.encode(page)
                await hosted.journal.durable()
                yield data + b"\n"
                await asyncio.sleep(limits.FEED_PAUSE_S)
            quiet = not more and not await _happens(changed)
    finally:
        hosted.watchers.discard(changed)


async def _happens(changed: asyncio.Event) -> bool:
    """Whether there was a step, now or since last asked, before it is time to say that the feed is alive."""
    try:
        await asyncio.wait_for(changed.wait(), limits.FEED_IDLE_S)
    except asyncio.TimeoutError:
        return False
    changed.clear()
    return True
