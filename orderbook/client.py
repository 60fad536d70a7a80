"""The client API of a peer (``api/server.py``), spoken over HTTP with aiohttp.

    async with Client("http://127.0.0.1:8081") as client:
        placed = await client.submit("BTC-USD", "buy", "0.5", "78318.00", owner="bob")
        async for order in client.orders(status="live"):
            ...

Prices and quantities are decimal strings, as everywhere outside a peer.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from typing import Any, TypeVar
from urllib.parse import quote, urlsplit

import aiohttp
import msgspec
from msgspec import Struct

from . import limits
from .errors import InvalidFieldError
from .feed_reader import BookReplica
from .records import (
    BookRecord,
    Cancelled,
    Cursor,
    DoubtList,
    DoubtRecord,
    ErrorAnswer,
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

TIMEOUT_S = 30.0
"""Time limit of one call. An order's way through the network takes a few seconds at the worst."""
CONNECTIONS = 100
"""Open connections of one client; further calls wait for one, within their time limit."""
ANSWER_BYTES = 64 * 1024 * 1024
"""Largest answer read: several times that of the longest page."""
FEED_LINE_BYTES = 1024 * 1024
"""Longest line of a feed: twice that of 250 trades with the longest names, of which each character of other
peers' takes six bytes of JSON."""
ERROR_TEXT = 300
"""Characters kept of an answer that we do not understand."""


class ClientError(Exception):
    """The common base: a call to a peer's client API did not do what it should.

    Attributes:
        api: URL of the peer's client API.
    """

    def __init__(self, api: str, text: str):
        super().__init__(text)
        self.api = api


class RefusedError(ClientError):
    """The peer said no, and has changed nothing.

    Attributes:
        code: Why, for programs: ``invalid_field``, ``unknown_order``, ``order_closed``, ``busy``, …
        field: The field that broke a rule, or None.
    """

    def __init__(self, api: str, code: str, message: str, field: str | None = None):
        super().__init__(api, message)
        self.code = code
        self.field = field


class PeerFailedError(ClientError):
    """The peer cannot be reached, does not answer in time, or not as this API does.

    Attributes:
        in_doubt: Whether what was asked for may have been done all the same.
    """

    def __init__(self, api: str, reason: str, *, in_doubt: bool = False):
        super().__init__(api, f"{api}: {reason}")
        self.in_doubt = in_doubt


Answer = TypeVar("Answer", bound=Struct)


