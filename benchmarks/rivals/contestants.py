"""One matching engine of Python at work, in a process of its own; started by ``benchmarks/engine.py``.

    python contestants.py NAME JOB      both are text; JOB and the answer are JSON

A job is a flow of orders, of which the whole loop is timed, or a book with so many resting orders, on which
single operations are timed. Every engine gets the same operations, reports what traded, and does nothing
else. The loops of a flow are written out for each engine, so that no adapter stands between.
"""

from __future__ import annotations

import gc
import json
import random
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from time import perf_counter, perf_counter_ns
from typing import Any

Operation = tuple[str, str, bool, int, int]
"""(new, cancel or change; id; buys?; price in ticks; quantity in lots). A change is a cancellation and, if
the order was still there, a new order: most engines know no other."""

OWNERS = 500
MIDDLE, LEVELS, LOTS = 100_000, 1_000, 1_000_000
"""The resting book: so many prices a side around the middle, orders of so many lots: none is ever used up."""


class Contestant:
    """What a job needs of an engine.

    ``place`` and ``cancel`` do one operation and learn what it did; ``resting`` is (orders, lots) at the end.
    """

    def flow(self, operations: list[Operation]) -> float:
        """Seconds for all of ``operations``."""
        raise AssertionError

    def place(self, id: str, buys: bool, price: int, lots: int) -> Any:
        raise AssertionError

    def cancel(self, id: str) -> Any:
        raise AssertionError

    def resting(self) -> tuple[int, int]:
        raise AssertionError


class Ours(Contestant):
    def __init__(self) -> None:
        sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
        from orderbook.engine import Book, Order, Rules, Side

        self.book = Book(Rules(max_orders=2_000_000))
        self.order, self.sides = Order, (Side.SELL, Side.BUY)
        self.traded = 0

    def flow(self, operations: list[Operation]) -> float:
        from orderbook.engine import Code

        book, order, sides, ok = self.book, self.order, self.sides, Code.OK
        submit, cancel = book.submit, book.cancel
        # Owners of the two sides differ: the self-trade check runs, and prevents nothing.
        rows = [
            (action, id, f"{'sb'[buys]}{int(id) % OWNERS}", sides[buys], price, lots)
            for action, id, buys, price, lots in operations
        ]
        traded = 0
        start = ready()
        for action, id, owner, side, price, lots in rows:
            if action == "new":
                submit(order(id, owner, side, price, lots))
                traded += len(book.events)
            elif action == "cancel":
                cancel(id)
            elif cancel(id) is ok:
                submit(order(id, owner, side, price, lots))
                traded += len(book.events)
        seconds = perf_counter() - start
        self.traded = traded
        return seconds

    def place(self, id: str, buys: bool, price: int, lots: int) -> Any:
        self.book.submit(self.order(id, "b" if buys else "s", self.sides[buys], price, lots))
        return self.book.events

    def cancel(self, id: str) -> Any:
        return self.book.cancel(id)

    def resting(self) -> tuple[int, int]:
        return len(self.book.orders), sum(order.open for order in self.book.orders.values())

    def kinds(self, samples: int) -> dict[str, tuple[float, float]]:
        """Operations that only we have, on the book as it is; each leaves it as it was."""
        from orderbook.engine import FOK, IOC, POST_ONLY, Code, Quote, Side, Terms

        book, times = self.book, dict[str, list[int]]()
        best = MIDDLE + LEVELS
        expected = {"FOK, refused": Code.UNFILLABLE}

        def timed(kind: str, act: Callable[[], Any]) -> Any:
            start = perf_counter_ns()
            result = act()
            times.setdefault(kind, []).append(perf_counter_ns() - start)
            if isinstance(result, Code):
                assert result is expected.get(kind, Code.OK), f"{kind}: {result}"
            return result

        def new(id: str, price: int, terms: Terms, lots: int = 10) -> Callable[[], Any]:
            order = self.order(id, "b", Side.BUY, price, lots, terms)
            return lambda: book.submit(order)

        for number in range(samples):
            id, price = f"k{number}", MIDDLE - 1 - number % LEVELS
            timed("IOC, one fill", new(id, best, IOC))
            timed("FOK, one fill", new(id, best, FOK))
            timed("FOK, refused", new(id, MIDDLE - LEVELS, FOK))
            timed("post-only, rests", new(id, price, POST_ONLY))
            timed("amend, smaller", partial(book.amend, id, quantity=5))
            timed("amend, another price", partial(book.amend, id, price=price - 1))
            book.cancel(id)
            timed("iceberg, rests", new(id, price, Terms(display=2)))
            timed("self-reservation", partial(book.hold, book.orders[id]))
            timed("its release", partial(book.release_held, book.orders[id], 10))
            timed("and rematch", partial(book.rematch, book.orders[id]))
            book.cancel(id)
            timed("stop order, waits", new(id, best, Terms(stop_price=best + number)))
            book.cancel(id)
            fills = timed("what crosses", lambda: book.crossing(Side.BUY, best, 10)).fills
            held = timed("reserve", partial(book.reserve, id, "p", "o", fills, 1.0))
            timed("release", partial(book.release, held))
            book.rematch(fills[0].order)
            held = book.reserve(id, "p", "o", fills, 1.0)
            parts = {fills[0].order.id: 5}
            timed("commit half, release half", partial(book.commit, held, parts))
            book.rematch(fills[0].order)
            quotes = [Quote("qb", Side.BUY, price - 1, 10), Quote("qs", Side.SELL, best + number % 9, 10)]
            timed("quote both sides", partial(book.mass_quote, "b", quotes))
        book.cancel_all("b")
        return {kind: percentiles(taken) for kind, taken in times.items()}


