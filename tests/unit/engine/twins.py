"""Run the engine and the oracle side by side: every command on both, and everything compared after each."""

from __future__ import annotations

from random import Random
from typing import Any

from orderbook.engine import (
    GTC,
    Book,
    Cancellation,
    Code,
    Event,
    Execution,
    MarketState,
    Match,
    Order,
    PostOnly,
    Quote,
    Requeue,
    Rules,
    SelfTrade,
    Side,
    Terms,
    TimeInForce,
    Trigger,
)
from orderbook.engine.check import check_order
from orderbook.engine.state import hash_of, state_hash, state_of
from tests.unit.engine.naive import NaiveBook
from tests.unit.engine.naive_entering import Entry

Command = tuple[Any, ...]
"""(name of a method of :class:`Twins`, arguments …): values that can be read, and used again."""

RULES = Rules(max_price=12, min_quantity=2, max_quantity=40, max_orders=14)
OWNERS = ("ann", "bob", "cy", "")
SIDES = (Side.BUY, Side.SELL)


def plain(event: Event) -> tuple[Any, ...]:
    """``event`` as the oracle writes it."""
    if isinstance(event, Match):
        return "match", event.maker.id, event.taker.id, event.price, event.quantity
    if isinstance(event, Execution):
        return "execution", event.order.id, event.price, event.quantity
    if isinstance(event, Cancellation):
        return "cancel", event.order.id, event.quantity, event.reason
    if isinstance(event, Requeue):
        return "requeue", event.order.id
    return "trigger" if isinstance(event, Trigger) else "contention", event.order.id


def shortened(terms: Terms) -> Terms:
    """The engine tells plain orders by the identity of their terms."""
    return GTC if terms == GTC else terms


