"""A book that is slow and obviously right: the oracle that the engine is compared with.

One list of orders. Whatever is asked is found by looking at all of them and sorting; nothing is kept that
could disagree with it. It shares no code with the engine but the codes, the reasons and the terms.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from orderbook.engine import Code, MarketState, Quote, Reason, Side, Terms
from tests.unit.engine.naive_entering import TIPS, Entry, Lock, NaiveEntering

QUOTES = 1_000


@dataclass
class NaiveBook(NaiveEntering):
    """All commands."""

    # -- changes -----------------------------------------------------------------------------------------

    def cancel(self, id: str, owner: str | None = None) -> Code:
        self.events = []
        e = self.find(id)
        if e is None:
            return Code.UNKNOWN_ORDER
        if owner is not None and owner != e.owner:
            return Code.NOT_OWNER
        if e.cancel_requested:
            return Code.BEING_CANCELLED
        if self.state is MarketState.HALTED:
            return Code.HALTED
        self.cancel_open(e, Reason.REQUESTED)
        self.follow_up()
        return Code.OK

    def cancel_all(self, owner: str) -> Code:
        self.events = []
        if self.state is MarketState.HALTED:
            return Code.HALTED
        for e in sorted(self.entries, key=lambda e: e.arrival):
            if e.owner == owner and not e.cancel_requested:
                self.cancel_open(e, Reason.REQUESTED)
        self.follow_up()
        return Code.OK

    def expire_orders(self, time_ms: int) -> None:
        self.events = []
        self.time_ms = time_ms
        due = [e for e in self.entries if (e.terms.expires_ms or self.time_ms + 1) <= self.time_ms]
        for e in sorted(due, key=lambda e: (e.terms.expires_ms, e.arrival)):
            if not e.cancel_requested:
                self.cancel_open(e, Reason.EXPIRED)
        self.follow_up()

    def amend(
        self, id: str, price: int | None = None, quantity: int | None = None, owner: str | None = None
    ) -> Code:
        self.events = []
        e = self.find(id)
        if e is None:
            return Code.UNKNOWN_ORDER
        if owner is not None and owner != e.owner:
            return Code.NOT_OWNER
        price = e.price if price is None else price
        quantity = e.quantity if quantity is None else quantity
        if quantity <= 0:
            return Code.INVALID_QUANTITY
        if quantity < self.rules.min_quantity:
            return Code.BELOW_MINIMUM
        if quantity > self.rules.max_quantity:
            return Code.ABOVE_MAXIMUM
        code = self.amendment(e, price, quantity)
        if code is Code.OK:
            if price == e.price and quantity <= e.quantity:
                self.shrink(e, quantity)
            else:
                shown, e.shown = e.shown, 0
                self.put_back(e, shown, price, quantity)
            self.follow_up()
        return code

    def amendment(self, e: Entry, price: int, quantity: int) -> Code:
        if self.state is MarketState.HALTED:
            return Code.HALTED
        if e.cancel_requested:
            return Code.BEING_CANCELLED
        left = quantity - e.filled - e.cancelled - e.reserved
        if left < 0 or (left == 0 and not e.reserved):
            return Code.QUANTITY_GONE
        if price == e.price and quantity <= e.quantity:
            return Code.OK
        if self.state is not MarketState.OPEN:
            return Code.CANCEL_ONLY
        if price != e.price:
            if e.terms.market:
                return Code.INVALID_PRICE
            if e.reserved:
                return Code.PRICE_RESERVED
            if not 1 <= price <= self.rules.max_price:
                return Code.INVALID_PRICE
            if not self.low <= price <= self.high:
                return Code.OUTSIDE_BAND
        if e.terms.display is not None and quantity > e.terms.display * TIPS:
            return Code.INVALID_DISPLAY
        if e.terms.post_only:
            posted = self.posted(e.side, price, e.terms.post_only)
            if posted is None:
                return Code.POST_ONLY_CROSSES
            if posted != e.price and e.reserved:
                return Code.PRICE_RESERVED
        return Code.OK

    def shrink(self, e: Entry, quantity: int) -> None:
        self.take_hidden_first(e, e.quantity - quantity)
        e.quantity = quantity

    def put_back(self, e: Entry, shown: int, price: int, quantity: int) -> None:
        self.freed.discard(e.id)
        if e.terms.post_only and not e.waits:
            posted = self.posted(e.side, price, e.terms.post_only)
            assert posted is not None
            price = posted
            if price == e.price and quantity <= e.quantity:
                e.shown = shown
                self.shrink(e, quantity)
                return
        e.open += quantity - e.quantity
        e.quantity = quantity
        e.price = price
        if e.waits:
            return
        if e.open:
            self.enter(e)

    def mass_quote(self, owner: str, quotes: list[Quote]) -> Code:
        self.events = []
        code = self.quotes_code(owner, quotes)
        if code is not Code.OK:
            return code
        entering: list[tuple[Entry, int, int, int]] = []
        for q in quotes:
            e = self.find(q.id)
            if e is None:
                if q.quantity:
                    entering.append((Entry(q.id, owner, q.side, q.price, q.quantity, Terms()), 0, 0, 0))
                continue
            total = max(q.quantity, e.reserved) + e.filled + e.cancelled
            if not q.quantity:
                self.cancel_open(e, Reason.REQUESTED)
            elif q.price == e.price and total <= e.quantity:
                self.shrink(e, total)
            else:
                shown, e.shown = e.shown, 0
                self.freed.discard(e.id)
                entering.append((e, shown, q.price, total))
        self.drop_closed()
        for e, shown, price, total in entering:
            if self.find(e.id):
                self.put_back(e, shown, price, total)
            else:
                self.accept(e)
        self.follow_up()
        return Code.OK

    def quotes_code(self, owner: str, quotes: list[Quote]) -> Code:
        if len(quotes) > QUOTES:
            return Code.TOO_MANY_QUOTES
        if len({q.id for q in quotes}) < len(quotes):
            return Code.DUPLICATE_QUOTE
        if self.state is not MarketState.OPEN:
            return Code.HALTED if self.state is MarketState.HALTED else Code.CANCEL_ONLY
        new = 0
        for q in quotes:
            e = self.find(q.id)
            if e and e.owner != owner:
                return Code.NOT_OWNER
            if e and e.side is not q.side:
                return Code.DUPLICATE_ID
            if q.quantity == 0:
                continue
            if q.quantity < 0:
                return Code.INVALID_QUANTITY
            if q.quantity < self.rules.min_quantity:
                return Code.BELOW_MINIMUM
            if q.quantity > self.rules.max_quantity:
                return Code.ABOVE_MAXIMUM
            if e is None:
                new += 1
                if not 1 <= q.price <= self.rules.max_price:
                    return Code.INVALID_PRICE
                if not self.low <= q.price <= self.high:
                    return Code.OUTSIDE_BAND
            else:
                code = self.amendment(e, q.price, max(q.quantity, e.reserved) + e.filled + e.cancelled)
                if code is not Code.OK:
                    return code
        if len(self.entries) + new > self.rules.max_orders:
            return Code.BOOK_FULL
        bids = [q.price for q in quotes if q.quantity and q.side is Side.BUY]
        asks = [q.price for q in quotes if q.quantity and q.side is Side.SELL]
        return Code.CROSSED_QUOTES if bids and asks and max(bids) >= min(asks) else Code.OK

    # -- the market --------------------------------------------------------------------------------------

    def set_state(self, state: MarketState) -> None:
        self.events = []
        self.state = state
        if state is MarketState.OPEN:
            freed = sorted((e for e in self.entries if e.id in self.freed), key=lambda e: e.age)
            self.freed = set()
            for e in freed:
                self.uncross(e)
            self.follow_up(self.last_price)

    def set_band(self, low: int, high: int) -> Code:
        self.events = []
        if not 1 <= low <= high <= self.rules.max_price:
            return Code.INVALID_PRICE
        self.low, self.high = low, high
        return Code.OK

    def note_trade(self, price: int) -> Code:
        self.events = []
        if not 1 <= price <= self.rules.max_price:
            return Code.INVALID_PRICE
        self.last_price = price
        self.follow_up(price)
        return Code.OK

    # -- reservations ------------------------------------------------------------------------------------

    def crossing(
        self, side: Side, price: int, quantity: int, most: int | None
    ) -> tuple[list[tuple[str, int]], bool]:
        fills: list[tuple[str, int]] = []
        if self.state is not MarketState.OPEN:
            return fills, False
        queue = self.queue(self.other(side), price)
        for e in queue:
            if len(fills) == most:
                return fills, True
            lots = min(e.shown, quantity)
            fills.append((e.id, lots))
            quantity -= lots
            if not quantity:
                return fills, False
        return fills, any(e.hidden for e in queue) or self.contended(self.other(side), price)

    def reserve(self, id: str, fills: list[tuple[str, int]], expires: float) -> None:
        self.events = []
        for order_id, lots in fills:
            e = self.find(order_id)
            assert e is not None
            e.shown -= lots
            e.open -= lots
            e.reserved += lots
        self.locks[id] = Lock(id, "peer", "purpose", fills, expires)

    def commit(self, id: str, quantities: dict[str, int]) -> None:
        self.events = []
        for order_id, lots in self.locks.pop(id).fills:
            e = self.find(order_id)
            assert e is not None
            part = quantities.get(order_id, 0)
            if part:
                self.execute(e, part, e.price)
            if lots > part:
                self.give_back(e, lots - part)
        self.follow_up()

    def release(self, id: str) -> None:
        self.events = []
        for order_id, lots in self.locks.pop(id).fills:
            e = self.find(order_id)
            assert e is not None
            self.give_back(e, lots)
        self.follow_up()

    def hold(self, id: str) -> None:
        self.events = []
        e = self.find(id)
        assert e is not None
        e.reserved += e.open
        e.open = e.shown = 0

    def fill_held(self, id: str, lots: int, price: int) -> None:
        self.events = []
        e = self.find(id)
        assert e is not None
        self.execute(e, lots, price)
        self.follow_up()

    def release_held(self, id: str, lots: int) -> None:
        self.events = []
        e = self.find(id)
        assert e is not None
        self.give_back(e, lots)
        self.follow_up()

    def execute(self, e: Entry, lots: int, price: int) -> None:
        e.reserved -= lots
        e.filled += lots
        self.last_price = price
        self.events.append(("execution", e.id, price, lots))
        if self.next_tip(e):
            self.freed.add(e.id)

    def give_back(self, e: Entry, lots: int) -> None:
        e.reserved -= lots
        if e.cancel_requested:
            e.cancelled += lots
            self.events.append(("cancel", e.id, lots, Reason.RELEASED))
        else:
            e.open += lots
            e.shown = min(e.shown + lots, e.terms.display or e.open)
            self.freed.add(e.id)

    def rematch(self, id: str) -> None:
        self.events = []
        if id in self.freed and self.state is MarketState.OPEN:
            self.freed.discard(id)
            e = self.find(id)
            assert e is not None
            self.uncross(e)
            self.follow_up()

    def uncross(self, e: Entry) -> None:
        side = self.other(e.side)
        while e.shown and self.queue(side, e.price):
            match = self.queue(side, e.price)[0]
            older, newer = sorted((e, match), key=lambda e: e.age)
            if older.owner == newer.owner != "":
                self.same_owner(newer, older)
            else:
                price, lots = older.price, min(e.shown, match.shown)
                self.last_price = price
                self.events.append(("match", older.id, newer.id, price, lots))
                self.trade(e, lots)
                self.trade(match, lots)

    # -- the state ---------------------------------------------------------------------------------------

    def state_of(self) -> dict[str, Any]:
        """The same plain data as ``orderbook.engine.state.state_of`` gives for the engine."""
        arrived = sorted(self.entries, key=lambda e: e.arrival)
        placed = sorted((e for e in arrived if e.age and not e.waits), key=lambda e: e.age)
        return {
            "market": [self.state.value, self.low, self.high, self.last_price, self.time_ms],
            "orders": [self.row(e) for e in arrived],
            "places": [e.id for e in placed],
            "reservations": [
                [k.id, k.counterparty, k.purpose, k.expires, [list(fill) for fill in k.fills]]
                for _, k in sorted(self.locks.items())
            ],
            "pairs": sorted([a, b] for a, b in self.pairs.items() if a < b),
            "reached": self.reached,
            "freed": [e.id for e in placed if e.id in self.freed],
        }

    def row(self, e: Entry) -> list[Any]:
        t = e.terms
        terms = None
        if t != Terms():
            post_only = t.post_only.value if t.post_only else None
            kind = [t.time_in_force.value, t.market, post_only]
            terms = [*kind, t.stop_price, t.display, t.expires_ms, t.self_trade.value]
        quantities = [e.quantity, e.open, e.hidden, e.reserved, e.filled, e.cancelled]
        return [e.id, e.owner, e.side.value, e.price, *quantities, e.cancel_requested, 0, None, terms]