class OrderlyChaos(Contestant):
    """It keeps quantities in 32 bits: larger ones are cut off."""

    MOST = 2**32 - 1

    def __init__(self) -> None:
        import orderly_chaos

        self.trades: list[Any] = []
        self.book = orderly_chaos.LimitOrderBook(on_trade=self.trades.append)
        self.sides = (orderly_chaos.Side.SELL, orderly_chaos.Side.BUY)
        self.error = orderly_chaos.OrderlyChaosError

    def flow(self, operations: list[Operation]) -> float:
        limit, cancel, unknown = self.book.limit, self.book.cancel, self.error
        rows = [
            (action, int(id), self.sides[buys], price, min(lots, self.MOST))
            for action, id, buys, price, lots in operations
        ]
        start = ready()
        for action, id, side, price, lots in rows:
            if action == "new":
                limit(side, id, lots, price)
            elif action == "cancel":
                try:
                    cancel(id)
                except unknown:
                    pass
            else:
                try:
                    cancel(id)
                except unknown:
                    continue
                limit(side, id, lots, price)
        return perf_counter() - start

    def place(self, id: str, buys: bool, price: int, lots: int) -> Any:
        return self.book.limit(self.sides[buys], int(id), lots, price)

    def cancel(self, id: str) -> Any:
        return self.book.cancel(int(id))

    def resting(self) -> tuple[int, int]:
        return len(self.book), self.book.volume_buy() + self.book.volume_sell()


class Obook(Contestant):
    """It gives orders ids of its own, and wants to know whose they are. No user trades with itself."""

    def __init__(self) -> None:
        import obook

        self.book = obook.Book(max_orders=2_000_000)
        self.sides = (obook.SELL, obook.BUY)
        self.cancelled = obook.Status.CANCELLED
        self.ids: dict[str, tuple[int, int]] = {}

    def flow(self, operations: list[Operation]) -> float:
        submit, cancel, events = self.book.submit, self.book.cancel, self.book.events
        sides, ids, cancelled = self.sides, self.ids, self.cancelled
        unknown = (0, 0)
        start = ready()
        for action, id, buys, price, lots in operations:
            if action == "new":
                ids[id] = submit(1 + buys, sides[buys], price, lots).order_id, 1 + buys
            elif action == "cancel":
                cancel(*ids.get(id, unknown))
            elif cancel(*ids.get(id, unknown)).status is cancelled:
                ids[id] = submit(1 + buys, sides[buys], price, lots).order_id, 1 + buys
            events()
        return perf_counter() - start

    def place(self, id: str, buys: bool, price: int, lots: int) -> Any:
        self.ids[id] = self.book.submit(1 + buys, self.sides[buys], price, lots).order_id, 1 + buys
        return self.book.events()

    def cancel(self, id: str) -> Any:
        self.book.cancel(*self.ids[id])
        return self.book.events()

    def resting(self) -> tuple[int, int]:
        orders = self.book.book()
        return len(orders), sum(order.qty - order.filled for order in orders)