class Twins:
    """An engine and an oracle that get the same commands."""

    def __init__(self, rules: Rules = RULES):
        self.closed: list[Order] = []
        self.book = Book(rules, on_closed=self.closed.append)
        self.naive = NaiveBook(rules)
        self.seen: set[str] = set()
        self.hashes: list[str] = []
        self.accepted: list[Order] = []
        self.last_code = Code.OK
        self.next_lock: str | None = None
        self.locks_made = 0

    def do(self, command: Command) -> None:
        """Carry ``command`` out on both, and compare them."""
        name, *arguments = command
        before = self.book.sequence, state_hash(self.book)
        self.last_code = Code.OK
        codes = getattr(self, name)(*arguments)
        if codes is not None:
            ours, theirs = codes
            assert ours is theirs, f"{command}: {ours} by the engine, {theirs} by the oracle"
            self.last_code = ours
            self.seen.add(ours.value)
            if ours is not Code.OK:
                assert (self.book.sequence, state_hash(self.book)) == before, f"{command} changed something"
                assert self.book.events == [], f"{command} was refused and has events"
        self.compare(command)

    def compare(self, command: Command) -> None:
        events = [plain(event) for event in self.book.events]
        assert events == self.naive.events, f"{command}: the events differ"
        self.seen.update(event[0] for event in events)
        self.seen.update(event[3].value for event in events if event[0] == "cancel")
        self.book.check()
        for order in self.accepted:
            check_order(order)
        if self.book._reached:
            self.seen.add("reached")
        assert state_of(self.book) == self.naive.state_of(), f"{command}: the states differ"
        self.hashes.append(state_hash(self.book))
        assert self.hashes[-1] == hash_of(self.naive.state_of())
        accepted = sorted(order.sequence for order in self.accepted)
        ended = sorted(order.sequence for order in [*self.closed, *self.book.orders.values()])
        assert accepted == ended, f"{command}: an order is not either live or closed, once"

    # -- commands ----------------------------------------------------------------------------------------

    def submit(self, id: str, owner: str, side: Side, price: int, quantity: int, terms: Terms) -> Any:
        order = Order(id, owner, side, price, quantity, shortened(terms))
        ours = self.book.submit(order)
        if ours is Code.OK:
            self.accepted.append(order)
        return ours, self.naive.submit(Entry(id, owner, side, price, quantity, terms))

    def submit_pair(self, owner: str, side: Side, resting: tuple[Any, ...], stop: tuple[Any, ...]) -> Any:
        orders = [
            Order(id, owner, side, price, lots, shortened(terms))
            for id, price, lots, terms in (resting, stop)
        ]
        ours = self.book.submit_pair(*orders)
        if ours is Code.OK:
            self.accepted += orders
        entries = [Entry(id, owner, side, *rest) for id, *rest in (resting, stop)]
        return ours, self.naive.submit_pair(*entries)

    def cancel(self, id: str, owner: str | None) -> Any:
        return self.book.cancel(id, owner), self.naive.cancel(id, owner)

    def cancel_all(self, owner: str) -> Any:
        return self.book.cancel_all(owner), self.naive.cancel_all(owner)

    def expire_orders(self, time_ms: int) -> None:
        self.book.expire_orders(time_ms)
        self.naive.expire_orders(time_ms)

    def amend(self, id: str, price: int | None, quantity: int | None) -> Any:
        ours = self.book.amend(id, price=price, quantity=quantity)
        return ours, self.naive.amend(id, price, quantity)

    def mass_quote(self, owner: str, quotes: list[Quote]) -> Any:
        ours = self.book.mass_quote(owner, quotes)
        theirs = self.naive.mass_quote(owner, quotes)
        if ours is Code.OK:
            # The engine made these orders itself: they rest, or an event names them.
            known = {order.sequence for order in self.accepted}
            found = {order.sequence: order for order in self.book.orders.values()}
            for event in self.book.events:
                orders = (event.maker, event.taker) if isinstance(event, Match) else (event.order,)
                found.update((order.sequence, order) for order in orders)
            self.accepted += [order for sequence, order in found.items() if sequence not in known]
        return ours, theirs

    def set_state(self, state: MarketState) -> None:
        self.book.set_state(state)
        self.naive.set_state(state)

    def set_band(self, low: int, high: int) -> Any:
        return self.book.set_band(low, high), self.naive.set_band(low, high)

    def note_trade(self, price: int) -> Any:
        return self.book.note_trade(price), self.naive.note_trade(price)

    def reserve(self, side: Side, price: int, quantity: int, most: int | None, expires: float) -> None:
        """Ask what crosses and set all of it aside."""
        fills, contended = self.book.crossing(side, price, quantity, most=most)
        named = [(fill.order.id, fill.quantity) for fill in fills]
        assert (named, contended) == self.naive.crossing(side, price, quantity, most)
        if contended:
            self.seen.add("contended")
        if fills:
            self.locks_made += 1
            id, self.next_lock = self.next_lock or f"lock{self.locks_made}", None
            self.book.reserve(id, "peer", "purpose", fills, expires)
            self.naive.reserve(id, named, expires)

    def commit(self, id: str, quantities: dict[str, int]) -> None:
        reservation = self.book.reservations.get(id)
        if reservation is not None:
            parts = {
                fill.order.id: min(quantities.get(fill.order.id, 0), fill.quantity)
                for fill in reservation.fills
            }
            parts = {order_id: lots for order_id, lots in parts.items() if lots}
            executed = self.book.commit(reservation, parts)
            assert {fill.order.id: fill.quantity for fill in executed} == parts
            self.naive.commit(id, parts)

    def release(self, id: str) -> None:
        reservation = self.book.reservations.get(id)
        if reservation is not None:
            self.book.release(reservation)
            self.naive.release(id)

    def expire_lease(self, now: float) -> None:
        """End the lease that has run out first, if one has."""
        run_out = self.book.expired(now)
        late = [lock for lock in self.naive.locks.values() if lock.expires <= now]
        assert [r.id for r in run_out] == [k.id for k in sorted(late, key=lambda k: (k.expires, k.id))]
        if run_out:
            self.release(run_out[0].id)

    def hold(self, id: str) -> None:
        order = self.book.orders.get(id)
        if order is not None and not order.untriggered:
            open = order.open
            assert self.book.hold(order) == open
            self.naive.hold(id)

    def held(self, id: str) -> int:
        """The lots of an order that are reserved, but not by a reservation for others."""
        locked = sum(
            lots for lock in self.naive.locks.values() for order_id, lots in lock.fills if order_id == id
        )
        entry = self.naive.find(id)
        return 0 if entry is None else entry.reserved - locked

    def fill_held(self, id: str, lots: int, price: int) -> None:
        lots = min(lots, self.held(id))
        if lots:
            self.book.fill_held(self.book.orders[id], (lots, price))
            self.naive.fill_held(id, lots, price)

    def release_held(self, id: str, lots: int) -> None:
        lots = min(lots, self.held(id))
        if lots:
            self.book.release_held(self.book.orders[id], lots)
            self.naive.release_held(id, lots)

    def rematch(self, id: str) -> None:
        order = self.book.orders.get(id)
        if order is not None:
            self.book.rematch(order)
            self.naive.rematch(id)


