"""What clients ask of a market: orders, pairs, changes, quotes, and to take them back. No IO."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from . import limits
from .effects import Effect
from .engine import Code, Event, Match, Quote
from .entry import Amendment, NewOrder, NewPair, NewQuote
from .entry_checks import change_of, order_of, pair_of, quote_of, state_of
from .errors import (
    BusyError,
    DuplicateOrderError,
    InvalidFieldError,
    OrderClosedError,
    OrderRefusedError,
    UnderWayError,
)
from .event_forms import accepted_event
from .events import Accepted, Switched
from .market import Market
from .model import Order, Side, check_name
from .taker import Taker
from .terms import GTC, PostOnly

OK: Final = Code.OK


class Desk:
    """Takes clients' orders into the book, and sends them on their way through the network."""

    def __init__(self, market: Market, taker: Taker):
        self._market = market
        self._taker = taker

    def submit(self, new: NewOrder) -> tuple[Order, list[Effect]]:
        """Take a client's order: steps 1 and 2 of the protocol.

        Returns:
            The order and what to do. The same ``client_order_id`` again gives the order it named first.

        Raises:
            InvalidFieldError: A field breaks a rule.
            DuplicateOrderError: The owner used this ``client_order_id`` for a different order.
            BusyError: The book is full; or the order does not rest, and too many are on their way to be sent
                at once.
        """
        market, book = self._market, self._market.book
        effects = market.expire_orders()
        order = order_of(new, market.instrument, market.new_id(), market.clock.time_ms())
        known = None if order.client_order_id is None else self._known(order)
        if known is not None:
            return known, effects
        self._check_room(1)
        terms = order.terms
        at_once = terms is not GTC and not terms.rests and terms.stop_price is None
        if at_once and self._taker.is_full and market.roster.trading():
            raise BusyError(
                f"{limits.NEGOTIATIONS:,} orders are on their way here: other peers can't be asked just now"
            )
        accepted = self._as_accepted(order)
        if terms.post_only is not None:
            self._keep_apart(order)
        if terms.expires_ms is not None:
            effects += market.tell_time(order.time_ms)  # it must not be over
        check_code(book.submit(order))
        self._note_accepted(order, *accepted)
        effects += market.happened(book.events)
        return order, effects + self._taker.announce(order)

    def submit_pair(self, new: NewPair) -> tuple[tuple[Order, Order], list[Effect]]:
        """Take two orders of which one cancels the other: see :meth:`~orderbook.engine.Book.submit_pair`.

        Returns:
            The one that can rest and the stop order, and what to do. The same ``client_order_id`` of either
            again gives the pair that it named first.

        Raises:
            As :meth:`submit`.
        """
        market, book = self._market, self._market.book
        effects = market.expire_orders()
        ids = market.new_id(), market.new_id()
        resting, stop = pair_of(new, market.instrument, ids, market.clock.time_ms())
        known = self._known_pair(resting, stop)
        if known is not None:
            return known, effects
        self._check_room(2)
        accepted = [self._as_accepted(order) for order in (stop, resting)]
        self._keep_apart(resting)
        effects += market.tell_time(resting.time_ms)
        check_code(book.submit_pair(resting, stop))
        for order, before in zip((stop, resting), accepted, strict=True):
            self._note_accepted(order, *before)
        effects += market.happened(book.events)
        return (resting, stop), effects + self._taker.announce(resting)

    def _known(self, order: Order) -> Order | None:
        """The order that its owner has given the same name before. Raises DuplicateOrderError when it was a
        different one."""
        if order.client_order_id is None:
            return None
        known = self._market.ledger.order_of_client(order.owner, order.client_order_id)
        if known is None:
            return None
        paired = (known.partner is None) is (order.partner is None)
        if not paired or not self._market.ledger.same(known, order):
            raise different(known)
        return known

    def _known_pair(self, resting: Order, stop: Order) -> tuple[Order, Order] | None:
        """The pair of which the owner has given one or both orders the same name before. Raises
        DuplicateOrderError when it was a different one."""
        named = self._known(resting), self._known(stop)
        first = named[0] or named[1]
        if first is None:
            return None
        if not self._market.ledger.knows(str(first.partner)):
            raise different(first)  # it has closed long ago, and is forgotten
        other = self._market.ledger.order(str(first.partner))
        pair = (first, other) if named[0] else (other, first)
        for known, order, name in zip(pair, (resting, stop), named, strict=True):
            alike = known.client_order_id == order.client_order_id and self._market.ledger.same(known, order)
            if not alike or name not in (None, known):
                raise different(first)
        return pair

    def _check_room(self, orders: int) -> None:
        market = self._market
        if len(market.book.orders) + orders > limits.OPEN_ORDERS:
            raise BusyError(f"the book of {market.instrument.market} is full here: try another peer")

    def _as_accepted(self, order: Order) -> tuple[Accepted | None, int, int]:
        """The event that ``order`` is accepted as it is now, where that is kept, its price and quantity."""
        event = accepted_event(order) if self._market.journaled else None
        return event, order.price, order.quantity

    def _note_accepted(self, order: Order, accepted: Accepted | None, price: int, quantity: int) -> None:
        """The book has taken ``order``, perhaps at another price."""
        if accepted is not None:
            self._market.note(accepted)
        self._market.ledger.add_order(order)
        self._market.note_change(order, price, quantity)

    def amend(self, order_id: str, change: Amendment) -> tuple[Order, list[Effect]]:
        """Change an order; what it crosses then it trades with, here and at other peers, as a new one would.

        With the same price and no larger quantity it keeps its place in the queue, else it goes to the back.
        What is reserved of it for others stays as it is: then its price can't change, nor its quantity be
        less than what is reserved and filled.

        Returns:
            As :meth:`submit`.

        Raises:
            InvalidFieldError: A field breaks a rule.
            UnknownOrderError: No such order here.
            OrderClosedError: It is filled or cancelled already.
            UnderWayError: It is on its way through the network: wait until that is over.
            OrderRefusedError: A rule of the book forbids it, and the order is what it was.
        """
        market, book = self._market, self._market.book
        price, quantity = change_of(change, market.instrument)
        effects = market.expire_orders()
        order = self._live(order_id)
        if self._is_under_way(order):
            raise UnderWayError(f"order {order_id} is on its way through the network: ask again in a moment")
        before = order.price, order.quantity
        if price is not None:
            price = self._apart(order, price)
        check_code(book.amend(order.id, price=price, quantity=quantity))
        market.note_change(order, *before)
        effects += market.happened(book.events)
        stays = order.price == before[0] and order.quantity <= before[1]
        return order, effects if stays else effects + self._taker.announce(order)

    def mass_quote(
        self, owner: object, quotes: Sequence[NewQuote]
    ) -> tuple[list[Order | None], list[Effect]]:
        """Set many orders of ``owner`` at once, or none: see :meth:`~orderbook.engine.Book.mass_quote`.

        Each is named by its ``client_order_id``. Where an order of that name lives it is changed; where one
        has closed, or none was, a new one takes the name.

        Returns:
            The order of each quote (None where there was and is none), and what to do.

        Raises:
            InvalidFieldError: A field breaks a rule.
            UnderWayError: One of them is on its way through the network: wait until that is over.
            OrderRefusedError: A rule of the book forbids one of them, and all are what they were.
        """
        market, book = self._market, self._market.book
        name, effects = check_name(owner, "owner"), market.expire_orders()
        live = self.quoted(name, quotes)
        wanted = [self._quote(place, *quote) for place, quote in enumerate(zip(quotes, live, strict=True))]
        if len({quote.client_order_id for quote in wanted}) < len(wanted):
            check_code(Code.DUPLICATE_QUOTE)
        before = {order.id: (order.price, order.quantity) for order in live if order is not None}
        check_code(book.mass_quote(name, wanted))
        named = {order.id: order for event in book.events for order in orders_of(event)}
        orders = [named.get(quote.id) or book.orders.get(quote.id) for quote in wanted]
        moved = [order for order in orders if order is not None and self._note_quote(order, before)]
        effects += market.happened(book.events)
        for order in moved:
            effects += self._taker.announce(order)
        return orders, effects

    def quoted(self, owner: object, quotes: Sequence[NewQuote]) -> list[Order | None]:
        """The live order of each quote, or None; one that its owner has cancelled has lost its name."""
        ledger = self._market.ledger
        orders: list[Order | None] = []
        for quote in quotes:
            known = None
            if isinstance(owner, str) and isinstance(quote.client_order_id, str):
                known = ledger.order_of_client(owner, quote.client_order_id)
            orders.append(known if known is not None and known.live and not known.cancel_requested else None)
        return orders

    def _quote(self, place: int, new: NewQuote, order: Order | None) -> Quote:
        """What is wanted of ``order``, or of a new one. Raises InvalidFieldError, UnderWayError."""
        market = self._market
        id = market.new_id() if order is None else order.id
        if order is not None and self._is_under_way(order):
            raise UnderWayError(f"order {id} is on its way through the network: ask again in a moment")
        try:
            return quote_of(new, market.instrument, id, market.clock.time_ms())
        except InvalidFieldError as error:
            raise InvalidFieldError(f"quotes[{place}].{error.field}", error.rule) from None

    def _note_quote(self, order: Order, before: Mapping[str, tuple[int, int]]) -> bool:
        """A quote has placed or changed ``order``, or taken it back. Whether it is new, or has moved."""
        if order.id not in before:
            self._note_accepted(order, *self._as_accepted(order))
            return True
        price, quantity = before[order.id]
        self._market.note_change(order, price, quantity)
        return order.price != price or order.quantity > quantity

    def cancel(self, order_id: str) -> tuple[Order, list[Effect]]:
        """Take an order back: what is open is cancelled now; what is reserved fills, or is cancelled when its
        reservation ends.

        Raises:
            UnknownOrderError: No such order here.
            OrderClosedError: It is filled or cancelled already.
            OrderRefusedError: The market is halted.
        """
        order = self._live(order_id)
        if self._market.book.cancel(order.id) is Code.HALTED:
            check_code(Code.HALTED)
        effects = self._market.happened(self._market.book.events)
        return order, effects + self._taker.cancelled(order)

    def set_state(self, state: object, by: object) -> list[Effect]:
        """An operator opens, restricts or halts the market at this peer; the others trade on.

        What is not open offers nothing to other peers, asks them for nothing, and matches nothing. What was
        reserved or confirmed before is kept.

        Args:
            state: The value of a :class:`~orderbook.engine.rules.MarketState`.
            by: Who has decided; it is journaled.

        Raises:
            InvalidFieldError: A field breaks a rule.
        """
        market = self._market
        wanted, name = state_of(state), check_name(by, "by")
        effects = market.expire_orders()
        if wanted is not market.book.state:
            market.note(Switched(wanted.value, name, market.clock.time_ms()))
            market.book.set_state(wanted)
            effects += market.happened(market.book.events)
        return effects

    def _live(self, order_id: str) -> Order:
        order = self._market.ledger.order(order_id)
        if not order.live:
            raise OrderClosedError(f"order {order_id} is {order.status.value} already")
        return order

    def _is_under_way(self, order: Order) -> bool:
        """Whether it is held for its way, or waits for an answer about it."""
        return order.id in self._taker.negotiations or order.id in self._taker.waiting

    def _keep_apart(self, order: Order) -> None:
        order.price = self._apart(order, order.price)

    def _apart(self, order: Order, price: int) -> int:
        """Where ``order`` may rest: a post-only one keeps clear of what other peers have last published, as
        the book does of its own orders. Raises OrderRefusedError."""
        other = self._market.roster.best(order.side.opposite) if order.terms.post_only is not None else None
        if other is None or not order.side.crosses(price, other):
            return price
        apart = other - 1 if order.side is Side.BUY else other + 1
        if order.terms.post_only is PostOnly.REJECT or not 1 <= apart <= self._market.instrument.max_price:
            check_code(Code.POST_ONLY_CROSSES)
        return apart


def orders_of(event: Event) -> tuple[Order, ...]:
    """The orders that something happened to."""
    return (event.maker, event.taker) if isinstance(event, Match) else (event.order,)


def different(known: Order) -> DuplicateOrderError:
    return DuplicateOrderError(
        f"client_order_id {known.client_order_id} of {known.owner} names a different order: use a new one"
    )


def check_code(code: Code) -> None:
    """Raises OrderRefusedError for every code but ``OK``."""
    if code is not OK:
        raise OrderRefusedError(code.value, code.rule)