class Client:
    """Calls the client API of one peer. Use it as an async context manager, or call :meth:`close`.

    All methods raise :class:`RefusedError` when the peer says no, and :class:`PeerFailedError` when it does
    not answer within ``timeout_s`` seconds, or not as it should.
    """

    def __init__(self, api: str, *, timeout_s: float = TIMEOUT_S, connections: int = CONNECTIONS):
        """``api``: a URL such as ``"http://127.0.0.1:8081"``; ``http://`` may be left out.

        Raises:
            InvalidFieldError: It is no such URL.
        """
        self.api = check_api(api)
        self._timeout = aiohttp.ClientTimeout(total=timeout_s)
        self._connections = connections
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close all connections."""
        if self._session is not None:
            await self._session.close()

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
                it is safe to ask again after a :class:`PeerFailedError`.
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
        return await self._call("POST", "/orders", Placed, body=msgspec.json.encode(order))

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
        return await self._call("POST", "/pairs", PlacedPair, body=msgspec.json.encode(pair))

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
        return (await self._call("PUT", "/quotes", QuotedOrders, body=body)).orders

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
        return await self._call("PATCH", f"/orders/{quote(order_id, safe='')}", Placed, body=body)

    async def cancel(self, order_id: str) -> OrderRecord:
        """Take an order back. What is reserved of it may still trade; then it is ``pending_cancel``."""
        return (await self._call("DELETE", f"/orders/{quote(order_id, safe='')}", Cancelled)).order

    async def order(self, order_id: str) -> Placed:
        """An order and its trades."""
        return await self._call("GET", f"/orders/{quote(order_id, safe='')}", Placed)

    async def orders_page(
        self,
        *,
        status: str | None = None,
        market: str | None = None,
        after: Cursor | None = None,
        limit: int | None = None,
    ) -> OrderPage:
        """One page of orders, in order of arrival; ``status`` may also be ``"live"`` or ``"closed"``."""
        query = {"status": status, "market": market, "after": after, "limit": limit}
        return await self._call("GET", "/orders", OrderPage, query)

    async def orders(
        self, *, status: str | None = None, market: str | None = None
    ) -> AsyncGenerator[OrderRecord, None]:
        """All orders, page by page."""
        after: Cursor | None = None
        while True:
            page = await self.orders_page(
                status=status, market=market, after=after, limit=limits.PAGE_DEFAULT
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
        return await self._call(
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
        return await self._call("GET", f"/trades/{quote(match_id, safe='')}/proof", ProofRecord)

    async def doubts(self, *, market: str | None = None) -> list[DoubtRecord]:
        """Confirmations that other peers have not answered."""
        return (await self._call("GET", "/doubts", DoubtList, {"market": market})).doubts

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
        return await self._call("POST", path, Placed, body=msgspec.json.encode(said))

    async def book(self, market: str, levels: int | None = None) -> BookRecord:
        """The best ``levels`` prices of both sides and what is open there."""
        return await self._call("GET", f"/book/{quote(market, safe='')}", BookRecord, {"levels": levels})

    async def follow(self, market: str, levels: int = limits.FEED_LEVELS) -> AsyncGenerator[BookRecord, None]:
        """The best ``levels`` prices of both sides, now and again whenever they have changed.

        Whoever is slow to ask for the next one misses those in between, never the last one. It ends with a
        :class:`PeerFailedError` when the connection does, or when a line is missing or wrong by its checksum;
        to begin again is to go on.
        """
        replica = BookReplica(levels)
        async with aclosing(self._lines(f"/feed/{quote(market, safe='')}", {"levels": levels})) as lines:
            async for data in lines:
                try:
                    changed = replica.apply(msgspec.json.decode(data, type=FeedLine))
                except (msgspec.DecodeError, UnicodeDecodeError, ValueError) as error:
                    raise PeerFailedError(self.api, f"its feed is broken: {error}") from error
                if changed:
                    yield BookRecord(market, *replica.sides())

    async def follow_trades(self, market: str, after: int | None = None) -> AsyncGenerator[TradePage, None]:
        """The trades of a market as they are executed, page by page: none is missing, none comes twice.

        It ends with a :class:`PeerFailedError` when the connection does. ``next`` of the last page is what to
        pass as ``after`` to go on from there, also after the peer has started again, if it keeps a journal.

        Args:
            after: Begin after so many trades of the peer; 0: with its first one; None: with the next one.
                Then the first page says at once where that is, and may be empty; later ones never are.
        """
        query = {} if after is None else {"after": after}
        async with aclosing(self._lines(f"/feed/{quote(market, safe='')}/trades", query)) as lines:
            async for data in lines:
                try:
                    page = msgspec.json.decode(data, type=TradePage)
                except (msgspec.DecodeError, UnicodeDecodeError) as error:
                    raise PeerFailedError(self.api, f"its feed is broken: {error}") from error
                if after is not None and page.next != after + len(page.trades):
                    raise PeerFailedError(self.api, f"its feed is broken: trades after {after} are missing")
                if page.trades or after is None:
                    yield page
                after = int(page.next or 0)

    async def peers(self) -> list[PeerRecord]:
        """The other peers that this one knows."""
        return (await self._call("GET", "/peers", PeerList)).peers

    async def reservations(self, *, market: str | None = None) -> list[ReservationRecord]:
        """What the peer has set aside for others, in order of expiry."""
        return (await self._call("GET", "/reservations", ReservationList, {"market": market})).reservations

    async def set_state(self, market: str, state: str, by: str) -> StateRecord:
        """Open, restrict or halt a market at the peer; the others trade on.

        Args:
            state: ``"open"``, ``"cancel_only"`` or ``"halted"``.
            by: Who has decided; it is journaled.
        """
        body = msgspec.json.encode({"state": state, "by": by})
        return await self._call("PUT", f"/state/{quote(market, safe='')}", StateRecord, body=body)

    async def health(self) -> Health:
        """The figures of all markets of the peer."""
        return await self._call("GET", "/healthz", Health)

    async def _lines(self, path: str, query: Mapping[str, str | int]) -> AsyncGenerator[bytes, None]:
        """The lines of an answer that does not end."""
        silence = aiohttp.ClientTimeout(total=None, sock_connect=TIMEOUT_S, sock_read=2 * limits.FEED_IDLE_S)
        try:
            async with self._opened().get(
                self.api + path,
                params=query,
                timeout=silence,
                allow_redirects=False,
                read_bufsize=FEED_LINE_BYTES,
            ) as response:
                if response.status != 200:
                    self._understand(response.status, await self._read(response) or b"", Health, False)
                async for line in response.content:
                    yield line
        except (aiohttp.ClientError, asyncio.TimeoutError, OSError, ValueError) as error:
            reason = f"the feed broke off: {error or type(error).__name__}"
            raise PeerFailedError(self.api, reason) from error
        raise PeerFailedError(self.api, "the feed has ended")

    # -- calls -------------------------------------------------------------------------------------------

    def _next(self, following: Cursor | None, after: Cursor | None, rows: int) -> Cursor | None:
        """The cursor of the next page; a peer whose pages lead nowhere is not followed for ever."""
        if following is not None and (not rows or following == after):
            raise PeerFailedError(self.api, "its pages do not end")
        return following

    async def _call(
        self,
        method: str,
        path: str,
        kind: type[Answer],
        query: Mapping[str, str | int | None] | None = None,
        body: bytes | None = None,
    ) -> Answer:
        changes = method != "GET"
        try:
            async with self._opened().request(
                method,
                self.api + path,
                params={name: value for name, value in (query or {}).items() if value is not None},
                data=body,
                headers={"Content-Type": "application/json"} if body is not None else None,
                allow_redirects=False,
            ) as response:
                content = await self._read(response)
        except aiohttp.ClientConnectorError as error:
            reason = f"cannot be reached: {error.os_error.strerror or error.os_error}"
            raise PeerFailedError(self.api, reason) from error
        except asyncio.TimeoutError as error:
            limit_s = self._timeout.total
            raise PeerFailedError(self.api, f"no answer within {limit_s:g} s", in_doubt=changes) from error
        except (aiohttp.ClientError, OSError) as error:
            reason = f"the connection broke: {error or type(error).__name__}"
            raise PeerFailedError(self.api, reason, in_doubt=changes) from error
        if content is None:
            reason = f"an answer of more than {ANSWER_BYTES} bytes"
            raise PeerFailedError(self.api, reason, in_doubt=changes)
        return self._understand(response.status, content, kind, changes)

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:  # made here, because aiohttp wants a running loop
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=self._connections),
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=self._timeout,
            )
        return self._session

    async def _read(self, response: aiohttp.ClientResponse) -> bytes | None:
        """The whole answer, or None when it is too long."""
        content = bytearray()
        while part := await response.content.readany():
            content += part
            if len(content) > ANSWER_BYTES:
                return None
        return bytes(content)

    def _understand(self, status: int, content: bytes, kind: type[Answer], changes: bool) -> Answer:
        try:
            if status < 300:
                return msgspec.json.decode(content, type=kind)
            error = msgspec.json.decode(content, type=ErrorAnswer).error
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            said = content[:ERROR_TEXT].decode(errors="replace")
            reason = f"is this the client API of a peer? Status {status}, {said!r}"
            raise PeerFailedError(self.api, reason, in_doubt=changes) from None
        if status == 500:
            raise PeerFailedError(self.api, error.message, in_doubt=changes)
        raise RefusedError(self.api, error.code, error.message, error.field)


def check_api(api: str) -> str:
    """``api`` as a URL without a path: ``http://127.0.0.1:8081``. Raises InvalidFieldError."""
    url = api if "://" in api else f"http://{api}"
    try:
        parts = urlsplit(url)
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        valid = False
    if not valid or parts.path not in ("", "/") or parts.query or parts.fragment or not url.isprintable():
        raise InvalidFieldError("api", "must be a URL such as http://127.0.0.1:8081")
    return f"{parts.scheme}://{parts.netloc}"
