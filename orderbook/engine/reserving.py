"""Reservations: quantity of resting orders that is set aside for one counterparty, and for nobody else.

An order keeps its place in the queue while part or all of it is reserved; matching passes over what is not
open, without looking at it. Of an iceberg only what it shows can be reserved, so that nobody learns its size
without trading, and while some of its tip is reserved it shows nothing new.

What is given back may cross orders that arrived meanwhile. Whoever gives back calls :meth:`Reserving.rematch`
next; until then, and only then, may open quantity cross within the book.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from heapq import heapify, heappop, heappush
from typing import NamedTuple

from ..model import Order, Side
from ..terms import GTC, Routing, SelfTrade
from .codes import Reason
from .entering import ALONE, OPEN, Entering
from .events import Cancellation, Execution, Match
from .resting import _new
from .rules import RULES, Rules

_ENDED_LEASES = 1_000  # kept at the most before they are swept, beyond as many as there are live ones


class Fill(NamedTuple):
    """A quantity, in lots, of one resting order; the price is the order's."""

    order: Order
    quantity: int


class Crossing(NamedTuple):
    """What an incoming order meets in a book.

    Attributes:
        fills: Open quantity it can have, best price first, oldest first within a price.
        contended: More crosses than could be had now: it is reserved or hidden (or was left out by ``most``).
    """

    fills: list[Fill]
    contended: bool


class Reach(NamedTuple):
    """How far an order of this book may go.

    Attributes:
        fills: Open quantity that it can have here, best price first, oldest first within a price.
        price: The worst price that it may take anywhere, in ticks.
    """

    fills: list[Fill]
    price: int


class Reservation:
    """Quantity of one or more resting orders set aside for one counterparty, until ``expires``.

    It ends exactly once, by :meth:`Reserving.commit` or :meth:`Reserving.release`; its id is then unknown to
    the book for good.

    Attributes:
        id: The lock id.
        counterparty: The peer that may commit or release it.
        purpose: The counterparty's order that it is for.
        fills: What is set aside, as :meth:`Reserving.crossing` found it.
        quantity: All of that, in lots.
        expires: When :meth:`Reserving.expired` lists it, on the caller's monotonic clock.
    """

    __slots__ = ("counterparty", "expires", "fills", "id", "purpose", "quantity")

    def __init__(self, id: str, counterparty: str, purpose: str, fills: list[Fill], expires: float):
        self.id = id
        self.counterparty = counterparty
        self.purpose = purpose
        self.fills = fills
        self.quantity = fills[0].quantity if len(fills) == 1 else sum(fill.quantity for fill in fills)
        self.expires = expires


