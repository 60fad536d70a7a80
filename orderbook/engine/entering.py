"""New orders of every type: what is refused, trades at once, rests or waits; and what trades cause."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

from .. import limits
from ..model import Order
from ..terms import GTC, PostOnly, Routing, Terms, TimeInForce
from .codes import Code, Reason, conflict_of
from .events import Cancellation, Contention, Event, Execution, Match, Outbound, Requeue, Trigger
from .ladder import Ladder
from .resting import BUY, Resting
from .rules import RULES, MarketState, Rules
from .stops import Stops

OPEN: Final = MarketState.OPEN
ALONE: Final = Routing.ALONE
OK: Final = Code.OK


class Entering(Resting):
    """A book that takes new orders.

    Attributes:
        state: What the market takes.
        band: The lowest and the highest price of a new order, in ticks.
        stops: Stop orders that wait.
        time_ms: The time that the book was last told, in milliseconds since the epoch.
        routing: Whether orders go on to other books, which :class:`~orderbook.engine.events.Outbound` tells.
    """

    def __init__(
        self,
        rules: Rules = RULES,
        on_closed: Callable[[Order], object] | None = None,
        routing: Routing = ALONE,
    ):
        super().__init__(rules, on_closed)
        self.routing = routing
        self.state = OPEN
        self.band = (1, rules.max_price)
        self._measure_plain_orders()
        self._quantity_min, self._quantity_max = rules.min_quantity, rules.max_quantity
        self._orders_max = rules.max_orders
        self.stops = Stops()
        self.time_ms = 0
        self._partners: dict[str, str] = {}
        self._reached: dict[str, Order] = {}

    def _measure_plain_orders(self) -> None:
        """Set what :meth:`submit` measures a plain order by: no price fits what it can't simply match."""
        simple = self.state is OPEN and self.routing is not Routing.BEST_PRICE
        self._price_min, self._price_max = self.band if simple else (1, 0)

    def submit(self, order: Order) -> Code:
        """Take a new order: match it, and do with the rest as its terms say.

        O(k) for what it trades with, O(log n) for each price level that this ends or begins, and as much for
        every stop order it triggers; O(k) before anything changes for a fill-or-kill order.

        Args:
            order: A fresh one. Its ``price`` is 0 if it is a market order.

        Returns:
            ``OK``, and ``events`` tells what happened; or why it is refused, and neither book nor order has
            changed.
        """
        self.events = []
        id = order.id
        price = order.price
        quantity = order.open
        orders = self.orders
        if (
            order.terms is not GTC
            or type(price) is not int
            or type(quantity) is not int
            or not self._price_min <= price <= self._price_max
            or not self._quantity_min <= quantity <= self._quantity_max
            or id in orders
            or len(orders) >= self._orders_max
        ):
            return self._submit_with_care(order)
        self.sequence = order.sequence = order.priority = self.sequence + 1
        if order.side is BUY:
            own, other, key = self.bids, self.asks, price
        else:
            own, other, key = self.asks, self.bids, -price
        if other.best_key >= -key:
            self._match(order, other, -key)
            if not order.open:
                if self._on_closed is not None:
                    self._on_closed(order)
                self._follow_up()
                return OK
        elif other.best_reserved >= -key:
            self.events.append(Contention(order))
        # The same as _rest, without its calls.
        level = own.levels.get(key)
        if level is None:
            own.open_level(key, order)
        else:
            level.append(order)
        orders[id] = order
        if self._by_owner is not None:
            self._by_owner.setdefault(order.owner, {})[id] = order
        if self.events:
            self._follow_up()
        return OK

    def submit_pair(self, resting: Order, stop: Order) -> Code:
        """Take two orders of which one cancels the other (OCO): as soon as one trades, comes alive or is
        cancelled, what is left of the other one is cancelled. O(log n) beyond both :meth:`submit`.

        Never do both trade: while some of ``resting`` is reserved, ``stop`` does not come alive. When its
        price comes then, what is open of ``resting`` is cancelled, and what is reserved decides: if it
        trades, ``stop`` is cancelled, and if it is given back ``stop`` comes alive.

        Args:
            resting: An order that can rest.
            stop: A stop order of the same owner and side, whose stop price is not reached yet.

        Returns:
            ``OK``, or why both are refused.
        """
        self.events = []
        terms = resting.terms
        if (
            not terms.rests
            or terms.stop_price is not None
            or stop.terms.stop_price is None
            or Stops.reached(stop, self.last_price)
            or resting.id == stop.id
            or (resting.owner, resting.side) != (stop.owner, stop.side)
        ):
            return Code.NOT_A_PAIR
        code = self._refusal(resting)
        if code is OK:
            code = self._refusal(stop)
        if code is OK and len(self.orders) + 2 > self.rules.max_orders:
            code = Code.BOOK_FULL
        if code is OK:
            self._partners[resting.id] = stop.id
            self._partners[stop.id] = resting.id
            self._accept(stop)
            self._accept(resting)
            self._follow_up()
        return code

    # -- what is refused -----------------------------------------------------------------------------------

    def _submit_with_care(self, order: Order) -> Code:
        """:meth:`submit` for what is no plain order, or wrong."""
        code = self._refusal(order)
        if code is OK:
            self._accept(order)
            self._follow_up()
        return code

    def _refusal(self, order: Order) -> Code:
        """Why ``order`` can't be taken now, or ``OK``."""
        terms = order.terms
        code = self._closed_code()
        if code is OK and order.id in self.orders:
            code = Code.DUPLICATE_ID
        if code is OK and len(self.orders) >= self.rules.max_orders:
            code = Code.BOOK_FULL
        if code is OK:
            code = self._price_code(order.price) if not terms.market else self._market_price_code(order.price)
        if code is OK:
            code = self._quantity_code(order.quantity)
        if code is OK and order.open != order.quantity:
            code = Code.INVALID_QUANTITY
        if code is OK and terms is not GTC:
            code = self._terms_code(order)
        return code

    def _closed_code(self) -> Code:
        if self.state is OPEN:
            return OK
        return Code.HALTED if self.state is MarketState.HALTED else Code.CANCEL_ONLY

    def _price_code(self, price: int) -> Code:
        if type(price) is not int or not 1 <= price <= self.rules.max_price:
            return Code.INVALID_PRICE
        return OK if self.band[0] <= price <= self.band[1] else Code.OUTSIDE_BAND

    def _market_price_code(self, price: int) -> Code:
        return OK if type(price) is int and price == 0 else Code.INVALID_PRICE

    def _quantity_code(self, quantity: int) -> Code:
        if type(quantity) is not int or quantity <= 0:
            return Code.INVALID_QUANTITY
        if quantity < self.rules.min_quantity:
            return Code.BELOW_MINIMUM
        return OK if quantity <= self.rules.max_quantity else Code.ABOVE_MAXIMUM

    def _terms_code(self, order: Order) -> Code:
        terms = order.terms
        code = conflict_of(terms)
        if code is OK and terms.stop_price is not None:
            stop_price = terms.stop_price
            if type(stop_price) is not int or not 1 <= stop_price <= self.rules.max_price:
                code = Code.INVALID_STOP_PRICE
        if code is OK:
            code = self._display_code(order, order.quantity)
        if code is OK and terms.expires_ms is not None and terms.expires_ms <= self.time_ms:
            code = Code.EXPIRED
        if code is OK and terms.post_only is not None and self._posted_price(order, order.price) is None:
            code = Code.POST_ONLY_CROSSES
        kills = terms.time_in_force is TimeInForce.FOK and self.routing is ALONE
        if code is OK and kills and not self._waits(order):
            other = self.opposite(order.side)
            if not self._fillable(order, other, self._limit_price(order) * other.sign):
                code = Code.UNFILLABLE
        return code

    def _display_code(self, order: Order, quantity: int) -> Code:
        display = order.terms.display
        if display is None:
            return OK
        valid = type(display) is int and display > 0 and quantity <= display * limits.ICEBERG_TIPS
        return OK if valid else Code.INVALID_DISPLAY

    def _posted_price(self, order: Order, price: int) -> int | None:
        """The price at which a post-only order rests without taking anything, or None if it can't.

        What is reserved counts as if it were open: the order must not take it when it is released either.
        """
        other = self.opposite(order.side)
        best_key = max(other.best_key, other.best_reserved)
        if best_key < price * other.sign:
            return price
        if order.terms.post_only is PostOnly.REJECT:
            return None
        slid = (best_key + 1) * other.sign
        return slid if self.band[0] <= slid <= self.band[1] else None

    # -- what is taken -------------------------------------------------------------------------------------

    def _accept(self, order: Order) -> None:
        self.sequence = order.sequence = self.sequence + 1
        if self._waits(order):
            self.stops.add(order)
            self._enlist(order)
            self._mark_expiry(order)
        else:
            if order.terms.post_only is not None:
                posted = self._posted_price(order, order.price)
                assert posted is not None
                order.price = posted
            if order.terms.stop_price is not None:
                self.events.append(Trigger(order))
            self._enter(order, fillable=True)

    def _waits(self, order: Order) -> bool:
        return order.terms.stop_price is not None and not Stops.reached(order, self.last_price)

    def _limit_price(self, order: Order) -> int:
        """The worst price that ``order`` may take."""
        if not order.terms.market:
            return order.price
        return self.band[1] if order.side is BUY else self.band[0]

    def _enter(self, order: Order, *, fillable: bool = False) -> None:
        """Match an accepted order that is in no level, then rest, send out or cancel what is left of it.

        ``fillable``: a fill-or-kill order can be filled here and now, this has been seen already.
        """
        terms = order.terms
        known = order.id in self.orders
        order.price = self._limit_price(order)
        own, other = self.ladder(order.side), self.opposite(order.side)
        limit = order.price * other.sign
        if terms.time_in_force is not TimeInForce.FOK:
            fillable = True
        elif not fillable or self.routing is not ALONE:
            fillable = self._fillable(order, other, limit)
        if self._goes_out_first(terms, fillable):
            self._send_out(order)
        else:
            self._take(order, other, limit, fillable=fillable)
        if order.open:
            if terms.display is not None:
                order.hidden = max(0, order.open - terms.display)
            self.sequence = order.priority = self.sequence + 1
            self._rest(order, own, -limit)
            self._mark_expiry(order)
        elif known:
            self._close_if_done(order)
        elif not order.reserved and self._on_closed is not None:
            self._on_closed(order)

    def _goes_out_first(self, terms: Terms, fillable: bool) -> bool:
        """Whether an order is to be set aside before it meets anything here."""
        if self.routing is Routing.BEST_PRICE:
            return terms.post_only is None
        return self.routing is not ALONE and not fillable

    def _take(self, order: Order, other: Ladder, limit: int, *, fillable: bool) -> None:
        """Let ``order`` trade with what it crosses. What is left and does not rest goes out, or ends here."""
        if not fillable:
            self._cancel_open(order, Reason.UNFILLABLE)
        elif other.best_key >= limit:
            self._match(order, other, limit)
        elif other.best_reserved >= limit:
            self.events.append(Contention(order))
        if order.open and not order.terms.rests:
            if self.routing is ALONE:
                self._cancel_open(order, Reason.REMAINDER)
            else:
                self._send_out(order)

    def _send_out(self, order: Order) -> None:
        """Set all that is open of ``order`` aside for its way through the network."""
        quantity = order.open
        self.sequence = order.priority = self.sequence + 1
        self._enlist(order)
        self._mark_expiry(order)
        self._set_aside(order, quantity)
        self.events.append(Outbound(order, quantity))

    def _finish(self, order: Order) -> None:
        """An order that does not rest has come back from its way: it takes what is here by now, and ends."""
        other = self.opposite(order.side)
        limit = order.price * other.sign
        reason = Reason.REMAINDER
        fillable = True
        if order.terms.time_in_force is TimeInForce.FOK:
            reason = Reason.BROKEN if order.filled else Reason.UNFILLABLE
            fillable = order.filled > 0 or self._fillable(order, other, limit)
        if fillable and other.best_key >= limit:
            self._match(order, other, limit)
        if order.open:
            self._cancel_open(order, reason)
        else:
            self._close_if_done(order)

    def _mark_expiry(self, order: Order) -> None:
        if order.terms.expires_ms is not None:
            self._expiring[order.terms.expires_ms, order.sequence] = order

    def _forget(self, order: Order) -> None:
        super()._forget(order)
        if order.terms.stop_price is not None:
            self.stops.discard(order)
            self._reached.pop(order.id, None)

    # -- what trades cause ---------------------------------------------------------------------------------

    def _follow_up(self, price: int | None = None) -> None:
        """Cancel the partners of what happened in this command, and bring stop orders alive, whose trades may
        bring others alive. It ends, since every round takes a partner or a stop order out of the book.

        ``price``: of a trade that is no event of this command.
        """
        if not self.stops.count and not self._partners and not self._reached:
            return
        due = deque(self._take_decided())
        if price is not None and self.state is OPEN:
            due.extend(self.stops.take_due(price, price))
        done = 0
        while due or done < len(self.events):
            news = self.events[done:]
            done = len(self.events)
            if self._partners:
                self._cancel_partners(news)
            if self.stops.count and self.state is OPEN:  # else they wait for the market
                prices = [event.price for event in news if isinstance(event, (Match, Execution))]
                if prices:
                    due.extend(self.stops.take_due(min(prices), max(prices)))
            due.extend(self._take_decided())
            if due:
                self._come_alive(due.popleft())

    def _come_alive(self, stop: Order) -> None:
        """The price of ``stop`` has come; while some of its partner is reserved it waits for what becomes of
        that."""
        if stop.id not in self.orders:
            return  # its partner has traded meanwhile
        partner = self.orders.get(self._partners.get(stop.id, ""))
        if partner is None or not partner.reserved:
            self.events.append(Trigger(stop))
            self._enter(stop)
            return
        self._reached[stop.id] = stop
        self._cancel_open(partner, Reason.PARTNER)

    def _take_decided(self) -> list[Order]:
        """Stop orders that have waited for their partners, which are gone and have not traded. O(those that
        wait)."""
        if not self._reached or self.state is not OPEN:
            return []
        decided = [stop for stop in self._reached.values() if stop.id not in self._partners]
        for stop in decided:
            del self._reached[stop.id]
        return decided

    def _cancel_partners(self, news: list[Event]) -> None:
        for event in news:
            orders = (event.maker, event.taker) if isinstance(event, Match) else (event.order,)
            for order in orders:
                partner_id = self._partners.get(order.id)
                if partner_id is None or isinstance(event, Requeue | Contention | Outbound):
                    continue
                decides = partner_id in self._reached and isinstance(event, Cancellation)
                if decides and order.reserved:
                    continue
                del self._partners[order.id], self._partners[partner_id]
                partner = self.orders.get(partner_id)
                if not decides and partner is not None and not partner.cancel_requested:
                    self._cancel_open(partner, Reason.PARTNER)