def random_command(random: Random, twins: Twins) -> Command:
    """One command, likely to mean something to the book of ``twins`` as it is."""
    book = twins.book
    live = list(book.orders)
    some_id = random.choice(live) if live and random.random() < 0.9 else f"o{random.randrange(1000)}"
    fresh_id = f"o{random.randrange(1000)}"
    freed = list(book._freed)
    if freed and random.random() < 0.6:
        return "rematch", random.choice(freed)
    kind = random.choices(list(WEIGHTS), list(WEIGHTS.values()))[0]
    price, quantity = random.randint(0, 13), random.randint(1, 30)
    if kind == "submit":
        terms = random_terms(random)
        price = 0 if terms.market and random.random() < 0.9 else price
        id = fresh_id if random.random() < 0.95 else some_id
        return kind, id, random.choice(OWNERS), random.choice(SIDES), price, quantity, terms
    if kind == "submit_pair":
        side = random.choice(SIDES)
        low, high = sorted((random.randint(1, 12), random.randint(1, 12)))
        limit, stop_price = (low, high) if side is Side.BUY else (high, low)
        resting_terms = random_terms(random) if random.random() < 0.3 else Terms()
        stop_terms = Terms(stop_price=stop_price)
        resting = (fresh_id, limit, quantity, resting_terms)
        stop = (f"s{random.randrange(1000)}", price, quantity, stop_terms)
        return kind, random.choice(OWNERS), side, resting, stop
    if kind == "cancel":
        return kind, some_id, random.choice((None, None, *OWNERS))
    if kind == "cancel_all":
        return kind, random.choice(OWNERS)
    if kind == "amend":
        return kind, some_id, random.choice((None, price)), random.choice((None, quantity))
    if kind == "mass_quote":
        ids = [random.choice((fresh_id, some_id, f"q{n}", f"q{n}")) for n in range(random.randint(1, 4))]
        quotes = []
        for id in ids:
            order = book.orders.get(id)
            side = order.side if order is not None and random.random() < 0.9 else random.choice(SIDES)
            at = random.randint(1, 7) if side is Side.BUY else random.randint(6, 12)
            quotes.append(Quote(id, side, at, random.choice((0, 2, 5, random.randint(1, 20)))))
        order = book.orders.get(ids[0])
        return kind, order.owner if order is not None else random.choice(OWNERS), quotes
    if kind == "set_state":
        state = random.choice((MarketState.CANCEL_ONLY, MarketState.HALTED))
        return (
            kind,
            MarketState.OPEN if book.state is not MarketState.OPEN or random.random() < 0.5 else state,
        )
    if kind == "set_band":
        return (
            kind,
            random.choice((1, 1, random.randint(1, 6))),
            random.choice((12, 12, random.randint(5, 13))),
        )
    if kind == "note_trade":
        return kind, random.randint(0, 13)
    if kind == "expire_orders":
        return kind, book.time_ms + random.randint(-1, 3)
    if kind == "reserve":
        most = random.choice((None, None, 1, 2))
        return kind, random.choice(SIDES), random.randint(1, 12), quantity, most, random.random() * 10
    if kind in ("commit", "release"):
        locks = list(book.reservations) or ["none"]
        id = random.choice(locks)
        return (kind, id, {o: random.randint(0, 20) for o in live}) if kind == "commit" else (kind, id)
    if kind == "expire_lease":
        return kind, random.random() * 10
    if kind == "hold":
        return kind, some_id
    if kind == "fill_held":
        return kind, some_id, random.randint(1, 20), random.randint(1, 12)
    assert kind == "release_held"
    return kind, some_id, random.randint(1, 20)


WEIGHTS = {
    "submit": 40,
    "submit_pair": 3,
    "cancel": 8,
    "cancel_all": 1,
    "amend": 8,
    "mass_quote": 3,
    "set_state": 3,
    "set_band": 1,
    "note_trade": 2,
    "expire_orders": 2,
    "reserve": 8,
    "commit": 4,
    "release": 3,
    "expire_lease": 2,
    "hold": 4,
    "fill_held": 3,
    "release_held": 4,
}


def random_terms(random: Random) -> Terms:
    """Terms of every kind, plain ones most often; some contradict themselves."""
    if random.random() < 0.4:
        return Terms()
    force = random.choices(list(TimeInForce), (10, 3, 2, 2))[0]
    market = random.random() < 0.1
    return Terms(
        time_in_force=TimeInForce.IOC if market and random.random() < 0.5 else force,
        market=market,
        post_only=random.choice(list(PostOnly)) if random.random() < 0.15 else None,
        stop_price=random.randint(0, 13) if random.random() < 0.15 else None,
        display=random.randint(0, 6) if random.random() < 0.25 else None,
        expires_ms=random.randint(0, 30) if (force is TimeInForce.GTD) != (random.random() < 0.1) else None,
        self_trade=random.choice(list(SelfTrade)),
    )
