"""Rebuild a market from its journal's events. No IO.

A restart keeps orders, trades and unanswered confirmations. It ends every reservation: what was set aside for
others or for an order's own way through the network is open again, and a confirmation from before the restart
is refused, since its lock is gone.
"""

from __future__ import annotations

from collections.abc import Iterable

from .errors import JournalError
from .events import Accepted, Cancelled, Event, Executed, Intended, Refused, trade_of
from .model import Order, Side, Trade
from .selection import OfferFill
from .taker import Confirmation


class Recovered:
    """What the events of a market add up to.

    Attributes:
        orders: By id, in order of arrival. What is in-doubt is ``reserved``, all else that is left is
            ``open``, or ``cancelled`` if the owner has cancelled the order.
        trades: In order of execution.
        confirmations: Those without an answer, by match id.
    """

    def __init__(self, peer: str, market: str, events: Iterable[Event]):
        """``peer``: whose events they are. Raises JournalError when they can't have happened so."""
        self._market = market
        self._peer = peer
        self.orders: dict[str, Order] = {}
        self.trades: list[Trade] = []
        self.confirmations: dict[str, Confirmation] = {}
        for event in events:
            try:
                self._apply(event)
            except KeyError as error:
                raise JournalError(f"{event} is about {error}, of which nothing is known") from None
        for order in self.orders.values():
            left = order.quantity - order.filled - order.reserved
            order.open, order.cancelled = (0, left) if order.cancel_requested else (left, 0)
            if left < 0 or order.reserved < 0:
                raise JournalError(f"the events of {order.id} move more than there is: {order}")

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
            )
        elif isinstance(event, Cancelled):
            self.orders[event.order_id].cancel_requested = True
        elif isinstance(event, Intended):
            order = self.orders[event.order_id]
            fills = [OfferFill(*fill) for fill in event.fills]
            confirmation = Confirmation(order, event.maker, event.destination, event.lock_id, fills)
            self.confirmations[event.match_id] = confirmation
            order.reserved += confirmation.quantity
        elif isinstance(event, Refused):
            self._answered(event.match_id)
        elif isinstance(event, Executed):
            if event.match_id in self.confirmations:
                self._answered(event.match_id)
            trade = trade_of(event, self._market)
            for order_id in trade.orders_of(self._peer):
                self.orders[order_id].filled += event.quantity
            self.trades.append(trade)

    def _answered(self, match_id: str) -> None:
        confirmation = self.confirmations.pop(match_id)
        confirmation.order.reserved -= confirmation.quantity
