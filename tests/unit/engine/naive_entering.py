"""The part of the oracle that takes new orders; see ``naive.py``."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from orderbook.engine import (
    Code,
    MarketState,
    PostOnly,
    Reason,
    Rules,
    SelfTrade,
    Side,
    Terms,
    TimeInForce,
)
from orderbook.engine.rules import RULES

TIPS = 1_000
AT_ONCE = (TimeInForce.IOC, TimeInForce.FOK)


@dataclass
class Entry:
    """An order as the oracle sees it."""

    id: str
    owner: str
    side: Side
    price: int
    quantity: int
    terms: Terms
    arrival: int = 0
    age: int = 0
    open: int = 0
    shown: int = 0
    reserved: int = 0
    filled: int = 0
    cancelled: int = 0
    cancel_requested: bool = False
    waits: bool = False

    @property
    def hidden(self) -> int:
        return 0 if self.waits or self.age == 0 else self.open - self.shown


@dataclass
class Lock:
    id: str
    counterparty: str
    purpose: str
    fills: list[tuple[str, int]]
    expires: float


@dataclass
class NaiveEntering:
    """Looks and new orders: what is refused, trades, rests or waits, and what trades cause."""

    rules: Rules = RULES
    state: MarketState = MarketState.OPEN
    low: int = 1
    high: int = 0
    last_price: int | None = None
    time_ms: int = 0
    entries: list[Entry] = field(default_factory=list)
    locks: dict[str, Lock] = field(default_factory=dict)
    pairs: dict[str, str] = field(default_factory=dict)
    reached: list[str] = field(default_factory=list)
    freed: set[str] = field(default_factory=set)
    events: list[tuple[Any, ...]] = field(default_factory=list)
    count: int = 0

    def __post_init__(self) -> None:
        self.high = self.rules.max_price

    # -- looking -----------------------------------------------------------------------------------------

    def find(self, id: str) -> Entry | None:
        return next((e for e in self.entries if e.id == id), None)

    def queue(self, side: Side, limit: int | None = None) -> list[Entry]:
        """What can be matched on ``side``, best first, down to the price ``limit``."""
        sign = -1 if side is Side.BUY else 1
        found = [e for e in self.entries if e.side is side and e.shown > 0]
        if limit is not None:
            found = [e for e in found if e.price * sign <= limit * sign]
        return sorted(found, key=lambda e: (e.price * sign, e.age))

    def contended(self, side: Side, limit: int) -> bool:
        """Whether anything reserved on ``side`` is at ``limit`` or better."""
        return any(
            e.side is side and e.reserved and (e.price >= limit if side is Side.BUY else e.price <= limit)
            for e in self.entries
        )

    def other(self, side: Side) -> Side:
        return Side.SELL if side is Side.BUY else Side.BUY

    def next_age(self) -> int:
        self.count += 1
        return self.count

    # -- new orders --------------------------------------------------------------------------------------

    def refusal(self, e: Entry) -> Code:
        t = e.terms
        if self.state is not MarketState.OPEN:
            return Code.HALTED if self.state is MarketState.HALTED else Code.CANCEL_ONLY
        if self.find(e.id):
            return Code.DUPLICATE_ID
        if len(self.entries) >= self.rules.max_orders:
            return Code.BOOK_FULL
        if t.market and e.price != 0:
            return Code.INVALID_PRICE
        if not t.market and not 1 <= e.price <= self.rules.max_price:
            return Code.INVALID_PRICE
        if not t.market and not self.low <= e.price <= self.high:
            return Code.OUTSIDE_BAND
        if e.quantity <= 0:
            return Code.INVALID_QUANTITY
        if e.quantity < self.rules.min_quantity:
            return Code.BELOW_MINIMUM
        if e.quantity > self.rules.max_quantity:
            return Code.ABOVE_MAXIMUM
        if (t.time_in_force is TimeInForce.GTD) != (t.expires_ms is not None):
            return Code.INVALID_EXPIRY
        rests = t.time_in_force not in AT_ONCE and not t.market
        if not rests and (t.post_only or t.display is not None or t.time_in_force is TimeInForce.GTD):
            return Code.CONFLICTING_TERMS
        if t.post_only and t.stop_price is not None:
            return Code.CONFLICTING_TERMS
        if t.stop_price is not None and not 1 <= t.stop_price <= self.rules.max_price:
            return Code.INVALID_STOP_PRICE
        if t.display is not None and (t.display < 1 or e.quantity > t.display * TIPS):
            return Code.INVALID_DISPLAY
        if t.expires_ms is not None and t.expires_ms <= self.time_ms:
            return Code.EXPIRED
        if t.post_only and self.posted(e.side, e.price, t.post_only) is None:
            return Code.POST_ONLY_CROSSES
        if t.time_in_force is TimeInForce.FOK and not self.must_wait(e) and not self.fillable(e):
            return Code.UNFILLABLE
        return Code.OK

    def must_wait(self, e: Entry) -> bool:
        stop = e.terms.stop_price
        if stop is None:
            return False
        if self.last_price is None:
            return True
        return self.last_price < stop if e.side is Side.BUY else self.last_price > stop

    def worst(self, e: Entry) -> int:
        if not e.terms.market:
            return e.price
        return self.high if e.side is Side.BUY else self.low

    def fillable(self, e: Entry) -> bool:
        missing = e.quantity
        for maker in self.queue(self.other(e.side), self.worst(e)):
            if maker.owner == e.owner != "":
                if e.terms.self_trade is SelfTrade.CANCEL_OLDEST:
                    continue
                return False
            missing -= maker.shown if maker.reserved else maker.open
            if missing <= 0:
                return True
        return False

    def posted(self, side: Side, price: int, mode: PostOnly) -> int | None:
        taken = [e.price for e in self.entries if e.side is not side and (e.shown or e.reserved)]
        if side is Side.BUY:
            crosses, slid = any(p <= price for p in taken), min(taken, default=0) - 1
        else:
            crosses, slid = any(p >= price for p in taken), max(taken, default=0) + 1
        if not crosses:
            return price
        return slid if mode is PostOnly.SLIDE and self.low <= slid <= self.high else None

    def submit(self, e: Entry) -> Code:
        self.events = []
        code = self.refusal(e)
        if code is Code.OK:
            self.accept(e)
            self.follow_up()
        return code

    def submit_pair(self, resting: Entry, stop: Entry) -> Code:
        self.events = []
        t = resting.terms
        right = (
            t.stop_price is None
            and not t.market
            and t.time_in_force not in AT_ONCE
            and stop.terms.stop_price is not None
            and self.must_wait(stop)
            and resting.id != stop.id
            and resting.owner == stop.owner
            and resting.side is stop.side
        )
        if not right:
            return Code.NOT_A_PAIR
        for e in (resting, stop):
            code = self.refusal(e)
            if code is not Code.OK:
                return code
        if len(self.entries) + 2 > self.rules.max_orders:
            return Code.BOOK_FULL
        self.pairs |= {resting.id: stop.id, stop.id: resting.id}
        self.accept(stop)
        self.accept(resting)
        self.follow_up()
        return Code.OK

    def accept(self, e: Entry) -> None:
        e.arrival = self.next_age()
        e.open = e.quantity
        self.entries.append(e)
        if self.must_wait(e):
            e.waits = True
            return
        if e.terms.post_only:
            posted = self.posted(e.side, e.price, e.terms.post_only)
            assert posted is not None
            e.price = posted
        if e.terms.stop_price is not None:
            self.events.append(("trigger", e.id))
        self.enter(e)

    def enter(self, e: Entry) -> None:
        """Match ``e``, which shows nothing, then rest or cancel what is left of it."""
        e.waits = False
        e.price = self.worst(e)
        t = e.terms
        if t.time_in_force is TimeInForce.FOK and not self.fillable(e):
            self.cancel_open(e, Reason.UNFILLABLE)
        self.match(e)
        if e.open and (t.market or t.time_in_force in AT_ONCE):
            self.cancel_open(e, Reason.REMAINDER)
        if e.open:
            e.age = self.next_age()
            e.shown = min(e.open, t.display or e.open)
        self.drop_closed()

    def match(self, taker: Entry) -> None:
        side = self.other(taker.side)
        while taker.open and self.queue(side, taker.price):
            maker = self.queue(side, taker.price)[0]
            if maker.owner == taker.owner != "":
                self.same_owner(taker, maker)
            else:
                lots = min(taker.open, maker.shown)
                taker.open -= lots
                taker.filled += lots
                self.last_price = maker.price
                self.events.append(("match", maker.id, taker.id, maker.price, lots))
                self.trade(maker, lots)
        if taker.open and self.contended(side, taker.price):
            self.events.append(("contention", taker.id))

    def trade(self, e: Entry, lots: int) -> None:
        """Fill ``lots`` of what a resting order shows; an iceberg whose tip is gone shows the next one."""
        e.shown -= lots
        e.open -= lots
        e.filled += lots
        self.next_tip(e)

    def next_tip(self, e: Entry) -> bool:
        if e.shown == 0 and e.open and not e.reserved:
            e.shown = min(e.open, e.terms.display or e.open)
            e.age = self.next_age()
            self.events.append(("requeue", e.id))
            return True
        return False

    def same_owner(self, newer: Entry, older: Entry) -> None:
        mode = newer.terms.self_trade
        if mode is SelfTrade.DECREMENT:
            lots = min(newer.open, older.open)
            for e in (newer, older):
                if e.open == lots:
                    self.cancel_open(e, Reason.SELF_TRADE)
                else:
                    self.take_hidden_first(e, lots)
                    e.cancelled += lots
                    self.events.append(("cancel", e.id, lots, Reason.SELF_TRADE))
        if mode in (SelfTrade.CANCEL_NEWEST, SelfTrade.CANCEL_BOTH):
            self.cancel_open(newer, Reason.SELF_TRADE)
        if mode in (SelfTrade.CANCEL_OLDEST, SelfTrade.CANCEL_BOTH):
            self.cancel_open(older, Reason.SELF_TRADE)

    def take_hidden_first(self, e: Entry, lots: int) -> None:
        e.open -= lots
        e.shown = min(e.shown, e.open)

    def cancel_open(self, e: Entry, reason: Reason) -> None:
        lots = e.open
        e.open = e.shown = 0
        e.cancelled += lots
        e.cancel_requested = True
        self.events.append(("cancel", e.id, lots, reason))

    def drop_closed(self) -> None:
        self.entries = [e for e in self.entries if e.open or e.reserved]
        live = {e.id for e in self.entries}
        self.freed &= live
        self.reached = [id for id in self.reached if id in live]

    def follow_up(self, price: int | None = None) -> None:
        done = 0
        self.drop_closed()
        due = self.take_decided()
        if price is not None:
            due += self.take_due(price, price)
        while due or done < len(self.events):
            news, done = self.events[done:], len(self.events)
            for event in news:
                names = event[1:3] if event[0] == "match" else event[1:2]
                for id in names:
                    if event[0] in ("contention", "requeue") or id not in self.pairs:
                        continue
                    one, partner = self.find(id), self.find(self.pairs[id])
                    if event[0] == "cancel" and self.pairs[id] in self.reached:
                        if one is None or not one.reserved:
                            del self.pairs[self.pairs.pop(id)]
                        continue
                    del self.pairs[self.pairs.pop(id)]
                    if partner and not partner.cancel_requested:
                        self.cancel_open(partner, Reason.PARTNER)
            self.drop_closed()
            prices = [event[-2] for event in news if event[0] in ("match", "execution")]
            if prices:
                due += self.take_due(min(prices), max(prices))
            due += self.take_decided()
            if due:
                self.come_alive(due.pop(0))

    def come_alive(self, stop: Entry) -> None:
        if not self.find(stop.id):
            return
        partner = self.find(self.pairs.get(stop.id, ""))
        if partner and partner.reserved:
            stop.waits = True
            self.reached.append(stop.id)
            self.cancel_open(partner, Reason.PARTNER)
        else:
            self.events.append(("trigger", stop.id))
            self.enter(stop)

    def take_decided(self) -> list[Entry]:
        """Those whose price had come while their partner was reserved, and whose partner is gone."""
        if self.state is not MarketState.OPEN:
            return []
        ids = [id for id in self.reached if id not in self.pairs]
        self.reached = [id for id in self.reached if id in self.pairs]
        decided = [e for id in ids for e in self.entries if e.id == id]
        for e in decided:
            e.waits = False
        return decided

    def take_due(self, low: int, high: int) -> list[Entry]:
        if self.state is not MarketState.OPEN:
            return []
        waiting = [e for e in self.entries if e.waits and e.id not in self.reached]
        buys = [e for e in waiting if e.side is Side.BUY and (e.terms.stop_price or 0) <= high]
        sells = [e for e in waiting if e.side is Side.SELL and (e.terms.stop_price or 0) >= low]
        due = sorted(buys, key=lambda e: (e.terms.stop_price or 0, e.arrival))
        due += sorted(sells, key=lambda e: (-(e.terms.stop_price or 0), e.arrival))
        for e in due:
            e.waits = False
        return due
