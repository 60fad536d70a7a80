"""The client API of a peer: JSON over HTTP, meant for loopback.

    POST   /orders           {market, side, quantity, price, owner, client_order_id?, type?, time_in_force?,
                              post_only?, stop_price?, display?, expires_ms?, self_trade?}
                                                              -> 201 {order, trades}
    POST   /pairs            {market, side, owner, resting, stop}: of each {quantity, price, …} as above
                                                              -> 201 {resting: {order, trades}, stop: {…}}
    PUT    /quotes           {market, owner, quotes: [{client_order_id, side, price, quantity}, …]}
                                                              -> {orders}, null for what is not there
    GET    /orders           ?market= status= after= limit=   -> {orders, next}
    GET    /orders/{id}                                       -> {order, trades}
    PATCH  /orders/{id}      {price?, quantity?}               -> {order, trades}
    DELETE /orders/{id}                                       -> {order}
    GET    /book/{market}    ?levels=                         -> {market, bids, asks}
    GET    /feed/{market}    ?levels=                         -> a line for each change: see feed.py
    PUT    /state/{market}   {state, by}                      -> {market, state}
    GET    /trades           ?market= after= limit=           -> {trades, next}
    GET    /trades/{match_id}/proof  ?taker=                  -> {match_id, request, answer}
    GET    /doubts           ?market=                         -> {doubts}
    POST   /doubts/{match_id}  {outcome, by} or {proof}       -> {order, trades}
    GET    /peers                                             -> {peers}
    GET    /reservations     ?market= limit=                  -> {reservations}
    GET    /metrics                                           -> text for Prometheus
    GET    /healthz                                           -> {status, peer, key, markets}

Prices and quantities are decimal strings, times are milliseconds since the epoch. ``next`` is what to pass
as ``after`` for the next page, or null. An error is ``{"error": {"code", "message", "field"?}}`` with a
status of 400 or more, and has changed nothing.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from typing import Any
from urllib.parse import urlsplit

import msgspec
from aiohttp import web

from grenache_py.prometheus import CONTENT_TYPE
from grenache_py.tasks import end_tasks

from . import limits, metrics
from .entry import Amendment, NewOrder, NewPair, NewQuote
from .errors import BusyError, InvalidFieldError, OrderBookError
from .feed import BookFeed
from .hosted import HostedMarket
from .market import Market
from .model import Order, OrderStatus, Side
from .signing.proofs import Proof
from .worker import Worker

log = logging.getLogger(__name__)

STATUS_OF_CODE = {
    "unknown_market": 404,
    "unknown_order": 404,
    "unknown_proof": 404,
    "unknown_doubt": 404,
    "order_closed": 409,
    "duplicate_order": 409,
    "under_way": 409,
    "being_cancelled": 409,
    "price_reserved": 409,
    "quantity_gone": 409,
    "post_only_crosses": 409,
    "halted": 409,
    "cancel_only": 409,
    "busy": 503,
    "journal": 503,
}
"""HTTP status by the ``code`` of an OrderBookError; 400 for the others."""

STATUSES = {
    "live": [status for status in OrderStatus if not status.closed],
    "closed": [status for status in OrderStatus if status.closed],
    **{status.value: [status] for status in OrderStatus},
}
"""What ``GET /orders?status=`` selects."""

ORDER_FIELDS = ("market", "side", "quantity", "owner")
COMMON_FIELDS = ("market", "side", "owner")
PAIR_LEGS = ("resting", "stop")
PAIR_FIELDS = COMMON_FIELDS + PAIR_LEGS
QUOTES_FIELDS = ("market", "owner", "quotes")
OPTIONAL_ORDER_FIELDS = tuple(name for name in NewOrder._fields if name not in ORDER_FIELDS)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Api:
    """Serves the client API of ``worker`` on one address.

    Args:
        worker: The peer.
        host: Where to listen; a loopback address unless whoever reaches it may trade.
        port: 0: any free one.
    """

    def __init__(self, worker: Worker, host: str = "127.0.0.1", port: int = 0):
        self._worker = worker
        self._host = host
        self._port = port
        app = web.Application(client_max_size=limits.API_BODY_BYTES, middlewares=[answer_errors, same_origin])
        app.add_routes(
            [
                web.post("/orders", self._submit),
                web.get("/orders", self._orders),
                web.get("/orders/{id}", self._order),
                web.patch("/orders/{id}", self._amend),
                web.delete("/orders/{id}", self._cancel),
                web.post("/pairs", self._submit_pair),
                web.put("/quotes", self._quote),
                web.get("/book/{market}", self._book),
                web.get("/feed/{market}", self._feed),
                web.put("/state/{market}", self._set_state),
                web.get("/trades", self._trades),
                web.get("/trades/{match_id}/proof", self._proof),
                web.get("/doubts", self._doubts),
                web.post("/doubts/{match_id}", self._resolve),
                web.get("/peers", self._peers),
                web.get("/reservations", self._reservations),
                web.get("/healthz", self._healthz),
                web.get("/metrics", self._metrics),
            ]
        )
        app.on_shutdown.append(self._end_feeds)
        self._feeds: set[asyncio.Task[Any]] = set()
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=limits.STOP_S)

    async def __aenter__(self) -> Api:
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, self._host, self._port).start()
        except OSError:
            await self._runner.cleanup()
            raise
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._runner.cleanup()

    @property
    def url(self) -> str:
        """Where it listens, such as ``"http://127.0.0.1:8081"``."""
        host, port = self._runner.addresses[0][:2]
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    async def _answer(self, content: Any, status: int = 200) -> web.Response:
        """``content``, once all that it may speak of is durable."""
        response = answer(content, status)
        await self._worker.durable()
        return response

    # -- orders ------------------------------------------------------------------------------------------

    async def _submit(self, request: web.Request) -> web.Response:
        fields = json_object(await request.read())
        check_order_fields(fields)
        new = NewOrder(*(fields.get(name) for name in NewOrder._fields))
        order = await self._worker.submit(fields["market"], new)
        return await self._answer(await self._order_and_trades(order), 201)

    async def _submit_pair(self, request: web.Request) -> web.Response:
        fields = json_object(await request.read())
        resting, stop = (leg_of(fields, name) for name in PAIR_LEGS)
        pair = await self._worker.submit_pair(fields["market"], NewPair(resting, stop))
        orders = [await self._order_and_trades(order) for order in pair]
        return await self._answer(dict(zip(PAIR_LEGS, orders, strict=True)), 201)

    async def _quote(self, request: web.Request) -> web.Response:
        body = await request.clone(client_max_size=limits.API_QUOTES_BYTES).read()
        fields = json_object(body)
        quotes = quotes_of(fields)
        orders = await self._worker.mass_quote(fields["market"], fields["owner"], quotes)
        return await self._answer({"orders": [order and self._view(order) for order in orders]})

    async def _order(self, request: web.Request) -> web.Response:
        market = self._worker.market_of(request.match_info["id"])
        order = market.ledger.order(request.match_info["id"])
        return await self._answer(await self._order_and_trades(order))

    async def _order_and_trades(self, order: Order) -> dict[str, Any]:
        market = self._worker.market_of(order.id)
        trades = await self._worker.trades_of_order(order.id)
        return {"order": self._view(order), "trades": [market.record(trade) for trade in trades]}

    async def _amend(self, request: web.Request) -> web.Response:
        fields = json_object(await request.read())
        check_known(fields, Amendment._fields, "a change")
        change = Amendment(*(fields.get(name) for name in Amendment._fields))
        order = await self._worker.amend(request.match_info["id"], change)
        return await self._answer(await self._order_and_trades(order))

    def _view(self, order: Order) -> dict[str, Any]:
        hosted = self._worker.hosted_of(order.id)
        return order_view(hosted.market, order, hosted.negotiator.lots_in_doubt().get(order.id, 0))

    async def _cancel(self, request: web.Request) -> web.Response:
        order = await self._worker.cancel(request.match_info["id"])
        return await self._answer({"order": self._view(order)})

    async def _orders(self, request: web.Request) -> web.Response:
        market = self._one_market(request)
        statuses = None
        if "status" in request.query:
            statuses = STATUSES.get(request.query["status"])
            if statuses is None:
                raise InvalidFieldError("status", f"must be one of {', '.join(STATUSES)}")
        rows, next_after = market.ledger.orders(statuses, *page_of(request))
        doubts = self._worker.markets[market.instrument.market].negotiator.lots_in_doubt()
        views = [order_view(market, order, doubts.get(order.id, 0)) for order in rows]
        return await self._answer({"orders": views, "next": next_after})

    async def _trades(self, request: web.Request) -> web.Response:
        market = self._one_market(request)
        rows, next_after = await self._worker.trades(market.instrument.market, *page_of(request))
        return await self._answer({"trades": [market.record(trade) for trade in rows], "next": next_after})

    async def _proof(self, request: web.Request) -> web.Response:
        signed = await self._worker.signed(request.match_info["match_id"], request.query.get("taker"))
        return answer({"match_id": signed.match_id, "request": signed.request, "answer": signed.answer})

    # -- doubts ------------------------------------------------------------------------------------------

    async def _doubts(self, request: web.Request) -> web.Response:
        hosted = self._worker.markets[self._one_market(request).instrument.market]
        record = hosted.market.instrument
        rows = [
            {
                "match_id": match_id,
                "market": record.market,
                "order_id": doubt.order.id,
                "side": doubt.order.side.value,
                "quantity": record.quantity_text(doubt.quantity),
                "maker": doubt.maker,
                "key": doubt.key,
                "destination": doubt.destination,
                "asked": doubt.silences,
                "fills": [
                    {
                        "order_id": fill.order_id,
                        "price": record.price_text(fill.price),
                        "quantity": record.quantity_text(fill.quantity),
                    }
                    for fill in doubt.fills
                ],
            }
            for match_id, doubt in hosted.negotiator.doubts()
        ]
        return await self._answer({"doubts": rows})

    async def _resolve(self, request: web.Request) -> web.Response:
        body = await request.clone(client_max_size=limits.API_PROOF_BYTES).read()
        fields, match_id = json_object(body), request.match_info["match_id"]
        if "proof" in fields:
            check_known(fields, ("proof",), "a proven doubt")
            order = await self._worker.prove(match_id, proof_of(fields["proof"]))
        else:
            check_known(fields, ("outcome", "by"), "a settled doubt")
            order = await self._worker.resolve(match_id, fields.get("outcome"), fields.get("by"))
        return await self._answer(await self._order_and_trades(order))

    def _one_market(self, request: web.Request) -> Market:
        """The market asked for; a peer of a single one needs no asking."""
        name = request.query.get("market")
        if name is None and len(self._worker.markets) > 1:
            raise InvalidFieldError("market", f"must be one of {', '.join(self._worker.markets)}")
        return self._worker.market(name or next(iter(self._worker.markets)))

    # -- views -------------------------------------------------------------------------------------------

    async def _book(self, request: web.Request) -> web.Response:
        market = self._worker.market(request.match_info["market"])
        levels = number(request, "levels", limits.BOOK_LEVELS, 1, limits.PAGE_MAX)
        sides = {
            name: [
                (market.instrument.price_text(price), market.instrument.quantity_text(quantity))
                for price, quantity in market.book.depth(side, levels)
            ]
            for name, side in (("bids", Side.BUY), ("asks", Side.SELL))
        }
        return await self._answer({"market": market.instrument.market, **sides})

    async def _feed(self, request: web.Request) -> web.StreamResponse:
        hosted = self._worker.markets[self._worker.market(request.match_info["market"]).instrument.market]
        levels = number(request, "levels", limits.FEED_LEVELS, 1, limits.FEED_LEVELS_MAX)
        task = asyncio.current_task()
        assert task is not None
        if len(self._feeds) >= limits.FEEDS:
            raise BusyError(f"this peer has {limits.FEEDS} readers of feeds already")
        response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
        self._feeds.add(task)
        try:
            await response.prepare(request)
            async with aclosing(lines_of(hosted, levels)) as lines:
                async for line in lines:
                    await asyncio.wait_for(response.write(line), limits.FEED_IDLE_S)
        except (ConnectionError, asyncio.TimeoutError):
            pass  # the reader has gone, or does not read
        finally:
            self._feeds.discard(task)
        return response

    async def _end_feeds(self, app: web.Application) -> None:
        await end_tasks(self._feeds)

    async def _set_state(self, request: web.Request) -> web.Response:
        fields = json_object(await request.read())
        check_known(fields, ("state", "by"), "a state")
        market = self._worker.market(request.match_info["market"])
        name = market.instrument.market
        await self._worker.set_state(name, fields.get("state"), fields.get("by"))
        return await self._answer({"market": name, "state": market.book.state.value})

    async def _peers(self, request: web.Request) -> web.Response:
        rows = []
        for name, hosted in self._worker.markets.items():
            now = hosted.market.clock.monotonic()
            rows += [
                {
                    "name": peer.name,
                    "key": None if peer.name is None else hosted.channel.gate.keyring.key_of(peer.name),
                    "destination": peer.destination,
                    "market": name,
                    "heard_s_ago": None if peer.heard is None else round(now - peer.heard, 3),
                    "refused": peer.refused,
                }
                for peer in hosted.market.roster.all()
            ]
        return await self._answer({"peers": rows})

    async def _reservations(self, request: web.Request) -> web.Response:
        """What is set aside for other peers, and would be free again first, first."""
        market = self._one_market(request)
        now, record = market.clock.monotonic(), market.instrument
        held = sorted(market.book.reservations.values(), key=lambda reservation: reservation.expires)
        rows = [
            {
                "lock_id": reservation.id,
                "peer": reservation.counterparty,
                "for_order": reservation.purpose,
                "market": record.market,
                "expires_in_s": round(reservation.expires - now, 3),
                "fills": [
                    {
                        "order_id": fill.order.id,
                        "side": fill.order.side.value,
                        "price": record.price_text(fill.order.price),
                        "quantity": record.quantity_text(fill.quantity),
                    }
                    for fill in reservation.fills
                ],
            }
            for reservation in held[: page_of(request)[1]]
        ]
        return answer({"reservations": rows})

    async def _metrics(self, request: web.Request) -> web.Response:
        return web.Response(body=metrics.render(self._worker), headers={"Content-Type": CONTENT_TYPE})

    async def _healthz(self, request: web.Request) -> web.Response:
        markets = {name: market_view(hosted) for name, hosted in self._worker.markets.items()}
        troubles = [hosted.journal.trouble for hosted in self._worker.markets.values()]
        status = next((trouble for trouble in troubles if trouble is not None), "ok")
        return answer(
            {"status": status, "peer": self._worker.name, "key": self._worker.key, "markets": markets}
        )


async def lines_of(hosted: HostedMarket, levels: int) -> AsyncGenerator[bytes, None]:
    """The lines of a feed, each once all that it tells is durable."""
    feed, changed = BookFeed(hosted.market, levels), asyncio.Event()
    hosted.watchers.add(changed)
    try:
        line: dict[str, Any] | None = feed.snapshot()
        while True:
            if line is not None:
                data = msgspec.json.encode(line)
                await hosted.durable()
                yield data + b"\n"
                await asyncio.sleep(limits.FEED_PAUSE_S)
            try:
                await asyncio.wait_for(changed.wait(), limits.FEED_IDLE_S)
                changed.clear()
                line = feed.delta()
            except asyncio.TimeoutError:
                line = feed.alive()
    finally:
        hosted.watchers.discard(changed)


def json_object(body: bytes) -> dict[str, Any]:
    """What a client has sent. Raises InvalidFieldError."""
    try:
        fields = msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError) as error:
        raise InvalidFieldError("body", f"must be a JSON object: {error}") from None
    if not isinstance(fields, dict):
        raise InvalidFieldError("body", "must be a JSON object")
    return fields


def proof_of(field: object) -> Proof:
    """Raises InvalidFieldError."""
    try:
        return msgspec.convert(field, Proof)
    except (msgspec.ValidationError, RecursionError) as error:
        raise InvalidFieldError(
            "proof", f"must be what GET /trades/{{match_id}}/proof gives: {error}"
        ) from None


def leg_of(fields: dict[str, Any], name: str) -> NewOrder:
    """One order of a pair, whose common fields stand beside it. Raises InvalidFieldError."""
    for field in PAIR_FIELDS:
        if field not in fields:
            raise InvalidFieldError(field, "is required")
    check_known(fields, PAIR_FIELDS, "a pair")
    leg = fields[name]
    if not isinstance(leg, dict):
        raise InvalidFieldError(name, "must be a JSON object")
    for field in COMMON_FIELDS:
        if field in leg:
            raise InvalidFieldError(f"{name}.{field}", "is that of the pair, and stands beside its orders")
    order = {**{field: fields[field] for field in COMMON_FIELDS}, **leg}
    check_order_fields(order, f"{name}.")
    return NewOrder(*(order.get(field) for field in NewOrder._fields))


def quotes_of(fields: dict[str, Any]) -> list[NewQuote]:
    """Raises InvalidFieldError."""
    for name in QUOTES_FIELDS:
        if name not in fields:
            raise InvalidFieldError(name, "is required")
    check_known(fields, QUOTES_FIELDS, "a mass quote")
    quotes = fields["quotes"]
    if not isinstance(quotes, list) or not 1 <= len(quotes) <= limits.MASS_QUOTE:
        raise InvalidFieldError("quotes", f"must be a list of 1 to {limits.MASS_QUOTE} quotes")
    for place, quote in enumerate(quotes):
        if not isinstance(quote, dict):
            raise InvalidFieldError(f"quotes[{place}]", "must be a JSON object")
        check_known(quote, NewQuote._fields, "a quote", f"quotes[{place}].")
    return [NewQuote(*(quote.get(name) for name in NewQuote._fields)) for quote in quotes]


def check_order_fields(fields: dict[str, Any], of: str = "") -> None:
    """Whether a new order has the fields that it needs, and no others. Raises InvalidFieldError, which names
    them after ``of``."""
    required = ORDER_FIELDS if fields.get("type") == "market" else (*ORDER_FIELDS, "price")
    for name in required:
        if name not in fields:
            raise InvalidFieldError(of + name, "is required")
    check_known(fields, ORDER_FIELDS + OPTIONAL_ORDER_FIELDS, "an order", of)


def check_known(fields: dict[str, Any], known: Sequence[str], what: str, of: str = "") -> None:
    """Whether ``fields`` are all among ``known``: a mistyped one is not silently left out."""
    for name in fields:
        if name not in known:
            names = ", ".join(known)
            raise InvalidFieldError(
                of + name[: limits.NAME_LENGTH], f"is no field of {what}; they are {names}"
            )


def page_of(request: web.Request) -> tuple[int, int]:
    """``after`` and ``limit``. Raises InvalidFieldError."""
    after = number(request, "after", 0, 0, 2**63)
    return after, number(request, "limit", limits.PAGE_DEFAULT, 1, limits.PAGE_MAX)


def number(request: web.Request, name: str, default: int, least: int, most: int) -> int:
    text = request.query.get(name)
    if text is None:
        return default
    if text.isascii() and text.isdigit() and len(text) < 20 and least <= int(text) <= most:
        return int(text)
    raise InvalidFieldError(name, f"must be a whole number from {least} to {most}")


def order_view(market: Market, order: Order, in_doubt: int) -> dict[str, Any]:
    """An order as clients see it; ``in_doubt`` lots of what is reserved are."""
    price_text, quantity_text = market.instrument.price_text, market.instrument.quantity_text
    terms = order.terms
    return {
        "id": order.id,
        "market": market.instrument.market,
        "side": order.side.value,
        "type": "market" if terms.market else "limit",
        "price": None if terms.market else price_text(order.price),
        "quantity": quantity_text(order.quantity),
        "filled": quantity_text(order.filled),
        "open": quantity_text(order.open),
        "reserved": quantity_text(order.reserved),
        "in_doubt": quantity_text(in_doubt),
        "cancelled": quantity_text(order.cancelled),
        "status": order.status.value,
        "reason": order.reason,
        "owner": order.owner,
        "client_order_id": order.client_order_id,
        "time_in_force": terms.time_in_force.value,
        "post_only": None if terms.post_only is None else terms.post_only.value,
        "stop_price": None if terms.stop_price is None else price_text(terms.stop_price),
        "display": None if terms.display is None else quantity_text(terms.display),
        "expires_ms": terms.expires_ms,
        "self_trade": terms.self_trade.value,
        "partner": order.partner,
        "amended": market.ledger.was_amended(order),
        "time": order.time_ms,
    }


def market_view(hosted: HostedMarket) -> dict[str, Any]:
    """The figures of one market that an operator watches."""
    market, negotiator = hosted.market, hosted.negotiator
    best: dict[str, str | None] = {}
    for name, side in (("best_bid", Side.BUY), ("best_ask", Side.SELL)):
        price = market.book.best(side)
        best[name] = None if price is None else market.instrument.price_text(price)
    return {
        "state": market.book.state.value,
        "open_orders": len(market.book.orders),
        "reservations": len(market.book.reservations),
        "under_way": negotiator.under_way,
        "in_doubt": negotiator.in_doubt,
        "orders": market.ledger.order_count,
        "trades": market.ledger.trade_count,
        "cross_peer_trades": market.ledger.cross_peer_trades,
        "journal_waiting": hosted.journal.waiting,
        "peers": len(market.roster.trading()),
        **best,
    }


def answer(content: Any, status: int = 200) -> web.Response:
    return web.Response(body=msgspec.json.encode(content), status=status, content_type="application/json")


def error_answer(status: int, code: str, message: str, field: str | None = None) -> web.Response:
    error = {"code": code, "message": message}
    if field is not None:
        error["field"] = field
    return answer({"error": error}, status)


@web.middleware
async def answer_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Every failure is a JSON error; what we did not foresee is logged and told apart as ``internal``."""
    try:
        return await handler(request)
    except InvalidFieldError as error:
        return error_answer(400, error.code, str(error), error.field)
    except OrderBookError as error:
        return error_answer(STATUS_OF_CODE.get(error.code, 400), error.code, str(error))
    except web.HTTPRequestEntityTooLarge:
        return error_answer(413, "too_large", f"the body must be at most {limits.API_BODY_BYTES} bytes")
    except web.HTTPNotFound:
        return error_answer(
            404,
            "not_found",
            "no such path; see /orders, /pairs, /quotes, /book/{market}, /trades, /peers, /healthz",
        )
    except web.HTTPMethodNotAllowed as error:
        allowed = ", ".join(sorted(error.allowed_methods))
        response = error_answer(405, "method_not_allowed", f"{request.path} takes {allowed}")
        response.headers["Allow"] = allowed
        return response
    except web.HTTPException as error:
        return error_answer(error.status, "http", error.reason)
    except Exception:
        log.exception("%s %s", request.method, request.path)
        return error_answer(500, "internal", "this is a fault of the peer; its log says more")


@web.middleware
async def same_origin(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Keep web pages of other origins from trading through the browser of someone who runs a peer."""
    origin = request.headers.get("Origin")
    if origin is not None and urlsplit(origin).netloc != request.host:
        return error_answer(403, "foreign_origin", "pages of another origin may not use this API")
    return await handler(request)