class Reserving(Entering):
    """A book, and the reservations on its orders.

    These methods are for a protocol, which knows what it asks for: what can't be is a ``ValueError`` that
    changes nothing, not a result code.

    Attributes:
        reservations: Reservations for counterparties by id.
    """

    def __init__(
        self,
        rules: Rules = RULES,
        on_closed: Callable[[Order], object] | None = None,
        routing: Routing = ALONE,
    ):
        super().__init__(rules, on_closed, routing)
        self.reservations: dict[str, Reservation] = {}
        self._leases: list[tuple[float, str]] = []  # a heap; those that have ended go when they come up

    # -- for counterparties ------------------------------------------------------------------------------

    def crossing(self, side: Side, price: int, quantity: int, *, most: int | None = None) -> Crossing:
        """What a stranger's order of ``side`` limited at ``price`` could trade with now: nothing while the
        market is not open. O(k + levels met).

        Args:
            quantity: Lots wanted at the most.
            most: Resting orders named at the most.
        """
        if self.state is not OPEN:
            return Crossing([], False)
        other = self.opposite(side)
        limit = price * other.sign
        first = other.best.head if other.best is not None and other.best_key >= limit else None
        if first is not None and first.open - first.hidden >= quantity:
            return _new(Crossing, ([_new(Fill, (first, quantity))], False))  # as most orders, without loops
        fills: list[Fill] = []
        hidden = False
        for level in other.down_to(limit):
            hidden = hidden or level.hidden > 0
            for order in level:
                if most is not None and len(fills) == most:
                    return Crossing(fills, True)
                part = min(order.open - order.hidden, quantity)
                fills.append(Fill(order, part))
                quantity -= part
                if not quantity:
                    return Crossing(fills, False)
        return Crossing(fills, hidden or other.best_reserved >= limit)

    def reserve(
        self, id: str, counterparty: str, purpose: str, fills: Iterable[Fill], expires: float
    ) -> Reservation:
        """Set ``fills``, as :meth:`crossing` found them, aside for ``counterparty``. O(k log n).

        Args:
            id: A fresh lock id; it never names another reservation.
            counterparty: The peer that may commit or release it.
            purpose: The counterparty's order that it is for.
            expires: When :meth:`expired` lists it, on the caller's monotonic clock.

        Raises:
            ValueError: ``id`` is taken, or ``fills`` names no order, one twice, or more than is shown of one.
        """
        if id in self.reservations:
            raise ValueError(f"reservation {id} exists already")
        reservation = Reservation(id, counterparty, purpose, list(fills), expires)
        count = len(reservation.fills)
        if count != 1 and (not count or len({fill.order.id for fill in reservation.fills}) != count):
            raise ValueError(f"reservation {id} must name each order once, and at least one")
        for order, quantity in reservation.fills:
            shown = 0 if order.level is None else order.open - order.hidden
            if type(quantity) is not int or not 0 < quantity <= shown:
                raise ValueError(f"reservation {id} wants {quantity} lots of {order}, which are not open")
        self.events = []
        self.sequence += 1
        for order, quantity in reservation.fills:
            self._set_aside(order, quantity)
        self.reservations[id] = reservation
        self._add_lease(reservation)
        return reservation

    def commit(self, reservation: Reservation, quantities: Mapping[str, int]) -> list[Fill]:
        """Execute ``quantities`` (lots by order id, each within what is reserved) and free the rest.

        O(k log n). The freed orders are the caller's to :meth:`rematch`. What was promised is kept in any
        state of the market.

        Returns:
            What was executed, in the reservation's order.

        Raises:
            ValueError: The reservation has ended, or ``quantities`` is not within it; nothing has changed.
        """
        executed = self._within(reservation, quantities)
        self.events = []
        self._end(reservation)
        for order, quantity in reservation.fills:
            part = quantities.get(order.id, 0)
            if part:
                self._execute(order, part, order.price)
            if quantity > part:
                self._give_back(order, quantity - part)
        self._follow_up()
        return executed

    def commit_here(self, reservation: Reservation, quantities: Mapping[str, int], taker: Order) -> None:
        """As :meth:`commit`, for a ``taker`` of this book, of which as much was held: they trade, and
        ``events`` has each :class:`~orderbook.engine.events.Match`.

        Raises:
            ValueError: As :meth:`commit`, or so much is not reserved of ``taker``; nothing has changed.
        """
        executed = self._within(reservation, quantities)
        self._check_reserved(taker, sum(fill.quantity for fill in executed))
        self.events = []
        self._end(reservation)
        for maker, quantity in reservation.fills:
            part = quantities.get(maker.id, 0)
            if part:
                self.events.append(Match(maker, taker, maker.price, part))
                self._fill(maker, part, maker.price)
                self._fill(taker, part, maker.price)
            if quantity > part:
                self._give_back(maker, quantity - part)
        self._follow_up()

    def _within(self, reservation: Reservation, quantities: Mapping[str, int]) -> list[Fill]:
        """``quantities`` in the reservation's order. Raises ValueError when they are not within it."""
        self._check_live(reservation)
        executed: list[Fill] = []
        for order, reserved in reservation.fills:
            quantity = quantities.get(order.id)
            if quantity is None:
                continue
            if type(quantity) is not int or not 0 < quantity <= reserved:
                raise ValueError(f"{quantity} of order {order.id} is not within reservation {reservation.id}")
            executed.append(_new(Fill, (order, quantity)))
        if len(executed) != len(quantities):
            raise ValueError(f"one of {[*quantities]} is not within reservation {reservation.id}")
        return executed

    def release(self, reservation: Reservation) -> None:
        """Free all of a reservation. O(k log n). Its orders are the caller's to :meth:`rematch`.

        Raises:
            ValueError: The reservation has ended already.
        """
        self._check_live(reservation)
        self.events = []
        self._end(reservation)
        for order, quantity in reservation.fills:
            self._give_back(order, quantity)
        self._follow_up()

    def expired(self, now: float) -> list[Reservation]:
        """The reservations whose lease has run out at ``now``, earliest first; they are the caller's to
        :meth:`release`. O(k log k); O(1) when there is none."""
        leases = self._leases
        if not leases or leases[0][0] > now:
            return []
        run_out, at = [], [0]
        while at:  # down the heap, as far as they have run out
            place = at.pop()
            if place < len(leases) and leases[place][0] <= now:
                if self._is_live(leases[place]):
                    run_out.append(leases[place])
                at += (2 * place + 1, 2 * place + 2)
        return [self.reservations[id] for _, id in sorted(run_out)]

    def next_expiry(self) -> float | None:
        """When the next lease runs out, or None. O(log n) for each that has ended before its time."""
        leases = self._leases
        while leases:
            if self._is_live(leases[0]):
                return leases[0][0]
            heappop(leases)
        return None

    def _is_live(self, lease: tuple[float, str]) -> bool:
        reservation = self.reservations.get(lease[1])
        return reservation is not None and reservation.expires == lease[0]

    def _add_lease(self, reservation: Reservation) -> None:
        heappush(self._leases, (reservation.expires, reservation.id))
        if len(self._leases) > 2 * len(self.reservations) + _ENDED_LEASES:
            self._leases = [(live.expires, live.id) for live in self.reservations.values()]
            heapify(self._leases)

    def _check_live(self, reservation: Reservation) -> None:
        if self.reservations.get(reservation.id) is not reservation:
            raise ValueError(f"reservation {reservation.id} has ended")

    def _end(self, reservation: Reservation) -> None:
        self.sequence += 1
        del self.reservations[reservation.id]

    # -- for an order's own way through the network --------------------------------------------------------

    def hold(self, order: Order) -> int:
        """Self-reservation: set all that is open of a resting ``order`` aside. O(log n). Returns the lots."""
        self.events = []
        quantity = 0 if order.untriggered else order.open
        if quantity:
            self.sequence += 1
            self._set_aside(order, quantity)
        return quantity

    def reach(self, order: Order, quantity: int) -> Reach:
        """What ``order``, which was held, could trade with here now, up to ``quantity`` lots: of icebergs
        what they show. O(k + levels met).

        It goes no further than to an order of its own owner, unless its terms cancel that one.
        """
        fills: list[Fill] = []
        if self.state is not OPEN:
            return Reach(fills, order.price)
        other = self.opposite(order.side)
        passes_own = order.terms.self_trade is SelfTrade.CANCEL_OLDEST
        for level in other.down_to(order.price * other.sign):
            for maker in level:
                if maker.owner == order.owner and maker.owner:
                    if passes_own:
                        continue
                    return Reach(fills, maker.price)
                part = min(maker.open - maker.hidden, quantity)
                fills.append(Fill(maker, part))
                quantity -= part
                if not quantity:
                    return Reach(fills, order.price)
        return Reach(fills, order.price)

    def fill_held(self, order: Order, *fills: tuple[int, int]) -> None:
        """Execute ``fills`` of what was held of ``order``: lots, and the price of a counterparty in ticks.
        O(log n).

        Raises:
            ValueError: So much is not reserved.
        """
        total = 0
        for quantity, _ in fills:
            total += quantity
        self._check_reserved(order, total)
        self.events = []
        self.sequence += 1
        for quantity, price in fills:
            self._execute(order, quantity, price)
        self._follow_up()

    def release_held(self, order: Order, quantity: int) -> None:
        """Give ``quantity`` lots of what was held back to ``order``: open, or cancelled if its owner
        cancelled it meanwhile. O(log n). Call :meth:`rematch` next.

        Raises:
            ValueError: So much is not reserved.
        """
        self._check_reserved(order, quantity)
        self.events = []
        self.sequence += 1
        self._give_back(order, quantity)
        self._follow_up()

    def _check_reserved(self, order: Order, quantity: int) -> None:
        if type(quantity) is not int or not 0 < quantity <= order.reserved:
            raise ValueError(f"{quantity} lots are not reserved of {order}")

    # -- what was given back -------------------------------------------------------------------------------

    def rematch(self, order: Order) -> None:
        """Match what was given back of a resting ``order`` against the other side. O(k log n).

        Orders that arrived while it was reserved may cross it. The one with the earlier priority is the maker
        and sets the price; where both have the same owner, the terms of the other one say which is cancelled.
        An order that does not rest takes what there is by now, and ends. While the market is not open this
        waits until it is.
        """
        self.events = []
        if order.id in self._freed and self.state is OPEN:
            del self._freed[order.id]
            self.sequence += 1
            if order.terms is GTC or order.terms.rests:
                self._uncross(order)
            else:
                self._finish(order)
            self._follow_up()

    # -- between open, reserved and filled -----------------------------------------------------------------

    def _execute(self, order: Order, quantity: int, price: int) -> None:
        self.events.append(_new(Execution, (order, price, quantity)))
        self._fill(order, quantity, price)

    def _fill(self, order: Order, quantity: int, price: int) -> None:
        self._unreserve(order, quantity)
        order.filled += quantity
        self.last_price = price
        if order.hidden and self._show_next(order):
            self._freed[order.id] = order
        if not (order.open or order.reserved):
            self._close_if_done(order)

    def _give_back(self, order: Order, quantity: int) -> None:
        """What was reserved opens again, in its old place, or is cancelled if its owner has cancelled it."""
        self._unreserve(order, quantity)
        if order.cancel_requested:
            order.cancelled += quantity
            self.events.append(Cancellation(order, quantity, Reason.RELEASED))
            self._close_if_done(order)
            return
        self._freed[order.id] = order
        if order.terms is not GTC and not order.terms.rests:
            order.open += quantity  # it is nobody's to take
            return
        level = order.level
        shown = order.open - order.hidden + quantity
        if order.terms.display is not None:
            shown = min(shown, order.terms.display)
        order.open += quantity
        hidden, order.hidden = order.hidden, order.open - shown
        if level is None:
            self._come_back(order)
        else:
            level.open += quantity
            level.hidden += order.hidden - hidden
