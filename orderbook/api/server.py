"""The client API of a peer: JSON over HTTP, meant for loopback.

    POST   /orders           {market, side, quantity, price, owner, client_order_id?, type?, time_in_force?,
                              post_only?, stop_price?, display?, expires_ms?, self_trade?}
                                                              -> 201 {order, trades}
    POST   /pairs            {market, side, owner, resting, stop}: of each {quantity, price, …} as above
                                                              -> 201 {resting: {order, trades}, stop: {…}}
    PUT    /quotes           {market, owner, quotes: [{client_order_id, side, price, quantity}, …]}
                                                              -> {orders}, null for what is not there
    GET    /orders           ?market= status= owner= client_order_id= after= limit=  -> {orders, next}
    GET    /orders/{id}      ?wait_ms= filled=                -> {order, trades}, if asked to wait when it has
                                                              closed, or has filled more than that
    PATCH  /orders/{id}      {price?, quantity?}               -> {order, trades}
    DELETE /orders/{id}                                       -> {order}
    GET    /book/{market}    ?levels=                         -> {market, bids, asks}
    GET    /feed/{market}    ?levels=                         -> a line for each change: see feed.py
    GET    /feed/{market}/trades  ?after=                     -> a line {trades, next} for new ones
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
as ``after`` for the next page, or null. ``records`` has the answers in full. An error is
``{"error": {"code", "message", "field"?}}`` with a status of 400 or more, and has changed nothing.
"""

from __future__ import annotations

import ipaddress
import logging
from collections.abc import Awaitable, Callable
from urllib.parse import urlsplit

import msgspec
from aiohttp import web
from msgspec import Struct

from grenache_py.hosts import is_address
from grenache_py.prometheus import CONTENT_TYPE

