"""Whole order flows through the engine and through plain lists by price: the same trades, the same book."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from orderbook.engine import Book, Code, Instrument, Match, Order, Side
from orderbook.engine.state import hash_of, state_hash
from orderbook.flow.files import Row, read_flow
from orderbook.flow.synthetic import synthesize

REAL_FLOW = Path(__file__).parents[4] / "shared" / "data" / "btcusd-orders.csv.gz"
INSTRUMENT = Instrument("BTC-USD", tick="0.1", lot="0.00000001")
COMPARED_EVERY = 10_000
Trade = tuple[str, str, int, int]


class PriceLists:
    """A book of plain limit orders: for each price a list of orders, oldest first. The oracle."""

    def __init__(self) -> None:
        self.levels: dict[str, dict[int, list[dict[str, Any]]]] = {"buy": {}, "sell": {}}
        self.prices: dict[str, list[int]] = {"buy": [], "sell": []}
        self.orders: dict[str, dict[str, Any]] = {}
        self.trades: list[Trade] = []
        self.clock = 0

    def new(self, id: str, side: str, price: int, lots: int) -> None:
        self.clock += 1
        order = {"id": id, "side": side, "price": price, "quantity": lots, "open": lots, "filled": 0}
        self.orders[id] = order | {"arrival": self.clock}
        self._enter(self.orders[id])

    def cancel(self, id: str) -> None:
        order = self.orders.pop(id, None)
        if order is not None:
            self._take_out(order)

    def change(self, id: str, price: int, lots: int) -> None:
        """What is left of an order now has this price and quantity."""
        order = self.orders.get(id)
        if order is None or not lots:
            return
        keeps_place = price == order["price"] and lots <= order["open"]
        order["quantity"] += lots - order["open"]
        if keeps_place:
            order["open"] = lots
        else:
            self._take_out(order)
            order["price"], order["open"] = price, lots
            self._enter(order)

    def _enter(self, order: dict[str, Any]) -> None:
        other = "sell" if order["side"] == "buy" else "buy"
        prices = self.prices[other]
        while order["open"] and prices:
            best = prices[0] if other == "sell" else prices[-1]
            if best > order["price"] if other == "sell" else best < order["price"]:
                break
            maker = self.levels[other][best][0]
            lots = min(order["open"], maker["open"])
            for one in (order, maker):
                one["open"] -= lots
                one["filled"] += lots
            self.trades.append((maker["id"], order["id"], best, lots))
            if not maker["open"]:
                self._take_out(maker)
                del self.orders[maker["id"]]
        if order["open"]:
            self.clock += 1
            order["age"] = self.clock
            level = self.levels[order["side"]].setdefault(order["price"], [])
            if not level:
                insort(self.prices[order["side"]], order["price"])
            level.append(order)
        else:
            del self.orders[order["id"]]

    def _take_out(self, order: dict[str, Any]) -> None:
        level = self.levels[order["side"]][order["price"]]
        level.remove(order)
        if not level:
            del self.levels[order["side"]][order["price"]]
            prices = self.prices[order["side"]]
            del prices[bisect_left(prices, order["price"])]

    def hash(self) -> str:
        arrived = sorted(self.orders.values(), key=lambda order: order["arrival"])
        rows = [
            [
                o["id"],
                "",
                o["side"],
                o["price"],
                o["quantity"],
                o["open"],
                0,
                0,
                o["filled"],
                0,
                False,
                0,
                None,
                None,
            ]
            for o in arrived
        ]
        places = [order["id"] for order in sorted(arrived, key=lambda order: order["age"])]
        last_price = self.trades[-1][2] if self.trades else None
        market = ["open", 1, INSTRUMENT.max_price, last_price, 0]
        empty: dict[str, Any] = {"reservations": [], "pairs": [], "reached": [], "freed": []}
        return hash_of({"market": market, "orders": rows, "places": places, **empty})


def replay(rows: Iterable[Row]) -> tuple[Book, int]:
    """Both, side by side; returns the engine's book and the number of trades."""
    book, lists = Book(), PriceLists()
    trades: list[Trade] = []
    for number, row in enumerate(rows, 1):
        price, lots = int(row.price * 10), int(row.quantity * 10**8)
        if row.action == "new":
            code = book.submit(Order(row.id, "", Side(row.side), price, lots))
            assert code is Code.OK
            lists.new(row.id, row.side, price, lots)
        elif row.action == "cancel":
            book.cancel(row.id)
            lists.cancel(row.id)
        else:
            lists.change(row.id, price, lots)
            order = book.orders.get(row.id)
            if order is None or not lots:
                continue
            assert book.amend(row.id, price=price, quantity=lots + order.filled) is Code.OK
        trades += [(e.maker.id, e.taker.id, e.price, e.quantity) for e in book.events if isinstance(e, Match)]
        if number % COMPARED_EVERY == 0:
            assert state_hash(book) == lists.hash(), f"the books differ after row {number}"
    assert trades == lists.trades
    assert state_hash(book) == lists.hash()
    book.check()
    return book, len(trades)


def test_a_synthetic_flow() -> None:
    book, trades = replay(synthesize(20_000, seed=3))
    assert trades > 1_000
    assert len(book.orders) > 100


def test_the_real_flow() -> None:
    if not REAL_FLOW.exists():
        pytest.skip(f"no recorded order flow at ../shared/data/{REAL_FLOW.name}: a synthetic one is replayed")
    book, trades = replay(read_flow(REAL_FLOW))
    assert trades > 4_000
    assert len(book.orders) > 6_000
