"""The client API of a peer (``api/server.py``), spoken over HTTP with aiohttp.

    async with Client("http://127.0.0.1:8081") as client:
        placed = await client.submit("BTC-USD", "buy", "0.5", "78318.00", owner="bob")
        async for order in client.orders(status="live"):
            ...

Prices and quantities are decimal strings, as everywhere outside a peer.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from decimal import Decimal
from typing import Any
from urllib.parse import quote

import msgspec

from . import limits
from .client_calls import (
    CONNECTIONS,
    TIMEOUT_S,
    Calls,
    ClientError,
    NotYetError,
    PeerFailedError,
    Record,
    RefusedError,
    check_api,
)
from .feed_reader import BookReplica
from .model import OrderStatus
from .records import (
    BookRecord,
    Cancelled,
    Cursor,
    DoubtList,
    DoubtRecord,
    FeedLine,
    Health,
    OrderPage,
    OrderRecord,
    PeerList,
    PeerRecord,
    Placed,
    PlacedPair,
    ProofRecord,
    QuotedOrders,
    ReservationList,
    ReservationRecord,
    StateRecord,
    TradePage,
    TradeReport,
)

__all__ = [
    "CONNECTIONS",
    "TIMEOUT_S",
    "Client",
    "ClientError",
    "NotYetError",
    "PeerFailedError",
    "RefusedError",
    "check_api",
]

log = logging.getLogger(__name__)

CLOSED = tuple(status.value for status in OrderStatus if status.closed)
"""What a closed order says of its status."""
OnBreak = Callable[[ClientError], object]
"""Is told why a feed has ended, before it begins again; what it raises ends the iteration."""


class Client:
    """Calls the client API of one peer. Use it as an async context manager, or call :meth:`close`.

    All methods raise :class:`RefusedError` when the peer says no, and :class:`PeerFailedError` when it does
    not answer within ``timeout_s`` seconds, or not as it should.
    """

    def __init__(
        self,
        api: str,
        *,
        timeout_s: float = TIMEOUT_S,
        retry_s: float = 0.0,
        connections: int = CONNECTIONS,
    ):
        """
        Args:
            api: A URL such as ``"http://127.0.0.1:8081"``; ``http://`` may be left out.
            timeout_s: Time limit of one attempt, in seconds.
            retry_s: For so many seconds, from its beginning, a call is made again when the peer cannot be
                reached, fails or is busy: any call if nothing can have been done; if something may have been,
                those that are safe to repeat: all but mass quotes and orders without ``client_order_id``. An
                order may come to the book that much later than it was meant to.
            connections: So many at once; further calls wait for one.

        Raises:
            InvalidFieldError: ``api`` is no such URL.
        """
        self._calls = Calls(api, timeout_s, retry_s, connections)
        self.api = self._calls.api

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close all connections."""
        await self._calls.close()

    # -- orders ------------------------------------------------------------------------------------------

    async def submit(
        self,
        market: str,
        side: str,
        quantity: str,
        price: str | None,
        owner: str,
        client_order_id: str | None = None,
        time_in_force: str | None = None,
        *,
        post_only: str | None = None,
        stop_price: str | None = None,
        display: str | None = None,
        expires_ms: int | None = None,
        self_trade: str | None = None,
    ) -> Placed:
        """Place an order; returns when its way through the network is over for now.

        Args:
            side: ``"buy"`` or ``"sell"``.
            quantity: A decimal such as ``"0.5"``.
            price: A decimal such as ``"78318.00"``; None: a market order, which takes any price, never rests.
            owner: Whose it is. Orders of one owner at one peer never trade with each other.
            client_order_id: The owner's own name for it. Submitting it again gives the same order, so that
                it is safe to ask again after a :class:`PeerFailedError`, which the client does itself for
                ``retry_s`` seconds. (A peer without a journal that has started again knows it no more.)
            time_in_force: ``"gtc"``: what is left rests; ``"gtd"``: until ``expires_ms``; ``"ioc"``: it is
                cancelled; ``"fok"``: the order is filled completely, at all peers together, or not at all.
            post_only: ``"reject"`` or ``"slide"``: it never takes a price; it is refused, or moves away.
            stop_price: A decimal: it waits until a trade of its peer reaches this price.
            display: A decimal: an iceberg, which shows so much at a time.
            expires_ms: When a ``"gtd"`` order ends, in milliseconds since the epoch.
            self_trade: What it does when it meets an older order of its owner: ``"cancel_newest"`` (the
                default), ``"cancel_oldest"``, ``"cancel_both"`` or ``"decrement"``.
        """
        order: dict[str, str | int] = {"market": market, "side": side, "quantity": quantity, "owner": owner}
        given: dict[str, str | int | None] = {
            "price": price,
            "client_order_id": client_order_id,
            "time_in_force": time_in_force,
            "post_only": post_only,
            "stop_price": stop_price,
            "display": display,
            "expires_ms": expires_ms,
            "self_trade": self_trade,
        }
        order |= {name: value for name, value in given.items() if value is not None}
        if price is None:
            order["type"] = "market"
        body = msgspec.json.encode(order)
        named = client_order_id is not None
        return await self._calls.call("POST", "/orders", Placed, body=body, repeatable=named)

    async def submit_pair(
        self, market: str, side: str, owner: str, resting: Mapping[str, Any], stop: Mapping[str, Any]
    ) -> PlacedPair:
        """Place two orders of which one cancels the other (OCO): as soon as one trades, comes alive or is
        cancelled, what is left of the other is cancelled. Returns as :meth:`submit`.

        Args:
            side: ``"buy"`` or ``"sell"``.
            owner: Whose they are.
            resting: The fields of an order that can rest, by the names of :meth:`submit`: ``quantity``,
                ``price``, ``client_order_id``, ….
            stop: Those of an order that waits for its ``stop_price``; without a ``price`` it is a market
                order.
        """
        if "price" not in stop:
            stop = {"type": "market", **stop}
        pair = {"market": market, "side": side, "owner": owner, "resting": resting, "stop": stop}
        body = msgspec.json.encode(pair)
        named = "client_order_id" in resting or "client_order_id" in stop
        return await self._calls.call("POST", "/pairs", PlacedPair, body=body, repeatable=named)

    async def mass_quote(
        self, market: str, owner: str, quotes: Sequence[tuple[str, str, str, str]]
    ) -> list[OrderRecord | None]:
        """Set many orders of ``owner`` at once, or none; returns when all their ways are over for now.

        Args:
            quotes: ``(client_order_id, side, quantity, price)`` of each, all decimals. The quantity is what
                shall be there from now on, whatever was filled before; ``"0"``: nothing. Orders that are not
                named stay as they are.
        """
        rows = [
            {"client_order_id": name, "side": side, "quantity": quantity, "price": price}
            for name, side, quantity, price in quotes
        ]
        body = msgspec.json.encode({"market": market, "owner": owner, "quotes": rows})
        return (await self._calls.call("PUT", "/quotes", QuotedOrders, body=body, repeatable=False)).orders

    async def amend(self, order_id: str, *, price: str | None = None, quantity: str | None = None) -> Placed:
        """Change an order; returns when its way through the network is over for now.

        With the same price and no larger quantity it keeps its place in the queue; else it goes to the back,
        and trades with what it crosses now.

        Args:
            price: The new limit; None: as it is.
            quantity: The new quantity, of which what was filled is a part; None: as it is.
        """
        given = {"price": price, "quantity": quantity}
        body = msgspec.json.encode({name: value for name, value in given.items() if value is not None})
        return await self._calls.call("PATCH", f"/orders/{quote(order_id, safe='')}", Placed, body=body)

    async def cancel(self, order_id: str) -> OrderRecord:
        """Take an order back. What is reserved of it may still trade; then it is ``pending_cancel``."""
        try:
            return (await self._calls.call("DELETE", f"/orders/{quote(order_id, safe='')}", Cancelled)).order
        except RefusedError as error:
            if error.code == "order_closed" and error.in_doubt:  # by an earlier attempt, as a rule
                return (await self.order(order_id)).order
            raise

    async def order(self, order_id: str) -> Placed:
        """An order and its trades."""
        return await self._calls.call("GET", f"/orders/{quote(order_id, safe='')}", Placed)

    async def closed(self, order_id: str, *, timeout_s: float | None = None) -> Placed:
        """Wait until an order has closed; the order as it is for good, and its trades.

        It has closed when it is ``"filled"`` or ``"cancelled"``, whose ``reason`` says why: by its owner, or
        because its time had run out, for instance. The peer may fail meanwhile, or start again with its
        journal, as often as it does, for ``retry_s`` seconds each time. A wait takes a connection beside
        those of ``connections``.

        Args:
            timeout_s: For how long, in seconds, also where the peer is away; None: however long it takes.

        Raises:
            NotYetError: It has not closed within ``timeout_s`` seconds; ``placed`` says how far it is.
            PeerFailedError: The peer was away at that moment, or for ``retry_s`` seconds.
            RefusedError: It does not know the order (``unknown_order``), or too many wait (``busy``).
        """
        return await self._until(order_id, None, timeout_s)

    async def traded(self, order_id: str, filled: str = "0", *, timeout_s: float | None = None) -> Placed:
        """Wait as :meth:`closed`, until more than ``filled`` of an order is filled, or it has closed.

        All trades of a peer, as they are executed, has :meth:`follow_trades`.
        """
        return await self._until(order_id, filled, timeout_s)

    async def _until(self, order_id: str, filled: str | None, timeout_s: float | None) -> Placed:
        def over(placed: Placed) -> bool:
            order = placed.order
            more = filled is not None and Decimal(order.filled) > Decimal(filled)
            return more or order.status in CLOSED

        path = f"/orders/{quote(order_id, safe='')}"
        placed = await self._calls.wait(path, Placed, {"filled": filled}, over, timeout_s)
        if over(placed):
            return placed
        order = placed.order
        done = f"{order.filled} of {order.quantity} filled"
        raise NotYetError(
            self.api, f"order {order_id} is {order.status} after {timeout_s:g} s: {done}", placed
        )

    async def orders_page(
        self,
        *,
        status: str | None = None,
        market: str | None = None,
        owner: str | None = None,
        client_order_id: str | None = None,
        after: Cursor | None = None,
        limit: int | None = None,
    ) -> OrderPage:
        """One page of orders, in order of arrival; what is given they have in common.

        Args:
            status: May also be ``"live"`` or ``"closed"``.
            client_order_id: With its ``owner``: whether an order came to be whose answer was lost.
        """
        query = {
            "status": status,
            "market": market,
            "owner": owner,
            "client_order_id": client_order_id,
            "after": after,
            "limit": limit,
        }
        return await self._calls.call("GET", "/orders", OrderPage, query)

    async def orders(
        self, *, status: str | None = None, market: str | None = None, owner: str | None = None
    ) -> AsyncGenerator[OrderRecord, None]:
        """All orders, page by page."""
        after: Cursor | None = None
        while True:
            page = await self.orders_page(
                status=status, market=market, owner=owner, after=after, limit=limits.PAGE_DEFAULT
            )
            for order in page.orders:
                yield order
            after = self._next(page.next, after, len(page.orders))
            if after is None:
                return

    # -- trades and views --------------------------------------------------------------------------------

    async def trades_page(
        self, *, market: str | None = None, after: Cursor | None = None, limit: int | None = None
    ) -> TradePage:
        """One page of trades, in order of execution."""
        return await self._calls.call(
            "GET", "/trades", TradePage, {"market": market, "after": after, "limit": limit}
        )

    async def trades(self, *, market: str | None = None) -> AsyncGenerator[TradeReport, None]:
        """All trades, page by page."""
        after: Cursor | None = None
        while True:
            page = await self.trades_page(market=market, after=after, limit=limits.PAGE_DEFAULT)
            for trade in page.trades:
                yield trade
            after = self._next(page.next, after, len(page.trades))
            if after is None:
                return

    async def proof(self, match_id: str) -> ProofRecord:
        """The proof of a trade with another peer: what both have signed."""
        return await self._calls.call("GET", f"/trades/{quote(match_id, safe='')}/proof", ProofRecord)

    async def doubts(self, *, market: str | None = None) -> list[DoubtRecord]:
        """Confirmations that other peers have not answered."""
        return (await self._calls.call("GET", "/doubts", DoubtList, {"market": market})).doubts

    async def resolve(self, match_id: str, outcome: str, by: str) -> Placed:
        """Settle a doubt by hand, knowing that it may be wrong: only the maker knows.

        Args:
            outcome: ``"committed"`` or ``"refused"``.
            by: Who has decided.
        """
        return await self._settle_doubt(match_id, {"outcome": outcome, "by": by})

    async def prove(self, match_id: str, proof: ProofRecord) -> Placed:
        """Settle a doubt as committed by the proof that its maker has kept."""
        return await self._settle_doubt(
            match_id, {"proof": {"request": proof.request, "answer": proof.answer}}
        )

    async def _settle_doubt(self, match_id: str, said: Mapping[str, Any]) -> Placed:
        path = f"/doubts/{quote(match_id, safe='')}"
        return await self._calls.call("POST", path, Placed, body=msgspec.json.encode(said))

    async def book(self, market: str, levels: int | None = None) -> BookRecord:
        """The best ``levels`` prices of both sides and what is open there."""
        return await self._calls.call(
            "GET", f"/book/{quote(market, safe='')}", BookRecord, {"levels": levels}
        )

    def follow(
        self, market: str, levels: int = limits.FEED_LEVELS, *, on_break: OnBreak | None = None
    ) -> AsyncGenerator[BookRecord, None]:
        """The best ``levels`` prices of both sides, now and again whenever they have changed.

        Whoever is slow to ask for the next one misses those in between, never the last one. When the
        connection is lost, or a line is missing or wrong by its checksum, it begins again, by itself and for
        as long as it takes; the first book after that comes at once.

        Args:
            on_break: Is called with the :class:`PeerFailedError` (or :class:`RefusedError`, if the peer is
                busy) each time that the feed has ended or could not begin again: from then until the next
                book the last one is old. What it raises ends the iteration. None: it is logged as a warning.

        Raises:
            RefusedError: The peer does not trade ``market``, or has too many readers.
            PeerFailedError: It does not answer the first time.
        """
        return _records(self._books(market, levels), on_break)

    def _books(
        self, market: str, levels: int = limits.FEED_LEVELS
    ) -> AsyncGenerator[BookRecord | ClientError, None]:
        return self._calls.follow(lambda: self._books_once(market, levels))

    async def _books_once(self, market: str, levels: int) -> AsyncGenerator[BookRecord, None]:
        replica, path = BookReplica(levels), f"/feed/{quote(market, safe='')}"
        async with aclosing(self._calls.lines(path, {"levels": levels})) as lines:
            async for data in lines:
                try:
                    changed = replica.apply(msgspec.json.decode(data, type=FeedLine))
                except (msgspec.DecodeError, UnicodeDecodeError, ValueError) as error:
                    raise PeerFailedError(self.api, f"its feed is broken: {error}") from error
                if changed:
                    yield BookRecord(market, *replica.sides())

    def follow_trades(
        self, market: str, after: Cursor | None = None, *, on_break: OnBreak | None = None
    ) -> AsyncGenerator[TradePage, None]:
        """The trades of a market as they are executed, page by page: none is missing, none comes twice.

        When the connection is lost it begins again where it has stopped, by itself and for as long as it
        takes, also after the peer has started again, if it keeps a journal. The first page after a break
        comes at once, and may be empty: then nothing was missed.

        Args:
            after: Begin after the page of which this was ``next``, whose trades the peer must still have;
                0: with its first one; None: with the next one, and the first page says at once where that is,
                and may be empty.
            on_break: As that of :meth:`follow`.

        Raises:
            RefusedError: The peer does not trade ``market``, or has too many readers; with the code
                ``history_lost``, also later on: the trades after ``after`` can't be told. It has begun anew
                without a journal, or from an older copy of it, or has forgotten trades that are so old. What
                is there now begins with ``after=0``; compare it with what you have.
            PeerFailedError: It does not answer the first time.
        """
        return _records(self._trades(market, after), on_break)

    async def _trades(
        self, market: str, after: Cursor | None = None
    ) -> AsyncGenerator[TradePage | ClientError, None]:
        place = after
        async with aclosing(self._calls.follow(lambda: self._trades_once(market, place))) as news:
            async for each in news:
                if not isinstance(each, ClientError):
                    place = each.next
                yield each

    async def _trades_once(self, market: str, after: Cursor | None) -> AsyncGenerator[TradePage, None]:
        path, query = f"/feed/{quote(market, safe='')}/trades", {} if after is None else {"after": after}
        count, first = None if after is None else count_of(after), True
        async with aclosing(self._calls.lines(path, query)) as lines:
            async for data in lines:
                try:
                    page = msgspec.json.decode(data, type=TradePage)
                    following = count_of(page.next)
                except (msgspec.DecodeError, UnicodeDecodeError, ValueError) as error:
                    raise PeerFailedError(self.api, f"its feed is broken: {error}") from error
                if count is not None and following != count + len(page.trades):
                    raise PeerFailedError(self.api, f"its feed is broken: trades after {count} are missing")
                if page.trades or first:
                    yield page
                count, first = following, False

    async def peers(self) -> list[PeerRecord]:
        """The other peers that this one knows."""
        return (await self._calls.call("GET", "/peers", PeerList)).peers

    async def reservations(self, *, market: str | None = None) -> list[ReservationRecord]:
        """What the peer has set aside for others, in order of expiry."""
        return (
            await self._calls.call("GET", "/reservations", ReservationList, {"market": market})
        ).reservations

    async def set_state(self, market: str, state: str, by: str) -> StateRecord:
        """Open, restrict or halt a market at the peer; the others trade on.

        Args:
            state: ``"open"``, ``"cancel_only"`` or ``"halted"``.
            by: Who has decided; it is journaled.
        """
        body = msgspec.json.encode({"state": state, "by": by})
        return await self._calls.call("PUT", f"/state/{quote(market, safe='')}", StateRecord, body=body)

    async def health(self) -> Health:
        """The figures of all markets of the peer."""
        return await self._calls.call("GET", "/healthz", Health)

    def _next(self, following: Cursor | None, after: Cursor | None, rows: int) -> Cursor | None:
        """The cursor of the next page; a peer whose pages lead nowhere is not followed for ever."""
        if following is not None and (not rows or following == after):
            raise PeerFailedError(self.api, "its pages do not end")
        return following


def count_of(cursor: Cursor | None) -> int:
    """How many trades come before a page of trades. Raises ValueError."""
    return int(str(cursor).partition(":")[0])


async def _records(
    news: AsyncGenerator[Record | ClientError, None], on_break: OnBreak | None
) -> AsyncGenerator[Record, None]:
    """The records of a feed; ``on_break`` is told of its failures."""
    async with aclosing(news):
        async for each in news:
            if isinstance(each, ClientError):
                tell_of_break(on_break, each)
            else:
                yield each


def tell_of_break(on_break: OnBreak | None, error: ClientError) -> None:
    if on_break is None:
        log.warning("%s; the feed begins again", error)
    else:
        on_break(error)
