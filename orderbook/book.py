"""The book of one market at one peer: resting orders, price-time matching, reservations.

Pure and in memory: no IO, no clock, no ids of its own. Time enters only as the ``expires`` of a reservation
and the ``now`` of :meth:`Book.expired`. Every method does all of its work or, when it raises, nothing.

Where quantity can be, for each order: ``quantity == open + reserved + filled + cancelled``.

    open ──match──────────────▶ filled
      │ ▲                         ▲
      │ └──release── reserved ──commit
      └────reserve──▶  │
      └────cancel────▶ └─ release of an order whose owner has cancelled it ──▶ cancelled

An order keeps its place in the queue while part or all of it is reserved; matching passes over what is not
open. Open quantity never crosses within a book: whoever releases some calls :meth:`Book.rematch` with it.

``n`` below is the number of price levels of a side, ``k`` the number of resting orders a call touches.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import NamedTuple

from sortedcontainers import SortedDict, SortedList

from .model import Order, Side


class Fill(NamedTuple):
    """A quantity, in lots, of one resting order; the price is the order's."""

    order: Order
    quantity: int


class Match(NamedTuple):
    """An execution between two resting orders; the maker is the older one."""

    maker: Order
    taker: Order
    quantity: int


class Crossing(NamedTuple):
    """What an incoming order meets in a book.

    Attributes:
        fills: Open quantity it can have, best price first, oldest first within a price.
        contended: More crosses than could be had now: it is reserved (or was left out by ``most``).
        meets_itself: It stopped before a resting order of its own owner.
    """

    fills: list[Fill]
    contended: bool
    meets_itself: bool


class Reservation:
    """Quantity of one or more resting orders set aside for one counterparty, until ``expires``.

    It ends exactly once, by :meth:`Book.commit`, :meth:`Book.release` or (through the latter) expiry; its id
    is then unknown to the book for good.
    """

    __slots__ = ("counterparty", "expires", "fills", "id", "purpose")

    def __init__(self, id: str, counterparty: str, purpose: str, fills: list[Fill], expires: float):
        self.id = id
        self.counterparty = counterparty
        self.purpose = purpose
        self.fills = fills
        self.expires = expires

    @property
    def quantity(self) -> int:
        return sum(fill.quantity for fill in self.fills)


class Level:
    """All orders at one price, oldest first, with the sums of what is open and reserved of them."""

    __slots__ = ("open", "orders", "price", "reserved")

    def __init__(self, price: int):
        self.price = price
        self.orders: dict[str, Order] = {}
        self.open = 0
        self.reserved = 0


