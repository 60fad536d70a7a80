"""Rebuild a market from its journal's events. No IO.

A restart keeps orders, trades and unanswered confirmations. It ends every reservation: what was set aside for
others or for an order's own way through the network is open again, and a confirmation from before the restart
is refused, since its lock is gone.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from . import limits
from .errors import JournalError
from .events import (
    Accepted,
    Cancelled,
    Event,
    Executed,
    Intended,
    Refused,
    accepted_event,
    trade_of,
)
from .model import Order, Side, Trade
from .selection import OfferFill
from .taker import Confirmation


class Recovered:
    """What the events of a market add up to, so far.

    Attributes:
        orders: By id, in order of arrival; ``filled`` and ``reserved`` (in-doubt) count, the rest of their
            quantity is divided by :meth:`finish`.
        archived_trades: How many trades were executed before ``trades``.
        archived_cross_peer: How many of these with other peers.
        trades: The newest, in order of execution: all since the snapshot, or enough to begin with.
        confirmations: Those without an answer, by match id.
    """

    def __init__(self, peer: str, market: str):
        self._peer = peer
        self._market = market
        self.orders: dict[str, Order] = {}
        self.archived_trades = 0
        self.archived_cross_peer = 0
        self.trades: list[Trade] = []
        self.confirmations: dict[str, Confirmation] = {}

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
            self.orders[event.order_id] = Order(
                id=event.order_id,
                owner=event.owner,
                side=Side(event.side),
                price=event.price,
                quantity=event.quantity,
                time_ms=event.time_ms,
                client_order_id=event.client_order_id,
                rests=event.rests,
            )
        elif isinstance(event, Cancelled):
            self.orders[event.order_id].cancel_requested = True
        elif isinstance(event, Intended):
            self._intend(event)
        elif isinstance(event, Refused):
            self._answered(event.match_id)
        elif isinstance(event, Executed):
            if event.match_id in self.confirmations:
                self._answered(event.match_id)
            trade = trade_of(event, self._market)
            for order_id in trade.orders_of(self._peer):
                self.orders[order_id].filled += event.quantity
            self._add_trade(trade)

    def _add_trade(self, trade: Trade) -> None:
        trades = self.trades
        if len(trades) >= 2 * limits.TRADES_IN_MEMORY and trade.match_id != trades[-1].match_id:
            self.archived_trades += len(trades)
            self.archived_cross_peer += sum(trade.cross_peer for trade in trades)
            trades.clear()
        trades.append(trade)

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
            left = order.quantity - order.filled - order.reserved
            if left < 0 or order.reserved < 0:
                raise JournalError(f"the events of {order.id} move more than there is: {order}")
            order.open, order.cancelled = (0, left) if order.cancel_requested else (left, 0)
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
                [msgspec.to_builtins(accepted_event(order)), order.filled, order.cancel_requested]
                for order in self.orders.values()
                if order.id not in dropped
            ],
            "confirmations": [
                msgspec.to_builtins(confirmation.intent(match_id))
                for match_id, confirmation in self.confirmations.items()
            ],
        }

    def load(self, plain: Any) -> None:
        """Begin with a snapshot. Raises JournalError when it is none."""
        try:
            orders = msgspec.convert(plain["orders"], list[tuple[Accepted, int, bool]])
            intents = msgspec.convert(plain["confirmations"], list[Intended])
            trades = msgspec.convert(plain["trades"], tuple[int, int])
        except (msgspec.ValidationError, KeyError, TypeError) as error:
            raise JournalError(f"no snapshot: {error}") from error
        for accepted, filled, cancel_requested in orders:
            self.apply([accepted])
            order = self.orders[accepted.order_id]
            order.filled, order.cancel_requested = filled, cancel_requested
        self.apply(intents)
        self.archived_trades, self.archived_cross_peer = trades