from .. import limits, metrics
from ..entry import Amendment, NewOrder, NewPair
from ..errors import InvalidFieldError, OrderBookError
from ..hosted import HostedMarket
from ..model import Order, OrderStatus
from ..records import (
    Cancelled,
    DoubtList,
    ErrorAnswer,
    ErrorRecord,
    Health,
    OrderPage,
    OrderRecord,
    PeerList,
    Placed,
    PlacedPair,
    ProofRecord,
    QuotedOrders,
    ReservationList,
    StateRecord,
    TradePage,
)
from ..worker import Worker
from . import views
from .feeds import book_lines, send, trade_lines
from .fields import (
    PAIR_LEGS,
    check_known,
    check_order_fields,
    filled_of,
    json_object,
    leg_of,
    number,
    page_limit,
    page_of,
    proof_of,
    quotes_of,
)
from .readers import Readers
from .trades import found, page_after, place_of
from .waits import Waits

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
    "history_lost": 410,
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
        middlewares = [answer_errors, self._known_host, same_origin]
        app = web.Application(client_max_size=limits.API_BODY_BYTES, middlewares=middlewares)
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
                web.get("/feed/{market}/trades", self._trades_feed),
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
        self._feeds = Readers(limits.FEEDS, "of feeds")
        self._waits = Waits()
        for readers in (self._feeds, self._waits.readers):
            app.on_shutdown.append(readers.end)
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

    @web.middleware
    async def _known_host(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Keep a web page's name out that was made to lead to this machine: to the browser all of it is one
        origin (DNS rebinding)."""
        if is_loopback(request) and not is_local(request.host, self._host):
            return error_answer(
                403,
                "foreign_host",
                "over loopback the header Host must be an address, localhost or the name in --api: "
                "call the peer by its address, and let a proxy send that as Host",
            )
        return await handler(request)

    async def _answer(self, content: Struct, status: int = 200) -> web.Response:
        """``content``, once all that it may speak of is durable: what a change came to."""
        response = answer(content, status)
        await self._worker.durable()
        return response

    async def _show(self, content: Struct) -> web.Response:
        """The same for who only looks. Raises JournalError where it never will be durable."""
        response = answer(content)
        await self._worker.readable()
        return response

    # -- orders ------------------------------------------------------------------------------------------

    async def _submit(self, request: web.Request) -> web.Response:
        fields = json_object(await request.read())
        check_order_fields(fields)
        new = NewOrder(*(fields.get(name) for name in NewOrder._fields))
        order = await self._worker.submit(fields["market"], new)
        return await self._answer(await self._placed(order), 201)

    async def _submit_pair(self, request: web.Request) -> web.Response:
        fields = json_object(await request.read())
        resting, stop = (leg_of(fields, name) for name in PAIR_LEGS)
        pair = await self._worker.submit_pair(fields["market"], NewPair(resting, stop))
        placed = [await self._placed(order) for order in pair]
        return await self._answer(PlacedPair(*placed), 201)

    async def _quote(self, request: web.Request) -> web.Response:
        body = await request.clone(client_max_size=limits.API_QUOTES_BYTES).read()
        fields = json_object(body)
        quotes = quotes_of(fields)
        orders = await self._worker.mass_quote(fields["market"], fields["owner"], quotes)
        there = [order for order in orders if order is not None]
        records = iter(views.order_records(self._hosted(fields["market"]), there))
        rows = [None if order is None else next(records) for order in orders]
        return await self._answer(QuotedOrders(rows))

    async def _order(self, request: web.Request) -> web.Response:
        hosted = self._worker.hosted_of(request.match_info["id"])
        order = hosted.market.ledger.order(request.match_info["id"])
        wait_ms = number(request.query, "wait_ms", 0, 0, limits.WAIT_MS_MAX)
        seen = filled_of(request.query, hosted.market.instrument)
        if wait_ms:

            def over() -> bool:
                return not order.live or (seen is not None and order.filled > seen)

            await self._waits.until(hosted, over, lambda: request.transport is None, wait_ms / 1000)
        return await self._show(await self._placed(order))

    async def _placed(self, order: Order) -> Placed:
        trades = await self._worker.trades_of_order(order.id)
        return views.placed(self._worker.hosted_of(order.id), order, trades)

    async def _amend(self, request: web.Request) -> web.Response:
        fields = json_object(await request.read())
        check_known(fields, Amendment._fields, "a change")
        change = Amendment(*(fields.get(name) for name in Amendment._fields))
        order = await self._worker.amend(request.match_info["id"], change)
        return await self._answer(await self._placed(order))

    def _record(self, order: Order) -> OrderRecord:
        return views.order_records(self._worker.hosted_of(order.id), [order])[0]

    async def _cancel(self, request: web.Request) -> web.Response:
        order = await self._worker.cancel(request.match_info["id"])
        return await self._answer(Cancelled(self._record(order)))

    async def _orders(self, request: web.Request) -> web.Response:
        hosted = self._one_market(request)
        statuses = None
        if "status" in request.query:
            statuses = STATUSES.get(request.query["status"])
            if statuses is None:
                raise InvalidFieldError("status", f"must be one of {', '.join(STATUSES)}")
        owner, named = request.query.get("owner"), request.query.get("client_order_id")
        after, limit = page_of(request.query)
        ledger, next_after = hosted.market.ledger, None
        if named is None:
            rows, next_after = ledger.orders(statuses, after, limit, owner)
        elif owner is None:
            raise InvalidFieldError("owner", "must be given with client_order_id, which is its own")
        else:
            order = ledger.order_of_client(owner, named)
            rows = [] if order is None or (statuses and order.status not in statuses) else [order]
        return await self._show(OrderPage(views.order_records(hosted, rows), next_after))

    async def _trades(self, request: web.Request) -> web.Response:
        hosted = self._one_market(request)
        after = await found(hosted, place_of(request.query.get("after", "0")))
        page, _, more = await page_after(hosted, after, page_limit(request.query))
        return await self._show(page if more else TradePage(page.trades, None))

    async def _proof(self, request: web.Request) -> web.Response:
        signed = await self._worker.signed(request.match_info["match_id"], request.query.get("taker"))
        return answer(ProofRecord(signed.match_id, signed.request, signed.answer))

    # -- doubts ------------------------------------------------------------------------------------------

    async def _doubts(self, request: web.Request) -> web.Response:
        return await self._show(DoubtList(views.doubt_records(self._one_market(request))))

    async def _resolve(self, request: web.Request) -> web.Response:
        body = await request.clone(client_max_size=limits.API_PROOF_BYTES).read()
        fields, match_id = json_object(body), request.match_info["match_id"]
        if "proof" in fields:
            check_known(fields, ("proof",), "a proven doubt")
            order = await self._worker.prove(match_id, proof_of(fields["proof"]))
        else:
            check_known(fields, ("outcome", "by"), "a settled doubt")
            order = await self._worker.resolve(match_id, fields.get("outcome"), fields.get("by"))
        return await self._answer(await self._placed(order))

    def _one_market(self, request: web.Request) -> HostedMarket:
        """The market asked for; a peer of a single one needs no asking."""
        name = request.query.get("market")
        if name is None and len(self._worker.markets) > 1:
            raise InvalidFieldError("market", f"must be one of {', '.join(self._worker.markets)}")
        return self._hosted(name or next(iter(self._worker.markets)))

    def _hosted(self, name: str) -> HostedMarket:
        """Raises UnknownMarketError."""
        return self._worker.markets[self._worker.market(name).instrument.market]

    # -- views -------------------------------------------------------------------------------------------

    async def _book(self, request: web.Request) -> web.Response:
        market = self._worker.market(request.match_info["market"])
        levels = number(request.query, "levels", limits.BOOK_LEVELS, 1, limits.PAGE_MAX)
        return await self._show(views.book_record(market, levels))

    async def _feed(self, request: web.Request) -> web.StreamResponse:
        hosted = self._hosted(request.match_info["market"])
        levels = number(request.query, "levels", limits.FEED_LEVELS, 1, limits.FEED_LEVELS_MAX)
        with self._feeds.one():
            return await send(request, book_lines(hosted, levels))

    async def _trades_feed(self, request: web.Request) -> web.StreamResponse:
        hosted = self._hosted(request.match_info["market"])
        now = str(hosted.market.ledger.trade_count)
        after = place_of(request.query.get("after", now))
        with self._feeds.one():
            return await send(request, trade_lines(hosted, after))

    async def _set_state(self, request: web.Request) -> web.Response:
        fields = json_object(await request.read())
        check_known(fields, ("state", "by"), "a state")
        market = self._worker.market(request.match_info["market"])
        name = market.instrument.market
        await self._worker.set_state(name, fields.get("state"), fields.get("by"))
        return await self._answer(StateRecord(name, market.book.state.value))

    async def _peers(self, request: web.Request) -> web.Response:
        rows = [peer for hosted in self._worker.markets.values() for peer in views.peer_records(hosted)]
        return await self._show(PeerList(rows))

    async def _reservations(self, request: web.Request) -> web.Response:
        market, most = self._one_market(request).market, page_limit(request.query)
        return answer(ReservationList(views.reservation_records(market, most)))

    async def _metrics(self, request: web.Request) -> web.Response:
        return web.Response(body=metrics.render(self._worker), headers={"Content-Type": CONTENT_TYPE})

    async def _healthz(self, request: web.Request) -> web.Response:
        markets = {name: views.market_health(hosted) for name, hosted in self._worker.markets.items()}
        troubles = [hosted.journal.trouble for hosted in self._worker.markets.values()]
        status = next((trouble for trouble in troubles if trouble is not None), "ok")
        return answer(Health(status, self._worker.name, markets, self._worker.key))


def answer(content: Struct, status: int = 200) -> web.Response:
    return web.Response(body=msgspec.json.encode(content), status=status, content_type="application/json")


def error_answer(status: int, code: str, message: str, field: str | None = None) -> web.Response:
    return answer(ErrorAnswer(ErrorRecord(code, message, field)), status)


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


def is_loopback(request: web.Request) -> bool:
    """Whether it has come to a loopback address."""
    address = None if request.transport is None else request.transport.get_extra_info("sockname")
    return address is None or ipaddress.ip_address(address[0].partition("%")[0]).is_loopback


def is_local(host: str, listening: str) -> bool:
    """Whether the header ``Host`` names no host of somebody else; ``listening`` is where we were told to."""
    try:
        name = urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return False
    return is_address(name) or name in ("localhost", listening.lower())


@web.middleware
async def same_origin(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Keep web pages of other origins from trading through the browser of someone who runs a peer."""
    origin = request.headers.get("Origin")
    if origin is not None and origin.partition("://")[2] != request.host:
        return error_answer(403, "foreign_origin", "pages whose Origin is not the Host may not use this API")
    return await handler(request)
