"""Rebuild a market from its journal's events. No IO.

A restart keeps orders, trades and unanswered confirmations. It ends every reservation: what was set aside for
others or for an order's own way through the network is open again, and a confirmation from before the restart
is refused, since its lock is gone.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec
from msgspec import Struct

from . import limits
from .engine import MarketState
from .errors import JournalError
from .event_forms import accepted_event, order_of, trade_of
from .events import (
    Accepted,
    Amended,
    Cancelled,
    Event,
    Executed,
    Intended,
    Refused,
    Requeued,
    Switched,
    Triggered,
)
from .model import Order
from .selection import OfferFill
from .trade import Trade
from .under_way import Confirmation


class KeptOrder(Struct, array_like=True, frozen=True):
    """An order in a snapshot: how it was accepted, with its price and quantity of now, and what came of it.

    Snapshots from before some of these were kept end earlier.
    """

    accepted: Accepted
    filled: int
    cancel_requested: bool
    triggered: bool = False
    cancelled: int = 0
    reason: str | None = None
    submitted: tuple[int, int] | None = None


class Recovered:
    """What the events of a market add up to, so far.

    Attributes:
        orders: By id, in order of arrival, or of when they went to the back of the queue; ``filled`` and
            ``reserved`` (in-doubt) count, the rest of their quantity is divided by :meth:`finish`. A stop
            order that has come alive has a ``priority``.
        submitted: Price and quantity that amended orders had at first, by order id.
        archived_trades: How many trades were executed before ``trades``.
        archived_cross_peer: How many of these with other peers.
        trades: The newest, in order of execution: all since the snapshot, or enough to begin with.
        confirmations: Those without an answer, by match id.
        last_price: Of the last trade, in ticks; None before the first.
        state: Of the market at this peer.
    """

    def __init__(self, peer: str, market: str):
        self._peer = peer
        self._market = market
        self.orders: dict[str, Order] = {}
        self.archived_trades = 0
        self.archived_cross_peer = 0
        self.trades: list[Trade] = []
        self.confirmations: dict[str, Confirmation] = {}
        self.submitted: dict[str, tuple[int, int]] = {}
        self.last_price: int | None = None
        self.state = MarketState.OPEN
        self._parts_cancelled: dict[str, int] = {}

    def apply(self, events: Iterable[Event]) -> Recovered:
        """Add ``events``. Raises JournalError when they can't have happened in this order."""
        for event in events:
            try:
                self._apply(event)
            except KeyError as error:
                raise JournalError(f"{event} is about {error}, of which nothing is known") from None
            except ValueError as error:
                raise JournalError(f"{event} can't have happened: {error}") from None
        return self

    def _apply(self, event: Event) -> None:
        if isinstance(event, Accepted):
            self.orders[event.order_id] = order_of(event)
        elif isinstance(event, Amended):
            self._amend(event)
        elif isinstance(event, Triggered):
            order = self.orders.pop(event.order_id)
            order.priority = 1
            self.orders[event.order_id] = order
        elif isinstance(event, Cancelled):
            self._cancel(event)
        elif isinstance(event, Requeued):
            self.orders[event.order_id] = self.orders.pop(event.order_id)
        elif isinstance(event, Intended):
            self._intend(event)
        elif isinstance(event, Switched):
            self.state = MarketState(event.state)
        elif isinstance(event, Refused):
            self._answered(event.match_id)
        elif isinstance(event, Executed):
            if event.taker_peer == self._peer and event.match_id in self.confirmations:
                self._answered(event.match_id)  # else it is another peer's match, of whatever id that likes
            trade = trade_of(event, self._market)
            for order_id in trade.orders_of(self._peer):
                self.orders[order_id].filled += event.quantity
            self._add_trade(trade)
            self.last_price = event.price

    def _add_trade(self, trade: Trade) -> None:
        trades = self.trades
        if len(trades) >= 2 * limits.TRADES_IN_MEMORY and trade.match_id != trades[-1].match_id:
            self.archived_trades += len(trades)
            self.archived_cross_peer += sum(trade.cross_peer for trade in trades)
            trades.clear()
        trades.append(trade)

    def _amend(self, event: Amended) -> None:
        order = self.orders[event.order_id]
        self.submitted.setdefault(order.id, (order.price, order.quantity))
        moves = event.price != order.price or event.quantity > order.quantity
        if moves and not order.untriggered:  # which waits on in its place
            self.orders[order.id] = self.orders.pop(order.id)
        order.price, order.quantity = event.price, event.quantity

    def _cancel(self, event: Cancelled) -> None:
        order = self.orders[event.order_id]
        order.reason = event.reason
        if event.quantity is None:
            order.cancel_requested = True
        else:
            parts = self._parts_cancelled
            parts[order.id] = parts.get(order.id, 0) + event.quantity

    def _intend(self, event: Intended) -> None:
        order = self.orders[event.order_id]
        fills = [OfferFill(*fill) for fill in event.fills]
        confirmation = Confirmation(order, event.maker, event.destination, event.lock_id, fills, event.key)
        self.confirmations[event.match_id] = confirmation
        order.reserved += confirmation.quantity

    def _answered(self, match_id: str) -> None:
        confirmation = self.confirmations.pop(match_id)
        confirmation.order.reserved -= confirmation.quantity

    def finish(self) -> Recovered:
        """Divide what is left of each order: open, or cancelled if its owner has cancelled it.

        Raises:
            JournalError: More was filled or confirmed than there is.
        """
        for order in self.orders.values():
            part = self._parts_cancelled.get(order.id, 0)
            left = order.quantity - order.filled - order.reserved - part
            if left < 0 or order.reserved < 0:
                raise JournalError(f"the events of {order.id} move more than there is: {order}")
            order.open, order.cancelled = (0, left + part) if order.cancel_requested else (left, part)
        return self

    @property
    def trade_count(self) -> int:
        """Trades executed so far."""
        return self.archived_trades + len(self.trades)

    # -- snapshots ---------------------------------------------------------------------------------

    def to_plain(self) -> Any:
        """What a snapshot holds, for msgpack: live orders, the newest closed ones, unanswered confirmations.

        Trades are kept elsewhere; of them it holds how many there are, and how many with other peers.
        """
        self.finish()
        cross_peer = self.archived_cross_peer + sum(trade.cross_peer for trade in self.trades)
        closed = [order.id for order in self.orders.values() if not order.live]
        dropped = set(closed[: -limits.SNAPSHOT_CLOSED_ORDERS])
        return {
            "trades": [self.trade_count, cross_peer],
            "orders": [
                msgspec.to_builtins(self._kept(order))
                for order in self.orders.values()
                if order.id not in dropped
            ],
            "last_price": self.last_price,
            "state": self.state.value,
            "confirmations": [
                msgspec.to_builtins(confirmation.intent(match_id))
                for match_id, confirmation in self.confirmations.items()
            ],
        }

    def _kept(self, order: Order) -> KeptOrder:
        return KeptOrder(
            accepted_event(order),
            order.filled,
            order.cancel_requested,
            order.priority > 0,
            self._parts_cancelled.get(order.id, 0),
            order.reason,
            self.submitted.get(order.id),
        )

    def load(self, plain: Any) -> None:
        """Begin with a snapshot. Raises JournalError when it is none."""
        try:
            orders = msgspec.convert(plain["orders"], list[KeptOrder])
            last_price = msgspec.convert(plain.get("last_price"), int | None)
            state = msgspec.convert(plain.get("state", "open"), MarketState)
            intents = msgspec.convert(plain["confirmations"], list[Intended])
            trades = msgspec.convert(plain["trades"], tuple[int, int])
        except (msgspec.ValidationError, AttributeError, KeyError, TypeError) as error:
            raise JournalError(f"no snapshot: {error}") from error
        for kept in orders:
            order = self.orders[kept.accepted.order_id] = order_of(kept.accepted)
            order.filled, order.cancel_requested = kept.filled, kept.cancel_requested
            order.reason = kept.reason
            order.priority = int(kept.triggered)
            if kept.cancelled:
                self._parts_cancelled[order.id] = kept.cancelled
            if kept.submitted is not None:
                self.submitted[order.id] = kept.submitted
        self.last_price, self.state = last_price, state
        self.apply(intents)
        self.archived_trades, self.archived_cross_peer = trades
