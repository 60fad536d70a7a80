"""A client API that only looks like a peer: orders rest, trade on demand, and misbehave as a test wishes."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web

from tests.harness import until

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

QUIET = {
    "open_orders": 0,
    "reservations": 0,
    "under_way": 0,
    "in_doubt": 0,
    "orders": 0,
    "trades": 0,
    "cross_peer_trades": 0,
    "peers": 0,
    "best_bid": None,
    "best_ask": None,
}


def order_record(id: str = "o1", **fields: Any) -> dict[str, Any]:
    """An open order of 1 at 10.00 as a peer shows it; ``fields`` change it."""
    record = {
        "id": id,
        "market": "BTC-USD",
        "side": "buy",
        "price": "10.00",
        "quantity": "1",
        "filled": "0",
        "open": "1",
        "reserved": "0",
        "cancelled": "0",
        "status": "open",
        "owner": "ann",
        "client_order_id": None,
        "time": 1_700_000_000_000,
    }
    return {**record, **fields}


def trade_record(match_id: str = "m1", **fields: Any) -> dict[str, Any]:
    """A trade of 1 at 10.00 as a peer shows it; ``fields`` change it."""
    record = {
        "match_id": match_id,
        "market": "BTC-USD",
        "price": "10.00",
        "quantity": "1",
        "maker_order_id": "o1",
        "taker_order_id": "o2",
        "maker_peer": "alice",
        "taker_peer": "alice",
        "time": 1_700_000_000_000,
    }
    return {**record, **fields}


def refusal(code: str, message: str, status: int = 400, **more: str) -> web.Response:
    return web.json_response({"error": {"code": code, "message": message, **more}}, status=status)


class FakePeer:
    """Serves the client API from memory.

    Attributes:
        log: What was asked: ``(method, path)`` in order of arrival, without queries.
        submitted: The fields of every order that was submitted.
        settled: What was said of doubts.
        closed: Ids that are filled, so that cancelling them is refused.
        before: Called first for each request; what it returns is the answer.
        most_in_flight: Requests that were being answered at the same time.
        overlapping: Whether two requests about one owner's order were.
    """

    def __init__(self, name: str = "alice"):
        self.name = name
        self.orders: dict[str, dict[str, Any]] = {}
        self.trades: list[dict[str, Any]] = []
        self.markets: dict[str, dict[str, Any]] = {"BTC-USD": dict(QUIET)}
        self.peers: list[dict[str, Any]] = []
        self.doubts: list[dict[str, Any]] = []
        self.settled: list[dict[str, Any]] = []
        self.book: dict[str, Any] = {"market": "BTC-USD", "bids": [], "asks": []}
        self.log: list[tuple[str, str]] = []
        self.queries: list[dict[str, str]] = []
        self.submitted: list[dict[str, Any]] = []
        self.closed: set[str] = set()
        self.before: Callable[[web.Request], Awaitable[web.Response | None]] | None = None
        self.most_in_flight = 0
        self.overlapping = False
        self.api = ""
        self._in_flight = 0
        self._busy: Counter[str] = Counter()
        self._ids = itertools.count(1)
        self._runner: web.AppRunner | None = None
        self._transports: set[asyncio.Transport] = set()

    async def start(self) -> None:
        app = web.Application(middlewares=[self._watch])
        app.add_routes(
            [
                web.post("/orders", self._submit),
                web.post("/pairs", self._submit_pair),
                web.put("/quotes", self._quote),
                web.get("/orders", self._orders),
                web.get("/orders/{id}", self._order),
                web.patch("/orders/{id}", self._amend),
                web.delete("/orders/{id}", self._cancel),
                web.get("/trades", self._trades),
                web.get("/book/{market}", self._book),
                web.get("/doubts", self._doubts),
                web.post("/doubts/{match_id}", self._resolve),
                web.get("/peers", self._peers),
                web.get("/healthz", self._healthz),
            ]
        )
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        host, port = self._runner.addresses[0]
        self.api = f"http://{host}:{port}"

    async def stop(self) -> None:
        assert self._runner is not None
        await self._runner.cleanup()
        # The server forgets its connections before they are closed; a loop that ends first leaves them open.
        for transport in self._transports:
            transport.abort()
        sockets = [transport.get_extra_info("socket") for transport in self._transports]
        await until(lambda: all(each.fileno() < 0 for each in sockets), what="the connections to be gone")

    @web.middleware
    async def _watch(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        if isinstance(request.transport, asyncio.Transport):
            self._transports.add(request.transport)
        self.log.append((request.method, request.path))
        self.queries.append(dict(request.query))
        self._in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self._in_flight)
        try:
            answer = await self.before(request) if self.before else None
            return answer or await handler(request)
        finally:
            self._in_flight -= 1

    @asynccontextmanager
    async def _alone(self, owner: str) -> AsyncIterator[None]:
        """Notes whether two requests about one order overlap, and gives them time to."""
        self._busy[owner] += 1
        self.overlapping |= self._busy[owner] > 1
        await asyncio.sleep(0)
        yield
        self._busy[owner] -= 1

    async def _submit(self, request: web.Request) -> web.Response:
        fields = await request.json()
        async with self._alone(fields["owner"]):
            self.submitted.append(fields)
            id = f"{self.name}-{next(self._ids)}"
            fields = {"client_order_id": None, **fields, "open": fields["quantity"]}
            self.orders[id] = order_record(id, **fields)
        return web.json_response({"order": self.orders[id], "trades": []}, status=201)

    async def _submit_pair(self, request: web.Request) -> web.Response:
        fields = await request.json()
        self.submitted.append(fields)
        placed = {}
        for name in ("resting", "stop"):
            id = f"{self.name}-{next(self._ids)}"
            self.orders[id] = order_record(id, owner=fields["owner"], side=fields["side"], **fields[name])
            placed[name] = {"order": self.orders[id], "trades": []}
        return web.json_response(placed, status=201)

    async def _quote(self, request: web.Request) -> web.Response:
        fields = await request.json()
        self.submitted.append(fields)
        orders = [order_record(quote["client_order_id"], **quote) for quote in fields["quotes"]]
        return web.json_response(
            {"orders": [order if order["quantity"] != "0" else None for order in orders]}
        )

    async def _doubts(self, request: web.Request) -> web.Response:
        return web.json_response({"doubts": self.doubts})

    async def _resolve(self, request: web.Request) -> web.Response:
        self.settled.append(await request.json())
        return web.json_response({"order": self.orders["o1"], "trades": []})

    async def _amend(self, request: web.Request) -> web.Response:
        id = request.match_info["id"]
        order = self.orders[id]
        async with self._alone(order["owner"]):
            if id in self.closed:
                return refusal("order_closed", f"order {id} is filled already", 409)
            order.update(await request.json(), amended=True)
        return web.json_response({"order": order, "trades": []})

    async def _cancel(self, request: web.Request) -> web.Response:
        id = request.match_info["id"]
        if id not in self.orders:
            return refusal("unknown_order", f"no order '{id}' here", 404)
        order = self.orders[id]
        async with self._alone(order["owner"]):
            if id in self.closed:
                return refusal("order_closed", f"order {id} is filled already", 409)
            order.update(open="0", cancelled=order["quantity"], status="cancelled")
        return web.json_response({"order": order})

    async def _order(self, request: web.Request) -> web.Response:
        order = self.orders.get(request.match_info["id"])
        if order is None:
            return refusal("unknown_order", "no such order", 404)
        return web.json_response({"order": order, "trades": self.trades})

    async def _orders(self, request: web.Request) -> web.Response:
        return self._page(request, "orders", list(self.orders.values()))

    async def _trades(self, request: web.Request) -> web.Response:
        return self._page(request, "trades", self.trades)

    def _page(self, request: web.Request, name: str, rows: list[dict[str, Any]]) -> web.Response:
        rows = [row for row in rows if row["market"] == request.query.get("market", row["market"])]
        after, limit = int(request.query.get("after", 0)), int(request.query.get("limit", 1000))
        end = after + limit
        return web.json_response({name: rows[after:end], "next": end if end < len(rows) else None})

    async def _book(self, request: web.Request) -> web.Response:
        return web.json_response(self.book)

    async def _peers(self, request: web.Request) -> web.Response:
        return web.json_response({"peers": self.peers})

    async def _healthz(self, request: web.Request) -> web.Response:
        return web.json_response({"status": "ok", "peer": self.name, "markets": self.markets})


@asynccontextmanager
async def fake_peers(*names: str) -> AsyncIterator[list[FakePeer]]:
    """Fake peers that are served inside the block."""
    peers = [FakePeer(name) for name in names]
    for peer in peers:
        await peer.start()
    try:
        yield peers
    finally:
        for peer in peers:
            await peer.stop()
