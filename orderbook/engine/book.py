"""The engine: the book of one market, and every command on it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from .. import limits
from ..model import Order, Side
from ..terms import GTC
from .check import check
from .codes import Code, Reason
from .entering import OK, OPEN
from .events import Cancellation
from .reserving import Reserving
from .resting import BUY, _new
from .rules import MarketState

HALTED: Final = MarketState.HALTED
REQUESTED: Final = Reason.REQUESTED
TOO_MUCH: Final = Code.ABOVE_MAXIMUM


class Quote(NamedTuple):
    """One order of a mass quote: from now on so much of it is there to trade, at this price.

    Attributes:
        id: Of a live order, which is changed, or of a new one.
        side: Buy or sell.
        price: In ticks.
        quantity: In lots, open and reserved together; 0 cancels.
        time_ms: When a new order was accepted, in milliseconds since the epoch.
        client_order_id: The owner's own name for a new order, or None.
    """

    id: str
    side: Side
    price: int
    quantity: int
    time_ms: int = 0
    client_order_id: str | None = None


class Book(Reserving):
    """The orders of one market: matched by price and time, reserved for others, changed by their owners.

    Pure and in memory: no IO, no clock, no ids or random numbers of its own. The same commands give the same
    book and the same events. A command that is refused says why by its :class:`Code` and changes nothing;
    what happened otherwise stands in ``events`` until the next command.

    >>> from orderbook.engine import Book, Order, Side, Terms, POST_ONLY
    >>> book = Book()
    >>> book.submit(Order("a", "alice", Side.SELL, price=101, quantity=5))
    <Code.OK: 'ok'>
    >>> book.submit(Order("b", "bob", Side.BUY, price=102, quantity=2, terms=POST_ONLY))
    <Code.POST_ONLY_CROSSES: 'post_only_crosses'>
    >>> book.submit(Order("c", "carol", Side.BUY, price=102, quantity=2))
    <Code.OK: 'ok'>
    >>> [(match.maker.id, match.taker.id, match.price, match.quantity) for match in book.events]
    [('a', 'c', 101, 2)]
    >>> book.depth(Side.SELL, levels=10)
    [(101, 3)]

    Quantity can be set aside for somebody who decides later, and keeps its place in the queue:

    >>> fills, contended = book.crossing(Side.BUY, price=101, quantity=3)
    >>> reservation = book.reserve("lock-1", "peer-2", "their-order", fills, expires=5.0)
    >>> book.best(Side.SELL) is None
    True
    >>> executed = book.commit(reservation, {"a": 1})
    >>> book.orders["a"]
    <Order a sell 5@101 open=2 reserved=0 filled=3 cancelled=0>
    """

    # -- taking back -------------------------------------------------------------------------------------

    def cancel(self, id: str, owner: str | None = None, reason: Reason = REQUESTED) -> Code:
        """Take an order back: what is open is cancelled now, what is reserved fills or is cancelled when its
        reservation ends. O(1), or O(log n) when its price level ends.

        Args:
            id: Of a live order, also one that waits for its stop price.
            owner: Whose it must be; None: anybody's.
            reason: What the event says.

        Returns:
            ``OK``, or ``UNKNOWN_ORDER``, ``NOT_OWNER``, ``BEING_CANCELLED`` or ``HALTED``.
        """
        self.events = []
        order = self.orders.get(id)
        if order is None:
            return Code.UNKNOWN_ORDER
        if owner is not None and owner != order.owner:
            return Code.NOT_OWNER
        if order.cancel_requested:
            return Code.BEING_CANCELLED
        if self.state is HALTED:
            return Code.HALTED
        self.sequence += 1
        level = order.level
        if level is None or order.reserved or order.terms is not GTC or self._freed or self._partners:
            self._cancel_open(order, reason)
            self._follow_up()
            return OK
        # The same for most orders, without its calls.
        if level.count == 1:
            order.level = None
            (self.bids if order.side is BUY else self.asks).drop_level(level)
        else:
            level.remove(order)
        quantity = order.open
        order.open = 0
        order.cancelled += quantity
        order.cancel_requested = True
        self.events = [_new(Cancellation, (order, quantity, reason))]
        del self.orders[id]
        if self._by_owner is not None:
            self._disown(order)
        if self._on_closed is not None:
            self._on_closed(order)
        return OK

    def cancel_all(self, owner: str) -> Code:
        """Take back every order of ``owner``, also those that wait for their stop price. O(k log n).

        Returns:
            ``OK``, or ``HALTED``.
        """
        self.events = []
        if self.state is HALTED:
            return Code.HALTED
        self.sequence += 1
        for order in self.orders_of(owner):
            if not order.cancel_requested:
                self._cancel_open(order, REQUESTED)
        self._follow_up()
        return OK

    def expire_orders(self, time_ms: int) -> None:
        """Cancel the orders whose ``expires_ms`` has come. O(k log n); O(1) when there is none.

        Args:
            time_ms: Now, in milliseconds since the epoch. It may be before the last one told: clocks are set
                right.
        """
        self.events = []
        self.time_ms = time_ms
        while self._expiring and self._expiring.keys()[0][0] <= time_ms:
            _, order = self._expiring.popitem(0)
            if not order.cancel_requested:
                self.sequence += 1
                self._cancel_open(order, Reason.EXPIRED)
        self._follow_up()

    @property
    def next_expiry_ms(self) -> int | None:
        """When the next order expires, in milliseconds since the epoch, or None. O(1)."""
        return int(self._expiring.keys()[0][0]) if self._expiring else None

    # -- changing ----------------------------------------------------------------------------------------

    def amend(
        self, id: str, *, price: int | None = None, quantity: int | None = None, owner: str | None = None
    ) -> Code:
        """Change an order. With the same price (also one that it slides back to) and no larger quantity it
        keeps its place; else it goes to the back of its price, after trading with what it crosses now. O(1)
        where it keeps its place, else as :meth:`submit`.

        A stop order that waits goes on waiting.

        Args:
            id: Of a live order.
            price: The new limit, in ticks; None: as it is.
            quantity: The new quantity, in lots, of which what was filled is a part; None: as it is.
            owner: Whose it must be; None: anybody's.

        Returns:
            ``OK``, or why not: then the order is what it was.
        """
        self.events = []
        order = self.orders.get(id)
        if order is None:
            return Code.UNKNOWN_ORDER
        if owner is not None and owner != order.owner:
            return Code.NOT_OWNER
        price = order.price if price is None else price
        quantity = order.quantity if quantity is None else quantity
        code = self._quantity_code(quantity)
        if code is OK:
            code = self._amendment_code(order, price, quantity)
        if code is OK:
            self.sequence += 1
            if self._reduces(order, price, quantity):
                self._reduce_to(order, quantity)
            else:
                self._pull(order)
                self._put_back(order, price, quantity)
            self._follow_up()
        return code

    def mass_quote(self, owner: str, quotes: Sequence[Quote]) -> Code:
        """Set many orders of ``owner`` at once, or none: what is refused for one is refused for all.

        Orders that exist are amended, and keep their place by the rule of :meth:`amend`. Before anything
        enters, all that is to move or to go has left: the quotes of one owner never meet their predecessors.
        As :meth:`submit` for each.

        Returns:
            ``OK``, or the first reason against it.
        """
        self.events = []
        code = self._quotes_code(owner, quotes)
        if code is not OK:
            return code
        self.sequence += 1
        entering: list[tuple[Order, int, int]] = []
        for id, side, price, quantity, time_ms, name in quotes:
            order = self.orders.get(id)
            if order is None:
                if quantity:
                    new = Order(id, owner, side, price, quantity, GTC, time_ms, name)
                    entering.append((new, price, quantity))
                continue
            total = self._total(order, quantity)
            if not quantity:
                self._cancel_open(order, REQUESTED)
            elif self._reduces(order, price, total):
                self._reduce_to(order, total)
            else:
                self._pull(order)
                entering.append((order, price, total))
        for order, price, quantity in entering:
            if order.id in self.orders:
                self._put_back(order, price, quantity)
            else:
                self._accept(order)
        self._follow_up()
        return OK

    def _quotes_code(self, owner: str, quotes: Sequence[Quote]) -> Code:
        if len(quotes) > limits.MASS_QUOTE:
            return Code.TOO_MANY_QUOTES
        if len({quote.id for quote in quotes}) != len(quotes):
            return Code.DUPLICATE_QUOTE
        code = self._closed_code()
        new = 0
        for id, side, price, quantity, _, _ in quotes:
            order = self.orders.get(id)
            if code is OK and order is not None and order.owner != owner:
                code = Code.NOT_OWNER
            if code is OK and order is not None and order.side is not side:
                code = Code.DUPLICATE_ID
            if quantity == 0 or code is not OK:
                continue
            code = self._quantity_code(quantity)
            if code is OK and order is None:
                new += 1
                code = self._price_code(price)
            elif code is OK and order is not None:
                total = self._total(order, quantity)
                # It may be more than a new order's, but no more than can be kept.
                code = (
                    self._amendment_code(order, price, total) if total <= limits.QUANTITY_LOTS else TOO_MUCH
                )
        if code is OK and len(self.orders) + new > self.rules.max_orders:
            code = Code.BOOK_FULL
        bids = [quote.price for quote in quotes if quote.quantity and quote.side is Side.BUY]
        asks = [quote.price for quote in quotes if quote.quantity and quote.side is Side.SELL]
        if code is OK and bids and asks and max(bids) >= min(asks):
            code = Code.CROSSED_QUOTES
        return code

    @staticmethod
    def _total(order: Order, live: int) -> int:
        """The quantity that ``order`` has when ``live`` lots of it are open and reserved."""
        return max(live, order.reserved) + order.filled + order.cancelled

    @staticmethod
    def _reduces(order: Order, price: int, quantity: int) -> bool:
        return price == order.price and quantity <= order.quantity

    def _amendment_code(self, order: Order, price: int, quantity: int) -> Code:
        """Whether ``order`` may have ``price`` and ``quantity``, which is a valid number of lots."""
        if self.state is HALTED:
            return Code.HALTED
        if order.cancel_requested:
            return Code.BEING_CANCELLED
        if type(price) is not int:
            return Code.INVALID_PRICE
        gone = order.quantity - order.open
        if quantity < gone or (quantity == gone and not order.reserved):
            return Code.QUANTITY_GONE
        if self._reduces(order, price, quantity):
            return OK
        code = self._closed_code()
        if code is OK and price != order.price:
            if order.terms.market:
                code = Code.INVALID_PRICE
            elif order.reserved:
                code = Code.PRICE_RESERVED
            else:
                code = self._price_code(price)
        if code is OK:
            code = self._display_code(order, quantity)
        if code is OK and order.terms.post_only is not None:
            posted = self._posted_price(order, price)
            if posted is None:
                code = Code.POST_ONLY_CROSSES
            elif posted != order.price and order.reserved:
                code = Code.PRICE_RESERVED
        return code

    def _reduce_to(self, order: Order, quantity: int) -> None:
        less = order.quantity - quantity
        if less and less == order.open:
            if order.level is not None:
                self._leave(order)
            order.open = order.hidden = 0
        elif less:
            self._reduce_open(order, less)
        order.quantity = quantity

    def _pull(self, order: Order) -> None:
        if order.level is not None:
            self._leave(order)
        self._freed.pop(order.id, None)

    def _put_back(self, order: Order, price: int, quantity: int) -> None:
        """Enter a pulled order again; one that slides to where it was keeps its place."""
        if order.terms.post_only is not None and not order.untriggered:
            posted = self._posted_price(order, price)
            assert posted is not None, "the quotes of one batch don't cross"
            price = posted
            if self._reduces(order, price, quantity):
                if order.open > order.hidden:
                    self._come_back(order)
                self._reduce_to(order, quantity)
                return
        order.open += quantity - order.quantity
        order.quantity = quantity
        order.hidden = 0
        order.price = price
        if order.open and not order.untriggered:
            self._enter(order)

    # -- the market --------------------------------------------------------------------------------------

    def set_state(self, state: MarketState) -> None:
        """Open, restrict or halt the market.

        When it opens, what was given back meanwhile is matched, oldest first, and stop orders that the last
        price has reached come alive. O(k log n) for these.
        """
        self.events = []
        self.sequence += 1
        self.state = state
        self._measure_plain_orders()
        if state is not OPEN:
            return
        freed = sorted(self._freed.values(), key=lambda order: order.priority)
        self._freed.clear()
        for order in freed:
            if order.terms.rests:
                self._uncross(order)
            else:
                self._finish(order)
        self._follow_up(self.last_price)

    def set_band(self, low: int, high: int) -> Code:
        """Let new orders have prices from ``low`` to ``high``, in ticks, and market orders take no others.
        What rests stays. O(1).

        Returns:
            ``OK``, or ``INVALID_PRICE``.
        """
        self.events = []
        valid = type(low) is int and type(high) is int and 1 <= low <= high <= self.rules.max_price
        if not valid:
            return Code.INVALID_PRICE
        self.sequence += 1
        self.band = (low, high)
        self._measure_plain_orders()
        return OK

    def note_trade(self, price: int) -> Code:
        """A trade happened elsewhere at ``price``, in ticks: it is the last price now, and may bring stop
        orders alive. O(1) but for these.

        Returns:
            ``OK``, or ``INVALID_PRICE``.
        """
        self.events = []
        if type(price) is not int or not 1 <= price <= self.rules.max_price:
            return Code.INVALID_PRICE
        self.sequence += 1
        self.last_price = price
        self._follow_up(price)
        return OK

    # -- recovery ----------------------------------------------------------------------------------------

    def add(self, order: Order) -> None:
        """Take an order of an earlier life as it is, with what is reserved, filled and cancelled of it.

        It goes behind all others of its price, and is not matched: call :meth:`rematch` when all are there.
        A stop order waits, unless it has a ``priority``: then it came alive in that life. O(log n).

        Raises:
            ValueError: Its id is that of a live order.
        """
        if order.id in self.orders:
            raise ValueError(f"order {order.id} is in the book already")
        self.events = []
        self.sequence = order.sequence = self.sequence + 1
        if not order.live:
            if self._on_closed is not None:
                self._on_closed(order)
            return
        if order.untriggered:
            self.stops.add(order)
        else:
            order.price = order.price or self._limit_price(order)
            order.priority = order.sequence
            if order.terms.display is not None:
                order.hidden = max(0, order.open - order.terms.display)
            if order.reserved:
                self._count_reserved(order, order.reserved)
            if order.open:
                self._freed[order.id] = order
                if order.terms.rests:
                    self._come_back(order)
        self._enlist(order)
        self._mark_expiry(order)

    def link(self, stop: Order, partner: Order | None) -> None:
        """Make two orders of an earlier life, which were added, a pair again. O(log n).

        A partner that is gone (also None), or cancelled, is so because the stop price had come: then ``stop``
        comes alive as soon as nothing of its partner is reserved, but not before :meth:`go_on`.
        """
        if partner is not None and partner.live:
            self._partners[stop.id] = partner.id
            self._partners[partner.id] = stop.id
            if not partner.cancel_requested:
                return
        self.stops.discard(stop)
        self._reached[stop.id] = stop

    def go_on(self) -> None:
        """All orders of an earlier life are added, and all pairs linked: bring the stop orders alive that
        were about to be. What they trade may bring others alive, so no pair may be missing."""
        self.events = []
        self._follow_up()

    # -- invariants --------------------------------------------------------------------------------------

    def check(self) -> None:
        """Verify every invariant; O(orders). For tests and simulations.

        Raises:
            AssertionError: Naming what does not hold.
        """
        check(self)
