"""The resting orders of one market, and how an incoming order meets them: price-time priority.

This is the inner part of the engine, in the order in which it is built up:

    Resting    (here)        orders, levels, matching, self-trade prevention, iceberg tips
    Entering   (entering)    new orders of every type; stops and pairs, and what trades cause
    Reserving  (reserving)   quantity set aside for counterparties
    Book       (book)        what happens to resting orders: cancel, amend, quote, expire; the market's states

Where quantity can be, for each order: ``quantity == open + reserved + filled + cancelled``.

    open ──match──────────────▶ filled
      │ ▲                         ▲
      │ └──release── reserved ──commit
      └────reserve──▶  │
      └────cancel────▶ └─ release of an order whose owner has cancelled it ──▶ cancelled

In the complexities below ``n`` is the number of price levels of a side, ``k`` the number of resting orders
that a call touches.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from typing import Final

from sortedcontainers import SortedDict

from ..model import Order, Side
from ..terms import GTC, SelfTrade
from .codes import Reason
from .events import Cancellation, Contention, Event, Match, Requeue
from .ladder import Ladder
from .rules import RULES, Rules

BUY: Final = Side.BUY

_new: Final = tuple.__new__  # builds an event at half the cost of calling its class
_NOBODY: Final = "\0"  # the owner that no order has


class Resting:
    """Orders by price and time.

    Attributes:
        orders: Live orders by id: resting, reserved, or waiting for their stop price.
        bids: The buy side.
        asks: The sell side.
        events: What the last command did; a new list for each command.
        sequence: Counts what happens to the book: every command that changes something raises it.
        last_price: Of the last trade, in ticks; None before the first.
        rules: The bounds.
    """

    def __init__(self, rules: Rules = RULES, on_closed: Callable[[Order], object] | None = None):
        """``on_closed`` is called with every order at the moment at which nothing of it is live any more; it
        must not touch the book."""
        self.rules = rules
        self.orders: dict[str, Order] = {}
        self.bids = Ladder(Side.BUY)
        self.asks = Ladder(Side.SELL)
        self.events: list[Event] = []
        self.sequence = 0
        self.last_price: int | None = None
        self._on_closed = on_closed
        self._by_owner: dict[str, dict[str, Order]] | None = None
        self._expiring: SortedDict = SortedDict()
        self._freed: dict[str, Order] = {}

    # -- views -------------------------------------------------------------------------------------------

    def ladder(self, side: Side) -> Ladder:
        """The levels of ``side``."""
        return self.bids if side is BUY else self.asks

    def opposite(self, side: Side) -> Ladder:
        """The levels that an order of ``side`` trades with."""
        return self.asks if side is BUY else self.bids

    def best(self, side: Side) -> int | None:
        """The best price of ``side`` with open quantity, in ticks, or None. O(1)."""
        level = self.ladder(side).best
        return None if level is None else level.price

    def depth(self, side: Side, levels: int) -> list[tuple[int, int]]:
        """(price in ticks, open lots shown) of the best ``levels`` prices, best first. O(levels)."""
        best = islice(self.ladder(side).best_first(), levels)
        return [(level.price, level.open - level.hidden) for level in best]

    def crossed_by(self, side: Side, price: int, most: int) -> list[Order]:
        """Up to ``most`` open orders that an order of ``side`` at ``price`` would trade with, best first.
        O(most)."""
        other = self.opposite(side)
        crossed = (order for level in other.down_to(price * other.sign) for order in level)
        return list(islice(crossed, most))

    def orders_of(self, owner: str) -> list[Order]:
        """The live orders of ``owner``, in order of arrival but for those changed since.

        O(k); O(orders) the first time that anybody's are asked for, which gives the book an index by owner.
        """
        if self._by_owner is None:
            self._by_owner = {}
            for order in self.orders.values():
                self._by_owner.setdefault(order.owner, {})[order.id] = order
        return list(self._by_owner.get(owner, {}).values())

    # -- matching ----------------------------------------------------------------------------------------

    def _match(self, taker: Order, other: Ladder, limit: int) -> None:
        """Trade the open quantity of ``taker``, which does not rest, down to the key ``limit`` of ``other``.

        This is the one place that is written for speed: a level without icebergs is consumed in a single
        pass over its orders, and changed once.
        """
        quantity = taker.open
        owner = taker.owner or _NOBODY
        orders, by_owner, on_closed = self.orders, self._by_owner, self._on_closed
        emit = self.events.append
        while quantity and other.best_key >= limit:
            level = other.best
            assert level is not None
            maker = level.head
            assert maker is not None
            if level.hidden or level.index is not None or maker.owner == owner:
                self._settle_taker(taker, quantity)
                self._meet(taker, maker, other)
                quantity = taker.open
                continue
            price = level.price
            wanted = quantity
            gone = 0
            while maker is not None and quantity and maker.owner != owner:
                part = maker.open
                if part > quantity:
                    maker.open = part - quantity
                    maker.filled += quantity
                    emit(_new(Match, (maker, taker, price, quantity)))
                    quantity = 0
                    break
                quantity -= part
                maker.open = 0
                maker.filled += part
                emit(_new(Match, (maker, taker, price, part)))
                gone += 1
                follower = maker.next
                maker.level = maker.prev = maker.next = None
                if not maker.reserved:
                    del orders[maker.id]
                    if by_owner is not None:
                        self._disown(maker)
                    if maker.terms is not GTC or self._freed:
                        self._forget(maker)
                    if on_closed is not None:
                        on_closed(maker)
                maker = follower
            self.last_price = price
            level.head = maker
            if maker is None:
                other.drop_level(level)
            else:
                maker.prev = None
                level.count -= gone
                level.open -= wanted - quantity
        self._settle_taker(taker, quantity)
        if quantity and other.best_reserved >= limit:
            emit(Contention(taker))

    def _settle_taker(self, taker: Order, open: int) -> None:
        taker.filled += taker.open - open
        taker.open = open

    def _meet(self, taker: Order, maker: Order, other: Ladder) -> None:
        """One step of :meth:`_match` where it is not plain; ``maker`` is first in the queue."""
        if maker.owner == taker.owner and maker.owner:
            self._prevent_self_trade(taker, maker)
            return
        quantity = min(taker.open, maker.open - maker.hidden)
        taker.open -= quantity
        taker.filled += quantity
        self.last_price = maker.price
        self.events.append(Match(maker, taker, maker.price, quantity))
        self._trade_resting(maker, quantity)

    def _uncross(self, order: Order) -> None:
        """Trade a resting order with what it crosses on the other side, as far as both show. O(k log n)."""
        other = self.opposite(order.side)
        limit = order.price * other.sign
        while order.level is not None and other.best_key >= limit:
            assert other.best is not None
            match = other.best.head
            assert match is not None
            maker, taker = (order, match) if order.priority < match.priority else (match, order)
            if order.owner == match.owner and order.owner:
                self._prevent_self_trade(taker, maker)
                continue
            quantity = min(order.open - order.hidden, match.open - match.hidden)
            self.last_price = maker.price
            self.events.append(Match(maker, taker, maker.price, quantity))
            self._trade_resting(order, quantity)
            self._trade_resting(match, quantity)

    def _trade_resting(self, order: Order, quantity: int) -> None:
        order.filled += quantity
        self._take_shown(order, quantity)

    def _prevent_self_trade(self, newer: Order, older: Order) -> None:
        """Two orders of one owner cross: cancel as the newer one's terms say. At least one is gone then."""
        mode = newer.terms.self_trade
        if mode is SelfTrade.DECREMENT:
            quantity = min(newer.open, older.open)
            for order in (newer, older):
                if order.open == quantity:
                    self._cancel_open(order, Reason.SELF_TRADE)
                else:
                    self._reduce_open(order, quantity)
                    order.cancelled += quantity
                    self.events.append(Cancellation(order, quantity, Reason.SELF_TRADE))
            return
        if mode is not SelfTrade.CANCEL_OLDEST:
            self._cancel_open(newer, Reason.SELF_TRADE)
        if mode is not SelfTrade.CANCEL_NEWEST:
            self._cancel_open(older, Reason.SELF_TRADE)

    def _fillable(self, taker: Order, other: Ladder, limit: int) -> bool:
        """Whether all of ``taker`` would trade at once. Changes nothing. O(k)."""
        missing = taker.open
        owner = taker.owner or _NOBODY
        passes_own = taker.terms.self_trade is SelfTrade.CANCEL_OLDEST
        for level in other.down_to(limit):
            if owner is _NOBODY and not level.hidden:
                missing -= level.open
            else:
                for maker in level:
                    if maker.owner != owner:
                        # The hidden part of an iceberg is out of reach while some of its tip is reserved.
                        missing -= maker.open - maker.hidden if maker.reserved else maker.open
                    elif not passes_own:
                        return missing <= 0
                    if missing <= 0:
                        break
            if missing <= 0:
                return True
        return False

    # -- coming and going --------------------------------------------------------------------------------

    def _rest(self, order: Order, own: Ladder, key: int) -> None:
        """Put ``order``, which has its priority, behind all others of its price. O(log n) for a new price,
        else O(1)."""
        level = own.levels.get(key)
        if level is None:
            own.open_level(key, order)
        else:
            level.append(order)
        self._enlist(order)

    def _enlist(self, order: Order) -> None:
        self.orders[order.id] = order
        if self._by_owner is not None:
            self._by_owner.setdefault(order.owner, {})[order.id] = order

    def _disown(self, order: Order) -> None:
        """Strike a closed order off the index by owner, which exists."""
        assert self._by_owner is not None
        owned = self._by_owner[order.owner]
        del owned[order.id]
        if not owned:
            del self._by_owner[order.owner]

    def _come_back(self, order: Order) -> None:
        """Let a live order that was not in its level, and shows something again, take its place there."""
        own = self.ladder(order.side)
        key = order.price * own.sign
        level = own.levels.get(key)
        if level is None:
            own.open_level(key, order)
        else:
            level.insert(order)

    def _leave(self, order: Order) -> None:
        """Take ``order`` out of its level, before its quantities change."""
        level = order.level
        assert level is not None
        level.remove(order)
        if level.head is None:
            self.ladder(order.side).drop_level(level)

    def _close_if_done(self, order: Order) -> None:
        """Forget ``order`` if nothing of it is live; it is in no level."""
        if order.open or order.reserved or self.orders.pop(order.id, None) is None:
            return
        if self._by_owner is not None:
            self._disown(order)
        self._forget(order)
        if self._on_closed is not None:
            self._on_closed(order)

    def _forget(self, order: Order) -> None:
        """Strike a closed order off the lists that only few orders are on."""
        self._freed.pop(order.id, None)
        if order.terms.expires_ms is not None:
            self._expiring.pop((order.terms.expires_ms, order.sequence), None)

    # -- quantities of resting orders --------------------------------------------------------------------

    def _set_aside(self, order: Order, quantity: int) -> None:
        """Reserve ``quantity`` lots, at most what ``order`` shows, or all of it."""
        self._count_reserved(order, quantity)
        level = order.level
        shown = order.open - order.hidden
        if level is not None and quantity < shown:
            level.open -= quantity
        elif level is not None:
            self._leave(order)
        order.reserved += quantity
        order.open -= quantity
        order.hidden = min(order.hidden, order.open)

    def _unreserve(self, order: Order, quantity: int) -> None:
        self._count_reserved(order, -quantity)
        order.reserved -= quantity

    def _count_reserved(self, order: Order, quantity: int) -> None:
        """Only what may rest contends with others: nobody can have anything of the other orders."""
        if order.terms is GTC or order.terms.rests:
            own = self.bids if order.side is BUY else self.asks
            own.reserve(order.price * own.sign, quantity)

    def _take_shown(self, order: Order, quantity: int) -> None:
        """Take ``quantity`` lots out of what ``order``, which is in its level, shows; they are counted
        elsewhere already. O(1), or O(log n) when nothing is shown any more."""
        level = order.level
        assert level is not None
        if quantity < order.open - order.hidden:
            order.open -= quantity
            level.open -= quantity
            return
        self._leave(order)
        order.open -= quantity
        self._show_next(order)
        self._close_if_done(order)

    def _show_next(self, order: Order) -> bool:
        """Show the next tip of an iceberg, at the back of the queue, once nothing of the last one is left.
        Returns whether it does.

        While some of the tip is reserved the order waits, and keeps its place: that may come back.
        """
        if not order.hidden or order.level is not None or order.reserved:
            return False
        assert order.terms.display is not None
        order.hidden = max(0, order.open - order.terms.display)
        self.sequence = order.priority = self.sequence + 1
        self._come_back(order)
        self.events.append(Requeue(order))
        return True

    def _reduce_open(self, order: Order, quantity: int) -> None:
        """Take ``quantity`` lots, but not all, out of what is open of ``order``: the hidden ones first.

        It keeps its place. It need not rest."""
        hidden = min(order.hidden, quantity)
        level = order.level
        if level is not None:
            level.open -= quantity
            level.hidden -= hidden
        order.open -= quantity
        order.hidden -= hidden

    def _cancel_open(self, order: Order, reason: Reason) -> None:
        """Cancel all that is open of ``order``, resting or not; what is reserved follows unless it fills.

        Also where nothing is open this is an event: it is known now what becomes of the rest.
        """
        quantity = order.open
        if order.level is not None:
            self._leave(order)
        order.open = order.hidden = 0
        order.cancelled += quantity
        order.cancel_requested = True
        self.events.append(Cancellation(order, quantity, reason))
        self._close_if_done(order)