class LightMatchingEngine(Contestant):
    """It gives orders ids of its own, and fails when an order is cancelled that was the last of its price."""

    def __init__(self) -> None:
        from lightmatchingengine import lightmatchingengine as light

        self.engine = light.LightMatchingEngine()
        self.sides = (light.Side.SELL, light.Side.BUY)
        self.ids: dict[str, int] = {}
        self.engine.add_order("x", 1, 1, self.sides[1])
        self.engine.cancel_order(1, "x")  # the instrument must be known before the first cancellation

    def flow(self, operations: list[Operation]) -> float:
        add, cancel, sides, ids = self.engine.add_order, self.engine.cancel_order, self.sides, self.ids
        start = ready()
        for action, id, buys, price, lots in operations:
            if action == "new":
                ids[id] = add("x", price, lots, sides[buys])[0].order_id
            elif action == "cancel":
                try:
                    cancel(ids.get(id, 0), "x")
                except AssertionError:
                    pass
            else:
                try:
                    gone = cancel(ids.get(id, 0), "x")
                except AssertionError:
                    continue
                if gone is not None:
                    ids[id] = add("x", price, lots, sides[buys])[0].order_id
        return perf_counter() - start

    def place(self, id: str, buys: bool, price: int, lots: int) -> Any:
        order, trades = self.engine.add_order("x", price, lots, self.sides[buys])
        self.ids[id] = order.order_id
        return trades

    def cancel(self, id: str) -> Any:
        return self.engine.cancel_order(self.ids[id], "x")

    def resting(self) -> tuple[int, int]:
        book = self.engine.order_books["x"]
        levels = [*book.bids.values(), *book.asks.values()]
        orders = [order for level in levels for order in level]
        return len(orders), sum(order.leaves_qty for order in orders)


CONTESTANTS: dict[str, type[Contestant]] = {
    "ours": Ours,
    "orderly-chaos": OrderlyChaos,
    "obook": Obook,
    "lightmatchingengine": LightMatchingEngine,
}


def ready() -> float:
    """What belongs to the job is no work for the garbage collector; from here on the time counts."""
    gc.collect()
    gc.freeze()
    return perf_counter()


def resident_bytes() -> int:
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096


def run_flow(contestant: Contestant, path: str) -> dict[str, Any]:
    operations = [tuple(row) for row in json.loads(Path(path).read_text())]
    seconds = contestant.flow(operations)
    orders, lots = contestant.resting()
    return {"rate": len(operations) / seconds, "orders": orders, "lots": lots}


def run_resting(contestant: Contestant, orders: int, samples: int) -> dict[str, Any]:
    """Time single operations on a book that keeps about ``orders`` resting orders."""
    dice = random.Random(1)
    ids = [str(number) for number in range(1, orders + samples + 1)]
    crossing_ids = [str(number) for number in range(2 * len(ids), 2 * len(ids) + samples)]
    sides = [dice.random() < 0.5 for _ in ids]
    prices = [
        MIDDLE - dice.randint(1, LEVELS) if buys else MIDDLE + dice.randint(1, LEVELS) for buys in sides
    ]
    live = list(range(orders))
    before = resident_bytes()
    for number in live:
        contestant.place(ids[number], sides[number], prices[number], LOTS)
    per_order = (resident_bytes() - before) / orders
    times: dict[str, list[int]] = {"rest": [], "cancel": [], "match": []}
    for number in range(orders, orders + samples):
        id, buys, price = ids[number], sides[number], prices[number]
        start = perf_counter_ns()
        contestant.place(id, buys, price, LOTS)
        times["rest"].append(perf_counter_ns() - start)
        live.append(number)

        place = dice.randrange(len(live))
        live[place], live[-1] = live[-1], live[place]
        id = ids[live.pop()]
        start = perf_counter_ns()
        contestant.cancel(id)
        times["cancel"].append(perf_counter_ns() - start)

        id, buys = crossing_ids[number - orders], dice.random() < 0.5
        price = MIDDLE + LEVELS if buys else MIDDLE - LEVELS
        start = perf_counter_ns()
        contestant.place(id, buys, price, 1)
        times["match"].append(perf_counter_ns() - start)
    left, _ = contestant.resting()
    assert left == orders, f"{left} orders rest, not {orders}"
    result = {"bytes": per_order, "kinds": {kind: percentiles(taken) for kind, taken in times.items()}}
    return result | {"more": contestant.kinds(samples // 4)} if isinstance(contestant, Ours) else result


def percentiles(times: list[int]) -> tuple[float, float]:
    """p50 and p99, in microseconds."""
    times = sorted(times)
    return times[len(times) // 2] / 1000, times[len(times) * 99 // 100] / 1000


def main() -> None:
    name, job = sys.argv[1], json.loads(sys.argv[2])
    contestant = CONTESTANTS[name]()
    if "flow" in job:
        print(json.dumps(run_flow(contestant, job["flow"])))
    else:
        print(json.dumps(run_resting(contestant, job["orders"], job["samples"])))


if __name__ == "__main__":
    main()