class Book:
    """Resting orders of one market, and the reservations on them."""

    def __init__(self) -> None:
        self.orders: dict[str, Order] = {}
        """Live orders by id."""
        self.reservations: dict[str, Reservation] = {}
        """Reservations for counterparties by id."""
        self._closed: list[Order] = []
        self._levels: dict[Side, SortedDict] = {Side.BUY: SortedDict(), Side.SELL: SortedDict()}
        self._by_expiry: SortedList = SortedList()
        self._sequence = 0

    # -- orders ------------------------------------------------------------------------------------------

    def add(self, order: Order) -> None:
        """Number ``order`` and rest what is live of it behind all others of its price. O(log n).

        The caller has matched it: its open quantity must not cross the book's.
        """
        if order.id in self.orders:
            raise ValueError(f"order {order.id} is in the book already")
        self._sequence += 1
        order.sequence = self._sequence
        if not order.live:
            self._closed.append(order)
            return
        levels = self._levels[order.side]
        level = levels.get(order.price)
        if level is None:
            level = levels[order.price] = Level(order.price)
        level.orders[order.id] = order
        level.open += order.open
        level.reserved += order.reserved
        self.orders[order.id] = order

    def take(self, taker: Order, crossing: Crossing) -> None:
        """Execute what :meth:`crossing` found for ``taker``, which is not in the book. O(k log n)."""
        for maker, quantity in crossing.fills:
            self._shift(maker, open=-quantity, filled=quantity)
            taker.open -= quantity
            taker.filled += quantity

    def cancel(self, order: Order) -> int:
        """Take back what is open of ``order``; what is reserved follows unless it fills. O(log n).

        Returns:
            The quantity cancelled now, in lots.
        """
        quantity = order.open
        order.cancel_requested = True
        self._shift(order, open=-quantity, cancelled=quantity)
        return quantity

    def rematch(self, order: Order) -> tuple[list[Match], list[Order]]:
        """Match what was released of a resting ``order`` against the other side. O(k log n).

        Orders that arrived while it was reserved may cross it. The older of two is the maker and sets the
        price.

        Returns:
            The executions, and the orders that were cancelled: where ``order`` meets its own owner, what is
            open of the newer one is.
        """
        matches: list[Match] = []
        cancelled: list[Order] = []
        while order.open:
            crossing = self.crossing(order.side, order.price, order.open, owner=order.owner)
            for other, quantity in crossing.fills:
                self._shift(order, open=-quantity, filled=quantity)
                self._shift(other, open=-quantity, filled=quantity)
                maker, taker = (order, other) if order.sequence < other.sequence else (other, order)
                matches.append(Match(maker, taker, quantity))
            if not crossing.meets_itself:
                break
            twin = self._first_of_owner(order)
            newer = order if order.sequence > twin.sequence else twin
            self.cancel(newer)
            cancelled.append(newer)
        return matches, cancelled

    def _first_of_owner(self, order: Order) -> Order:
        return next(
            other
            for level in self._crossing_levels(order.side, order.price)
            for other in level.orders.values()
            if other.open and other.owner == order.owner
        )

    # -- reservations ------------------------------------------------------------------------------------

    def hold(self, order: Order) -> int:
        """Self-reservation: set all that is open of a resting ``order`` aside. O(log n). Returns the lots."""
        quantity = order.open
        self._shift(order, open=-quantity, reserved=quantity)
        return quantity

    def fill_held(self, order: Order, quantity: int) -> None:
        """Execute ``quantity`` lots of what was held of ``order``. O(log n)."""
        self._shift(order, reserved=-quantity, filled=quantity)

    def release_held(self, order: Order, quantity: int) -> None:
        """Give ``quantity`` lots of what was held back to ``order``: open, or cancelled if its owner
        cancelled it meanwhile. O(log n). Call :meth:`rematch` next."""
        if order.cancel_requested:
            self._shift(order, reserved=-quantity, cancelled=quantity)
        else:
            self._shift(order, reserved=-quantity, open=quantity)

    def reserve(
        self, id: str, counterparty: str, purpose: str, fills: Iterable[Fill], expires: float
    ) -> Reservation:
        """Set ``fills``, as :meth:`crossing` found them, aside for ``counterparty``. O(k log n).

        Args:
            id: A fresh lock id; it never names another reservation.
            counterparty: The peer that may commit or release it.
            purpose: The counterparty's order that it is for.
            expires: When :meth:`expired` lists it, on the caller's monotonic clock.
        """
        if id in self.reservations:
            raise ValueError(f"reservation {id} exists already")
        reservation = Reservation(id, counterparty, purpose, list(fills), expires)
        for order, quantity in reservation.fills:
            self._shift(order, open=-quantity, reserved=quantity)
        self.reservations[id] = reservation
        self._by_expiry.add((expires, id))
        return reservation

    def commit(self, reservation: Reservation, quantities: dict[str, int]) -> list[Fill]:
        """Execute ``quantities`` (lots by order id, each within what is reserved) and free the rest.

        O(k log n). The freed orders are the caller's to :meth:`rematch`.

        Returns:
            What was executed, in the reservation's order.

        Raises:
            ValueError: ``quantities`` is not within the reservation; nothing has changed.
        """
        reserved = {fill.order.id: fill.quantity for fill in reservation.fills}
        for order_id, quantity in quantities.items():
            if not 0 < quantity <= reserved.get(order_id, 0):
                raise ValueError(f"{quantity} of order {order_id} is not within reservation {reservation.id}")
        self._forget(reservation)
        executed: list[Fill] = []
        for order, quantity in reservation.fills:
            commit = quantities.get(order.id, 0)
            if commit:
                self.fill_held(order, commit)
                executed.append(Fill(order, commit))
            if quantity > commit:
                self.release_held(order, quantity - commit)
        return executed

    def release(self, reservation: Reservation) -> None:
        """Free all of a reservation. O(k log n). Its orders are the caller's to :meth:`rematch`."""
        self._forget(reservation)
        for order, quantity in reservation.fills:
            self.release_held(order, quantity)

    def expired(self, now: float) -> list[Reservation]:
        """The reservations whose lease has run out at ``now``, earliest first. O(1) when there is none."""
        run_out: list[Reservation] = []
        for expires, id in self._by_expiry:
            if expires > now:
                break
            run_out.append(self.reservations[id])
        return run_out

    def next_expiry(self) -> float | None:
        """When the next lease runs out, or None. O(1)."""
        return self._by_expiry[0][0] if self._by_expiry else None

    def _forget(self, reservation: Reservation) -> None:
        del self.reservations[reservation.id]
        self._by_expiry.remove((reservation.expires, reservation.id))

    # -- views -------------------------------------------------------------------------------------------

    def crossing(
        self, side: Side, price: int, quantity: int, *, owner: str | None = None, most: int | None = None
    ) -> Crossing:
        """What an order of ``side`` limited at ``price`` could trade with now. O(k + levels met).

        Args:
            quantity: Lots wanted at the most.
            owner: Its owner here; the walk stops before an order of the same owner. None: a stranger's.
            most: Resting orders named at the most.
        """
        fills: list[Fill] = []
        contended = False
        for level in self._crossing_levels(side, price):
            if level.reserved:
                contended = True
            if not level.open:
                continue
            for order in level.orders.values():
                if not order.open:
                    continue
                if owner is not None and order.owner == owner:
                    return Crossing(fills, False, True)
                if most is not None and len(fills) == most:
                    return Crossing(fills, True, False)
                part = order.open if order.open < quantity else quantity
                fills.append(Fill(order, part))
                quantity -= part
                if not quantity:
                    return Crossing(fills, False, False)
        return Crossing(fills, contended, False)

    def best(self, side: Side) -> int | None:
        """The best price of ``side`` with open quantity, in ticks, or None. O(1) but for reserved levels."""
        return next((level.price for level in self._best_first(side) if level.open), None)

    def depth(self, side: Side, levels: int) -> list[tuple[int, int]]:
        """(price in ticks, open lots) of the best ``levels`` prices with open quantity, best first."""
        rows: list[tuple[int, int]] = []
        for level in self._best_first(side):
            if level.open:
                rows.append((level.price, level.open))
                if len(rows) == levels:
                    break
        return rows

    def crossed_by(self, side: Side, price: int, most: int) -> list[Order]:
        """Up to ``most`` open orders that an order of ``side`` at ``price`` would trade with, best first."""
        crossed = (
            order
            for level in self._crossing_levels(side, price)
            if level.open
            for order in level.orders.values()
            if order.open
        )
        return list(islice(crossed, most))

    def take_closed(self) -> list[Order]:
        """The orders that have closed since this was last called."""
        closed, self._closed = self._closed, []
        return closed

    def _best_first(self, side: Side) -> Iterator[Level]:
        levels = self._levels[side]
        prices = reversed(levels) if side is Side.BUY else iter(levels)
        return (levels[price] for price in prices)

    def _crossing_levels(self, side: Side, price: int) -> Iterator[Level]:
        """Levels of the other side that an order of ``side`` at ``price`` crosses, best first."""
        for level in self._best_first(side.opposite):
            if not side.crosses(price, level.price):
                return
            yield level

    # -- the one place where quantity moves ---------------------------------------------------------------

    def _shift(
        self, order: Order, *, open: int = 0, reserved: int = 0, filled: int = 0, cancelled: int = 0
    ) -> None:
        """Move quantity within a resting order; the four changes add up to zero."""
        level: Level = self._levels[order.side][order.price]
        order.open += open
        order.reserved += reserved
        order.filled += filled
        order.cancelled += cancelled
        level.open += open
        level.reserved += reserved
        if not order.open and not order.reserved:
            del level.orders[order.id]
            del self.orders[order.id]
            self._closed.append(order)
            if not level.orders:
                del self._levels[order.side][order.price]

    # -- invariants --------------------------------------------------------------------------------------

    def check(self) -> None:
        """Verify every invariant; O(orders). For tests and simulations.

        Raises:
            AssertionError: Naming what does not hold.
        """
        seen: dict[str, Order] = {}
        for side, levels in self._levels.items():
            for price, level in levels.items():
                assert level.orders, f"level {side.value} {price} is empty"
                assert level.price == price, f"level {side.value} {price} thinks it is {level.price}"
                assert level.open == sum(o.open for o in level.orders.values()), f"open sum of {price}"
                assert level.reserved == sum(o.reserved for o in level.orders.values()), "reserved sum"
                last = 0
                for id, order in level.orders.items():
                    assert order.id == id, f"{order} is filed as {id}"
                    assert (order.side, order.price) == (side, price), f"{order} lies at {side.value} {price}"
                    assert order.sequence > last, f"{order} is out of time order"
                    last = order.sequence
                    check_order(order)
                    assert order.live, f"{order} rests but is closed"
                    seen[id] = order
        assert seen == self.orders, "the index of orders disagrees with the levels"

        reserved: dict[str, int] = {}
        for id, reservation in self.reservations.items():
            assert reservation.id == id, f"reservation {reservation.id} is filed as {id}"
            assert reservation.fills, f"reservation {id} holds nothing"
            for order, quantity in reservation.fills:
                assert quantity > 0, f"reservation {id} holds {quantity} of {order}"
                assert self.orders.get(order.id) is order, f"reservation {id} holds {order}, which is gone"
                reserved[order.id] = reserved.get(order.id, 0) + quantity
        for id, quantity in reserved.items():
            assert quantity <= seen[id].reserved, f"{seen[id]} is reserved for {quantity} by others"
        expiries = sorted((r.expires, r.id) for r in self.reservations.values())
        assert list(self._by_expiry) == expiries, "the index of leases disagrees with the reservations"

        bid, ask = self.best(Side.BUY), self.best(Side.SELL)
        assert bid is None or ask is None or bid < ask, f"open orders cross: bid {bid}, ask {ask}"


def check_order(order: Order) -> None:
    """Conservation (I1). Raises AssertionError."""
    parts = (order.open, order.reserved, order.filled, order.cancelled)
    assert min(parts) >= 0, f"negative quantity: {order}"
    assert sum(parts) == order.quantity, f"quantity lost or invented: {order}"
