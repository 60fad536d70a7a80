"""What a peer remembers of one market: its orders, also closed ones for a while, and every trade.

IO-free and in memory. Closed orders are bounded in count and age and swept, oldest first; trades are kept for
good, since they are also the answers to repeated confirmations.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable
from itertools import islice

from . import limits
from .errors import UnknownOrderError
from .model import Order, OrderStatus, Trade


class Ledger:
    """Orders by id in order of arrival, trades in order of execution."""

    def __init__(self, peer: str) -> None:
        self._peer = peer
        self._orders: dict[str, Order] = {}
        self._by_client_id: dict[tuple[str, str], str] = {}
        self._closed: deque[tuple[float, str]] = deque()
        self._trades: list[Trade] = []
        self._by_match: dict[str, list[Trade]] = {}
        self._by_order: dict[str, list[Trade]] = {}
        self.cross_peer_trades = 0

    # -- orders ------------------------------------------------------------------------------------------

    def add_order(self, order: Order) -> None:
        self._orders[order.id] = order
        if order.client_order_id is not None:
            self._by_client_id[order.owner, order.client_order_id] = order.id

    def knows(self, id: str) -> bool:
        return id in self._orders

    def order(self, id: str) -> Order:
        """Raises UnknownOrderError."""
        try:
            return self._orders[id]
        except KeyError:
            raise UnknownOrderError(f"no order {id[: limits.NAME_LENGTH]!r} here") from None

    def order_of_client(self, owner: str, client_order_id: str) -> Order | None:
        id = self._by_client_id.get((owner, client_order_id))
        return None if id is None else self._orders[id]

    def orders(
        self, statuses: Collection[OrderStatus] | None, after: int, limit: int
    ) -> tuple[list[Order], int | None]:
        """One page of orders in order of arrival.

        Args:
            statuses: Only orders of one of these; None: all.
            after: The ``sequence`` that the page before ended with; 0: from the start.
            limit: Rows at the most.

        Returns:
            The rows, and what to pass as ``after`` for the next page (None: this was the last).
        """
        chosen = (
            order
            for order in self._orders.values()
            if order.sequence > after and (statuses is None or order.status in statuses)
        )
        page = list(islice(chosen, limit + 1))
        return page[:limit], page[limit - 1].sequence if len(page) > limit else None

    def closed(self, order: Order, now: float) -> None:
        """``order`` has just closed; it can be asked for until :meth:`sweep` takes it."""
        self._closed.append((now, order.id))

    def sweep(self, now: float) -> int:
        """Forget closed orders beyond the bounds in age and count. Returns how many."""
        swept = 0
        while self._closed:
            closed, id = self._closed[0]
            if now - closed < limits.CLOSED_ORDER_AGE_S and len(self._closed) <= limits.CLOSED_ORDERS:
                break
            self._closed.popleft()
            order = self._orders.pop(id)
            if order.client_order_id is not None:
                self._by_client_id.pop((order.owner, order.client_order_id), None)
            self._by_order.pop(id, None)
            swept += 1
        return swept

    # -- trades ------------------------------------------------------------------------------------------

    def add_trades(self, trades: Iterable[Trade]) -> None:
        for trade in trades:
            self._trades.append(trade)
            self.cross_peer_trades += trade.cross_peer
            self._by_match.setdefault(trade.match_id, []).append(trade)
            for order_id in trade.orders_of(self._peer):
                self._by_order.setdefault(order_id, []).append(trade)

    def trades_of_match(self, match_id: str) -> list[Trade]:
        return self._by_match.get(match_id, [])

    def trades_of_order(self, order_id: str) -> list[Trade]:
        return self._by_order.get(order_id, [])

    def trades(self, after: int, limit: int) -> tuple[list[Trade], int | None]:
        """One page of trades in order of execution; ``after`` counts rows, else as :meth:`orders`."""
        page = self._trades[after : after + limit]
        end = after + len(page)
        return page, end if end < len(self._trades) else None

    @property
    def order_count(self) -> int:
        """Orders that can be asked for."""
        return len(self._orders)

    @property
    def trade_count(self) -> int:
        return len(self._trades)
